"""Admission: the policy of a full tier, which knows the cost of a fetch, decides what comes in."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from memories import MemoryManager, MigrationSettings, policies
from memories.engine.fetch_costs import TRIALS, FetchCosts, default_seconds
from memories.engine.victims import PolicyVictims
from memories.model.events import Moved, Retrieved, Written
from memories.model.record import Record
from memories.model.tiers import Cause, TierName
from memories.policies import registry
from memories.policies.base import PolicyNode
from memories.policies.lru import LruPolicy

SIZE = 10_000


class Doorkeeper(LruPolicy):
    """Refuses every key, and remembers which."""

    name = "doorkeeper"

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self.asked: list[tuple[str, int]] = []

    def admit(self, node: PolicyNode) -> bool:
        assert node.link is None
        self.asked.append((node.key, node.hits))
        return False


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryManager]:
    """Yield a manager whose warm tier holds four values, and admits no other value in exchange."""
    monkeypatch.setattr(registry, "_factories", dict(registry._factories))
    policies.register_policy("doorkeeper", Doorkeeper)
    still = MigrationSettings(interval_seconds=3600)
    with MemoryManager(
        "1 B", "45 kB", "10 MB", eviction_policy="doorkeeper", migration=still, prefetch="off"
    ) as made:
        yield made


def doorkeeper(manager: MemoryManager) -> Doorkeeper:
    victims = manager._hierarchy.tiers[TierName.WARM].victims
    assert isinstance(victims, PolicyVictims)
    assert isinstance(victims.policy, Doorkeeper)
    return victims.policy


def fill(manager: MemoryManager) -> None:
    for number in range(4):
        manager[f"k{number}"] = os.urandom(SIZE)
        assert "warm" == manager.get_tier(f"k{number}")


def test_a_new_value_that_is_refused_goes_to_the_next_tier(manager: MemoryManager) -> None:
    """A scan of new values must not sweep out what is read all the time."""
    fill(manager)
    manager["new"] = os.urandom(SIZE)
    assert "cold" == manager.get_tier("new")
    assert [("new", 0)] == doorkeeper(manager).asked
    assert {"warm"} == {manager.get_tier(f"k{number}") for number in range(4)}


def test_a_store_does_not_ask_the_policy_while_there_is_room(manager: MemoryManager) -> None:
    """The question costs a store some microseconds, and free room is for every value."""
    fill(manager)
    assert [] == doorkeeper(manager).asked


def test_a_named_tier_is_used_without_question(manager: MemoryManager) -> None:
    """`tier=` says where the value is when `store` returns."""
    fill(manager)
    manager.store("new", os.urandom(SIZE), tier="warm")
    assert "warm" == manager.get_tier("new")


def test_what_may_lie_nowhere_else_comes_in_all_the_same(manager: MemoryManager) -> None:
    """A refusal is only advice; no value is rejected because of it."""
    fill(manager)
    manager.store("new", os.urandom(SIZE), max_tier="warm")
    assert "warm" == manager.get_tier("new")


def test_a_value_that_is_replaced_keeps_its_place(manager: MemoryManager) -> None:
    """It has long been in; a new version is not a newcomer."""
    fill(manager)
    manager["k0"] = os.urandom(SIZE)
    assert "warm" == manager.get_tier("k0")
    assert [] == doorkeeper(manager).asked


def test_a_promotion_that_is_refused_stays_below(manager: MemoryManager) -> None:
    """Two touches open the gate; what would have to leave decides whether that is enough."""
    fill(manager)
    manager.store("low", os.urandom(SIZE), tier="cold")
    migrator = manager._services.migrator
    assert migrator is not None
    for _ in range(3):
        manager["low"]
    migrator.tick()
    assert ("low", 2) in doorkeeper(manager).asked
    assert "cold" == manager.get_tier("low")
    manager.delete("k0")
    manager["low"]
    migrator.tick()
    assert "warm" == manager.get_tier("low")


def retrieved(size: int, seconds: float, tier: TierName = TierName.COLD) -> Retrieved:
    record = Record(key="k", version=1, tier=tier, size=size, stored_at=0.0, kind="bytes")
    return Retrieved("k", 0.0, tier, size, seconds, record)


def test_before_anything_was_measured_larger_costs_more() -> None:
    """A policy needs an order of magnitude from the first store on."""
    cost = FetchCosts().below(TierName.WARM)
    assert 0 < cost(1) < cost(10**6) < cost(10**9)
    assert cost(10**9) == pytest.approx(default_seconds(TierName.COLD, 10**9), rel=0.5)


def test_a_cost_is_what_fetches_from_the_next_tier_down_took() -> None:
    """Warm pays with reads of cold, hot with moves from warm, and neither with the other's."""
    costs = FetchCosts()
    warm, hot = costs.below(TierName.WARM), costs.below(TierName.HOT)
    before = hot(SIZE)
    for _ in range(TRIALS):
        costs.observe_reads([retrieved(SIZE, 0.25)])
        costs.observe_reads([retrieved(SIZE, 9.0, TierName.GLACIER)])
    assert warm(SIZE) == pytest.approx(0.25)
    assert before == hot(SIZE)
    for _ in range(TRIALS):
        costs.observe(Moved("k", 0.0, TierName.WARM, TierName.HOT, SIZE, Cause.HIT, 0.125))
    assert hot(SIZE) == pytest.approx(0.125)


