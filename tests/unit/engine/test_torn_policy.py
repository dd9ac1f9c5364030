"""A policy that an exception left half changed is replaced, whichever entry comes next."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from memories import MemoryManager
from memories.engine.victims import PolicyVictims
from memories.model.entry import Entry
from memories.model.tiers import TierName
from memories.policies.base import Policy

COUNT = 300  # More than a policy keeps in one page or rung.


def tear(policy: Policy) -> None:
    """End a change of the policy in the middle."""
    policy.evict()
    raise MemoryError("no memory for the second half")


def after_a_tear(name: str, act: Callable[[MemoryManager], object]) -> tuple[int, int]:
    """Return how many entries warm and its policy hold once `act` met a torn policy."""
    with MemoryManager(
        "1 B", "10 MB", eviction_policy=name, migration=False, prefetch="off"
    ) as manager:
        manager.store_many({f"k{number}": np.full(9, number) for number in range(COUNT)}, "warm")
        victims = manager._hierarchy.tiers[TierName.WARM].victims
        assert isinstance(victims, PolicyVictims)
        with pytest.raises(MemoryError):
            victims._changing(tear)
        act(manager)
        victims.drain_notes()
        victims.policy.check()
        linked = [entry for entry in manager._hierarchy.catalog.entries.values() if entry.link]
        assert len(linked) == len(victims.policy)
        return len(manager), len(victims.policy)


@pytest.mark.parametrize("name", ["auto", "fifo", "gdsf", "lfu", "lru", "mq", "s3fifo", "sieve"])
def test_an_entry_that_leaves_does_not_touch_the_new_policy(name: str) -> None:
    """Its link led into the torn one: `cleanup` raised, or the new order lost another entry."""
    assert (COUNT - 1, COUNT - 1) == after_a_tear(name, lambda manager: manager.delete("k200"))
    assert (COUNT, COUNT) == after_a_tear(name, lambda manager: manager.store("k200", 1, "warm"))
    assert (0, 0) == after_a_tear(name, MemoryManager.clear)


def test_an_entry_that_comes_back_enters_the_new_policy() -> None:
    """Its stale link said that it was inside already, so nothing could ever evict it."""

    def change(manager: MemoryManager) -> None:
        entry = manager._hierarchy.catalog.entries["k7"]
        assert isinstance(entry, Entry)
        manager._hierarchy.tiers[TierName.WARM].victims.add(entry)

    assert (COUNT, COUNT) == after_a_tear("lru", change)
