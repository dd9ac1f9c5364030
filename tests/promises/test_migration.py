"""Values move by themselves, both ways, within the times promised, and stay what they were."""

from __future__ import annotations

import numpy as np
import pytest
from tests.promises.conftest import Make
from tests.support.waiting import until

from memories import InvalidOptionError, MemoryManager, MigrationSettings, Rule, TierName
from memories.core.wiring import assemble
from memories.engine.payload import Payload
from memories.model.record import Terms
from memories.testing.clock import ManualClock


def test_a_cold_value_that_is_read_is_promoted_and_keeps_its_copy(make: Make) -> None:
    """Soon, off the read path, one tier at a time."""
    manager = make(migration=None)
    value = np.random.default_rng(0).random(1000)
    manager.store("cold", value, "cold")
    manager.store("archived", value, "glacier")
    for _ in range(10):
        assert np.array_equal(value, manager.retrieve("cold"))
        assert np.array_equal(value, manager.retrieve("archived"))
    until(lambda: manager.get_tier("cold") in ("warm", "hot"))
    until(lambda: manager.get_tier("archived") != "glacier")
    assert manager.explain("cold").durable
    assert manager.stats().tiers[TierName.COLD].used_bytes >= value.nbytes
    assert np.array_equal(value, manager.retrieve("cold"))


def test_a_value_that_may_be_in_hot_only_returns_to_hot_after_a_restart(make: Make) -> None:
    """It stayed on the disk for ever: it may not be in warm, the next tier up."""
    rules = [Rule(prefix="model/", tier="hot", max_tier="hot")]
    manager = make(migration=None, rules=rules)
    manager.store("model/a", 1)
    manager.store("model/b", 2)
    manager.cleanup()
    manager = make(migration=None, rules=rules)
    assert ["cold", "cold"] == [manager.get_tier(key) for key in manager]
    for _ in range(3):
        manager.retrieve("model/a")
    until(lambda: manager.get_tier("model/a") == "hot")
    assert "It stays in hot: its terms" in manager.explain("model/a").next
    assert "hot" == manager.promote("model/b")


def test_a_value_that_may_be_in_no_faster_tier_stays(make: Make) -> None:
    """Reads neither move it nor say that they will, and `promote` says why."""
    manager = make(migration=None)
    manager.store("k", 1, min_tier="cold")
    for _ in range(3):
        manager.retrieve("k")
    assert "It stays in cold or below: its terms" in manager.explain("k").next
    with pytest.raises(InvalidOptionError, match="min_tier is cold"):
        manager.promote("k")
    assert "cold" == manager.get_tier("k")


def test_idle_values_leave_hot_and_read_ones_stay() -> None:
    """The rule of the migration example, on a clock of our own."""
    clock = ManualClock()
    with MemoryManager(1, 1, 1, migration=False) as manager:
        settings = MigrationSettings(interval_seconds=3600)
        lifecycle = assemble(manager._services.settings, settings, clock)
        migrator, hierarchy = lifecycle.services.migrator, lifecycle.services.hierarchy
        assert migrator is not None
        for key in "abcde":
            hierarchy.put(key, Payload.of(key), tier=TierName.HOT, terms=Terms())
        for _ in range(10):
            for key in "ab":
                hierarchy.catalog.entries[key].read()
            clock.advance(0.1)
            migrator.tick()
        assert {"hot"} == {str(hierarchy.lookup(key).tier) for key in "abcde"}
        for _ in range(50):
            clock.advance(0.1)
            migrator.tick()
        tiers = [str(hierarchy.lookup(key).tier) for key in "abcde"]
        assert ["hot", "hot", "warm", "warm", "warm"] == tiers
        for _ in range(100):
            clock.advance(0.24)
            migrator.tick()
        assert ["hot", "hot"] == [str(hierarchy.lookup(key).tier) for key in "ab"]
        for _ in range(100):
            clock.advance(40)
            migrator.tick()
        assert {"warm"} == {str(hierarchy.lookup(key).tier) for key in "abcde"}
        assert 0 == migrator.failures
        lifecycle.close()