def test_sizes_not_yet_measured_follow_the_nearest_that_was() -> None:
    """Else the first class measured on a slow disk would look dearer than all others."""
    costs = FetchCosts()
    cost = costs.below(TierName.WARM)
    before = cost(4 * SIZE) / cost(SIZE)
    for _ in range(TRIALS):
        costs.observe_reads([retrieved(SIZE, 0.25)])
    assert cost(4 * SIZE) / cost(SIZE) == pytest.approx(before)


def test_one_slow_fetch_and_small_changes_leave_the_cost_as_it_is() -> None:
    """Ranks inside a policy rest on it: they must not shift with every read."""
    costs = FetchCosts()
    cost = costs.below(TierName.WARM)
    before = cost(SIZE)
    costs.observe_reads([retrieved(SIZE, 60.0)])
    costs.observe_reads([retrieved(SIZE, 0.0)])
    assert before == cost(SIZE)
    costs = FetchCosts()
    cost = costs.below(TierName.WARM)
    for seconds in (0.25,) * TRIALS + (0.3, 0.2) * 20:
        costs.observe_reads([retrieved(SIZE, seconds)])
    assert 0.25 == cost(SIZE)


def test_what_keeping_costs_is_a_write_and_a_read() -> None:
    """A result that takes longer to compute than both is worth its place on the disk."""
    costs = FetchCosts()
    read, before = costs.below(TierName.WARM), costs.keeping(SIZE)
    assert read(SIZE) < before
    for _ in range(TRIALS):
        costs.observe_reads([retrieved(SIZE, 5e-4)])
        costs.observe(Written("k", 0.0, TierName.COLD, SIZE, SIZE, 1e-5))
        costs.observe(Written("k", 0.0, TierName.GLACIER, SIZE, SIZE, 9.0))
    assert costs.keeping(SIZE) == pytest.approx(5e-4 + 1e-5)


def test_a_busy_machine_makes_no_result_look_cheap() -> None:
    """Reads and writes that wait for other programs say nothing about the disk."""
    costs = FetchCosts()
    before = costs.keeping(SIZE)
    for _ in range(100):
        costs.observe_reads([retrieved(SIZE, 9.0)])
        costs.observe_batch([Written("k", 0.0, TierName.COLD, SIZE, SIZE, 9.0)])
    assert before < costs.keeping(SIZE) < 4 * before


def test_the_engine_gives_its_policies_what_reads_have_taken() -> None:
    """A policy that saves time must know how long each value takes."""
    with MemoryManager(
        "1 B", "1 MB", "10 MB", eviction_policy="gdsf", migration=False, prefetch="off"
    ) as manager:
        victims = manager._hierarchy.tiers[TierName.WARM].victims
        assert isinstance(victims, PolicyVictims)
        cost = victims.policy._cost  # type: ignore[attr-defined]
        for _ in range(TRIALS):
            manager._hierarchy.events.emit_soon(retrieved(SIZE, 5.0))
        manager.stats()
        assert cost(SIZE) == pytest.approx(5.0)
        manager.store("key", os.urandom(SIZE), tier="cold")
        for _ in range(60):
            manager["key"]
        manager.stats()
        assert cost(SIZE) < 2.0
