"""Promise 5: budgets are hard, and a view that a reader holds counts."""

from __future__ import annotations

import gc
import random
import sys
from types import FrameType

import numpy as np
import pytest
from tests.promises.conftest import Make
from tests.support.interrupting import SOURCES, Trace

from memories import MemoryManager, TierFullError
from memories.model.tiers import TierName


def used(manager: MemoryManager, tier: str) -> int:
    """Return the bytes a tier is charged for."""
    return manager.stats().tiers[tier].used_bytes  # type: ignore[index]


def test_usage_is_percent_of_the_configured_size() -> None:
    """8 MB in 8 GB are 0.10 percent; a GB is 10**9 bytes."""
    with MemoryManager(8, 32, 500, glacier_memory_enabled=True) as manager:
        manager.store("m", np.zeros((1000, 1000)), "hot")
        usage = manager.get_memory_usage()
        assert ["hot", "warm", "cold", "glacier"] == list(usage)
        assert "0.10 0.00 0.00" == " ".join(f"{usage[t]:.2f}" for t in ("hot", "warm", "cold"))


def test_usage_shows_a_removal_at_once(make: Make) -> None:
    """Also of values that are so small that much else about them is counted later."""
    manager = make(migration=False)
    for value in (b"x" * 10_000, [1, 2], np.arange(100)):
        manager.store("k", value, "warm")
        assert manager.get_memory_usage()["warm"] > 0
        manager.delete("k")
        assert 0 == manager.get_memory_usage()["warm"]


def test_no_tier_ever_holds_more_than_it_may(make: Make) -> None:
    """Checked after every store, not on average."""
    manager = make("300 kB", "500 kB")
    generator = np.random.default_rng(1)
    for index in range(200):
        manager.store(
            str(generator.integers(50)), generator.random(int(generator.integers(20_000)))
        )
        for tier in manager.stats().tiers.values():
            assert tier.used_bytes <= tier.effective_bytes, index


@pytest.mark.parametrize("size", [60_000, 150_000])
def test_a_full_disk_tier_never_holds_more_than_it_may_at_any_line(make: Make, size: int) -> None:
    """Other threads ask at any moment: between a write and its release it counted twice."""
    manager, chance = make(cold="8 MB", migration=False), random.Random(1)
    budget = manager._hierarchy.tiers[TierName.COLD].budget
    above: dict[str, int] = {}

    def calls(frame: FrameType, event: str, arg: object) -> Trace | None:
        if not frame.f_code.co_filename.startswith(SOURCES):
            return None
        trace = sys.gettrace()
        sys.settrace(None)
        excess = budget.used - budget.configured
        sys.settrace(trace)
        if excess > 0:
            above[f"{frame.f_code.co_filename}:{frame.f_lineno}"] = excess
        return calls

    def store(number: int) -> None:
        manager.store(f"key {number}", chance.randbytes(chance.randint(size // 2, size)), "cold")

    number = 0
    while budget.headroom > 3 * size:
        store(number)
        number += 1
    before = sys.gettrace()
    sys.settrace(calls)
    try:
        for more in range(number, number + 15):
            store(more)
            store(chance.randrange(more))
            manager.migrate(f"key {chance.randrange(more)}", "cold")
    finally:
        sys.settrace(before)
    assert {} == above
    assert budget.used > 0.8 * budget.configured


def test_a_small_array_counts_until_its_last_view_dies(make: Make) -> None:
    """It lies in a `bytes` object, which cannot be watched: its views are what is waited for."""
    manager = make()
    manager.store("a", np.arange(100), "warm")
    held = used(manager, "warm")
    part = manager.retrieve("a")[1:]
    manager.delete("a")
    assert held == used(manager, "warm")
    del part
    assert 0 == used(manager, "warm")


def test_a_deleted_value_counts_until_its_last_view_dies(make: Make) -> None:
    """The memory is still taken, so the budget must not be given away twice."""
    manager = make(warm="3 MB")
    manager.store("a", np.zeros(250_000), "warm")
    view = manager.retrieve("a")
    manager.delete("a")
    assert used(manager, "warm") > 2_000_000
    with pytest.raises(TierFullError):
        manager.store("b", np.zeros(250_000), "warm", max_tier="warm")
    del view
    gc.collect()
    assert 0 == used(manager, "warm")
    manager.store("b", np.zeros(250_000), "warm", max_tier="warm")


def test_moving_and_overwriting_leave_no_charge_behind(make: Make) -> None:
    """The budget equals what is held, after everything that can happen to a value."""
    manager = make()
    for tier in ("hot", "warm", "cold", "glacier", "warm"):
        manager.store("a", {"x": np.zeros(10_000), "y": [b"z" * 100]}, tier)
        manager.migrate("a", "hot")
        manager.migrate("a", "cold")
    manager.store("a", 1, "hot", ttl=100)
    manager.delete("a")
    assert (0, 0) == (used(manager, "hot"), used(manager, "warm"))


def test_clear_gives_back_a_value_with_a_backing_copy_once(make: Make) -> None:
    """A key is listed among the values in RAM and among those on the disk."""
    manager = make(glacier_memory_enabled=False)
    for number in range(5):
        manager.store(f"k{number}", b"x" * 500, "warm")
    manager.flush()
    manager.clear()
    assert 0 == used(manager, "warm")


def test_effective_capacity_is_what_the_machine_has() -> None:
    """A configured size beyond the machine's memory is no promise to kill the process."""
    with MemoryManager("1 PB", "1 PB") as manager:
        tiers = manager.stats().tiers
        assert tiers["hot"].effective_bytes < 10**15  # type: ignore[index]
        assert tiers["hot"].configured_bytes == 10**15  # type: ignore[index]


@pytest.mark.parametrize("way", ["store", "flush"])
def test_a_refused_value_is_let_go_of(make: Make, way: str) -> None:
    """The error and a frame that it came from held each other, and the value, for long."""
    manager = make("3 MB", "1 MB", "2 MB", glacier_memory_enabled=False)
    manager.store("kept", np.random.default_rng(0).random(300_000), "hot", pin=True)

    def refused() -> bool:
        try:
            if way == "store":
                manager.store("large", np.random.default_rng(1).random(120_000), max_tier="hot")
            else:
                manager.flush()
        except TierFullError:
            return True
        return False

    gc.collect()
    gc.disable()
    try:
        assert refused()
        assert [] == [one for one in gc.get_objects() if issubclass(type(one), TierFullError)]
    finally:
        gc.enable()
    manager.cleanup(flush=False)
