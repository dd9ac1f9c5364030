"""What a sweep gives back: the victims that stay, and no others."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from memories import MemoryManager
from memories.engine.eviction_pass import MAX_KEPT, EvictionOutcome, EvictionPass
from memories.engine.tier import Tier
from memories.engine.victims import PolicyVictims
from memories.model.entry import Entry
from memories.model.record import Record
from memories.model.tiers import TierName


@pytest.fixture
def manager() -> Iterator[MemoryManager]:
    with MemoryManager("1 B", "10 MB", "10 MB", migration=False, prefetch="off") as made:
        made.store_many({f"k{number}": np.full(100, number) for number in range(9)}, "warm")
        yield made


def sweep_while(manager: MemoryManager, act: Callable[[str], None]) -> Tier:
    """Offer a victim whose key another thread holds and uses before the sweep ends."""
    tier = manager._hierarchy.tiers[TierName.WARM]

    def busy(tier: Tier, victim: Entry | Record) -> EvictionOutcome:
        act(victim.key)
        return EvictionOutcome.BUSY

    with EvictionPass(tier, busy, manager._hierarchy.mover._current) as sweep:
        assert sweep.evict_next()
    gc.collect()
    return tier


def policy_holds(tier: Tier) -> int:
    assert isinstance(tier.victims, PolicyVictims)
    tier.victims.policy.check()
    return len(tier.victims.policy)


def test_a_victim_deleted_while_it_was_offered_is_not_held(manager: MemoryManager) -> None:
    """Its policy would keep the payload alive, and charged, until its turn came again."""
    tier = sweep_while(manager, manager.delete)
    assert 8 == policy_holds(tier) == len(manager)
    held = sum(entry.size for entry in manager._hierarchy.catalog.entries.values())
    assert held == tier.budget.used


def test_a_victim_whose_terms_changed_while_it_was_offered_is_held_once(
    manager: MemoryManager,
) -> None:
    """Held twice it would leave twice, and its policy would count its bytes double."""

    def change(key: str) -> None:
        manager.pin(key)
        manager.unpin(key)

    assert 9 == policy_holds(sweep_while(manager, change)) == len(manager)


def test_an_untouched_victim_is_a_victim_again(manager: MemoryManager) -> None:
    """What is busy now may leave the next time."""
    assert 9 == policy_holds(sweep_while(manager, lambda key: None))


def test_a_search_ends_after_many_that_stay(manager: MemoryManager) -> None:
    """Its work is bounded, however many there are; all of them are victims again afterwards."""
    manager.store_many({f"more{number}": b"value" for number in range(MAX_KEPT)}, "warm")
    asked = list[str]()

    def stays(victim: Entry | Record) -> bool:
        asked.append(victim.key)
        return False

    tier = manager._hierarchy.tiers[TierName.WARM]
    with manager._hierarchy.mover.eviction(tier) as sweep:
        assert sweep.find_next(stays) is None
    assert MAX_KEPT == len(set(asked)) == len(asked)
    assert MAX_KEPT + 9 == policy_holds(tier)