@pytest.mark.parametrize("seconds", [(0.2,) * 5, (4.0,) * 5, (2.0, 9.0, 3.0, 8.0, 20.0)])
def test_five_arrays_are_hot_however_long_making_them_takes(seconds: tuple[float, ...]) -> None:
    """The migration example on a slow machine: the usage printed is that of all five."""
    clock = ManualClock()
    with MemoryManager(1, 1, 1, migration=False) as manager:
        settings = MigrationSettings(interval_seconds=3600)
        lifecycle = assemble(manager._services.settings, settings, clock)
        migrator, hierarchy = lifecycle.services.migrator, lifecycle.services.hierarchy
        assert migrator is not None

        def wait(seconds: float) -> None:
            for _ in range(round(10 * seconds)):
                clock.advance(0.1)
                migrator.tick()

        for key, making in zip("abcde", seconds, strict=True):
            wait(making)
            hierarchy.put(key, Payload.of(np.zeros(1000)), tier=TierName.HOT, terms=Terms())
        wait(1.0)
        assert {"hot"} == {str(hierarchy.lookup(key).tier) for key in "abcde"}
        for _ in range(10):
            for key in "ab":
                hierarchy.catalog.entries[key].read()
            wait(0.1)
        assert {"hot"} == {str(hierarchy.lookup(key).tier) for key in "abcde"}
        wait(5.0)
        tiers = [str(hierarchy.lookup(key).tier) for key in "abcde"]
        assert ["hot", "hot", "warm", "warm", "warm"] == tiers
        assert 0 == migrator.failures
        lifecycle.close()


def test_unread_values_leave_hot_once_no_more_come() -> None:
    """The last of them, too; the rhythm in which they came says when."""
    clock = ManualClock()
    with MemoryManager(1, 1, 1, migration=False) as manager:
        settings = MigrationSettings(interval_seconds=3600)
        lifecycle = assemble(manager._services.settings, settings, clock)
        migrator, hierarchy = lifecycle.services.migrator, lifecycle.services.hierarchy
        assert migrator is not None
        for key in "abcde":
            clock.advance(0.5)
            hierarchy.put(key, Payload.of(key), tier=TierName.HOT, terms=Terms())
            migrator.tick()
        for _ in range(50):
            clock.advance(0.1)
            migrator.tick()
        assert {"warm"} == {str(hierarchy.lookup(key).tier) for key in "abcde"}
        lifecycle.close()


def test_a_full_tier_is_worked_down_in_the_background(make: Make) -> None:
    """Writers find headroom; what was read last stays."""
    manager = make("1 MB", "1 MB", migration=MigrationSettings(interval_seconds=0.01))
    for index in range(60):
        manager.store(f"{index:02}", np.random.default_rng(index).random(5000), "warm")
    warm = manager._hierarchy.tiers[TierName.WARM].budget
    until(lambda: warm.used <= 0.99 * warm.effective)
    assert manager.stats().failures == 0
    for index in range(60):
        expected = np.random.default_rng(index).random(5000)
        assert np.array_equal(expected, manager.retrieve(f"{index:02}"))


def test_a_forgotten_manager_ends_its_threads() -> None:
    """Garbage must not keep migrating."""
    import gc
    import threading

    others = set(threading.enumerate())
    manager = MemoryManager(1, 1, 1)
    manager.store("a", np.zeros(1000), "cold")
    started = set(threading.enumerate()) - others
    assert started
    del manager
    gc.collect()
    until(lambda: not any(thread.is_alive() for thread in started))


@pytest.mark.parametrize("ends", ["forgotten", "closed"])
@pytest.mark.parametrize("policy", ["auto", "lru", "gdsf", "mq"])
def test_an_ended_manager_keeps_no_value(ends: str, policy: str) -> None:
    """Compiled entries are not seen by the garbage collector, and policies refer to them."""
    import gc
    import weakref

    manager = MemoryManager(
        "2 MB", "2 MB", 1, eviction_policy=policy, rules=[Rule(prefix="x/", ttl=60.0)]
    )
    hierarchy = manager._hierarchy
    for number in range(300):
        manager.store(f"x/{number}" if number % 9 == 0 else f"k{number}", np.zeros(2000), "hot")
        manager.retrieve(f"k{number - number % 9 + 1}", default=None)
    payloads = [weakref.ref(entry.payload) for entry in hierarchy.catalog.entries.values()]
    assert len(payloads) > 100
    assert any(entry.link is not None for entry in hierarchy.catalog.entries.values())
    del hierarchy
    if ends == "closed":
        manager.cleanup(flush=False)
    del manager
    gc.collect()
    until(lambda: gc.collect() >= 0 and all(one() is None for one in payloads))
