"""While a tier is far from full, its policy is not shown what comes and goes."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import numpy as np
import pytest

from memories import MemoryManager
from memories.engine import newcomers
from memories.engine.victims import PolicyVictims
from memories.model.tiers import TierName
from memories.policies import registry
from memories.policies.lru import LruPolicy

COUNT = 2000


class Watched(LruPolicy):
    """A policy of a user, which gets everything at once."""

    name = "watched"
    calls: list[str]

    def insert(self, node: object) -> None:
        type(self).calls.append(f"insert {node.key}")  # type: ignore[attr-defined]
        super().insert(node)  # type: ignore[arg-type]

    def remove(self, node: object) -> None:
        type(self).calls.append(f"remove {node.key}")  # type: ignore[attr-defined]
        super().remove(node)  # type: ignore[arg-type]


def made(policy: str = "auto", *, hot: str = "100 MB", warm: str = "1 GB") -> MemoryManager:
    """Return a manager whose background does nothing."""
    return MemoryManager(hot, warm, eviction_policy=policy, migration=False, prefetch="off")


def waiting(manager: MemoryManager) -> newcomers.Newcomers:
    """Return the newcomers of hot, once all stores are settled."""
    manager._hierarchy.settlement.settle()
    return of_hot(manager)._newcomers


def of_hot(manager: MemoryManager) -> PolicyVictims:
    victims = manager._hierarchy.tiers[TierName.HOT].victims
    assert isinstance(victims, PolicyVictims)
    return victims


@pytest.fixture
def watched() -> Iterator[str]:
    Watched.calls = []
    yield registry.register_policy("watched", Watched, replace=True)
    registry._factories.pop("watched")


@pytest.mark.parametrize("name", ["auto", "fifo", "gdsf", "lfu", "lru", "mq", "sieve"])
def test_the_policy_knows_everything_before_it_decides(name: str) -> None:
    """What was not asked about must be in its order, and what has left must not."""
    with made(name) as manager:
        for number in range(COUNT):
            manager.store(f"k{number}", number)
        for number in range(0, COUNT, 2):
            manager.store(f"k{number}", -number)
        for number in range(0, COUNT, 5):
            manager.delete(f"k{number}")
        left = len(manager)
        assert left == waiting(manager).count
        victims = of_hot(manager)
        assert left == len(victims.policy)
        victims.policy.check()
        assert 0 == waiting(manager).count


def test_newcomers_leave_in_the_order_in_which_they_came() -> None:
    """A value that replaced another came later than those between the two."""
    with made("fifo") as manager:
        for key in "abcde":
            manager.store(key, key)
        manager.store("b", "again")
        manager.delete("d")
        manager.store("d", "again")
        manager._hierarchy.settlement.settle()
        order = []
        while (entry := of_hot(manager).offer()) is not None:
            order.append(entry.key)
        assert list("acebd") == order


def test_little_waits_when_a_tier_is_nearly_full() -> None:
    """Otherwise the first decision would take as long as all insertions together."""
    with made(hot="1 MB", warm="1 B") as manager:
        most = 0
        for number in range(COUNT * 17 // 10):
            manager.store(f"k{number}", number)
            if number % 64 == 0:
                most = max(most, waiting(manager).count)
        assert manager._hierarchy.tiers[TierName.HOT].budget.used > 950_000
        assert most > COUNT // 2
        assert waiting(manager).count < COUNT // 10


def test_the_number_that_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A decision shows all of them to the policy at once."""
    monkeypatch.setattr("memories.engine.victims.MOST_NEWCOMERS", 500)
    with made() as manager:
        for number in range(COUNT):
            manager.store(f"k{number}", number)
        assert 0 < waiting(manager).count <= 500


def test_nothing_stays_of_what_has_left() -> None:
    """A value that was replaced is not charged any more, so nothing may hold it."""
    with made() as manager:
        for number in range(COUNT):
            manager.store(f"k{number}", np.full(20, number))
        gone = weakref.ref(manager._hierarchy.catalog.entries["k7"].payload)
        manager.store("k7", 7)
        for number in range(COUNT // 4, COUNT):
            manager.delete(f"k{number}")
        found = waiting(manager)
        gc.collect()
        assert gone() is None
        assert len(found._keys) <= 2 * found.count + newcomers.SPARE
        of_hot(manager).drain_notes()
        of_hot(manager).drain_notes()
        assert found.count == len(found._keys) == COUNT // 4


def test_a_policy_of_the_user_gets_each_store(watched: str) -> None:
    """It may count arrivals, which this package cannot know."""
    with made(watched) as manager:
        manager.store("a", 1)
        manager.store("b", 1)
        manager.store("a", 2)
        manager._hierarchy.settlement.settle()
        assert ["insert a", "insert b", "insert a", "remove a"] == sorted(
            Watched.calls, key=lambda call: call.startswith("remove")
        )
        assert 0 == waiting(manager).count
