"""Promise 1: what you stored is what you get, from every tier, bit for bit and type for type."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.promises.conftest import Make
from tests.support.values import everything, identical

from memories import MemoryManager

TIERS = ["hot", "warm", "cold", "glacier"]
VALUES = everything()


@pytest.mark.parametrize("name", VALUES)
def test_a_value_survives_every_tier_and_every_step_between(
    manager: MemoryManager, name: str
) -> None:
    """A cache that changes a dtype or an order on the way is worse than none."""
    value = VALUES[name]
    for tier in TIERS:
        manager.store(name, value, tier)
        assert tier == manager.get_tier(name)
        assert identical(value, manager.retrieve(name))
        assert identical(value, manager.retrieve(name, copy=True))
    for tier in ["cold", "warm", "hot", "warm", "cold", "glacier", "hot"]:
        manager.migrate(name, tier)
        assert tier == manager.get_tier(name)
        assert identical(value, manager.retrieve(name))


def test_values_survive_a_reopen(make: Make) -> None:
    """A clean end keeps hot and warm too."""
    manager = make()
    for index, (name, value) in enumerate(VALUES.items()):
        manager.store(name, value, TIERS[index % 4])
    manager.cleanup()
    reopened = make()
    assert sorted(VALUES, key=str.encode) == list(reopened)
    for name, value in VALUES.items():
        assert identical(value, reopened.retrieve(name)), name


def test_values_survive_a_snapshot(make: Make, tmp_path: Path) -> None:
    """A snapshot holds every tier, and each value returns to its own."""
    manager = make()
    for index, (name, value) in enumerate(VALUES.items()):
        manager.store(name, value, TIERS[index % 4])
    manager.create_snapshot(tmp_path / "all.bin")
    manager.clear()
    assert [] == list(manager)
    manager.restore_snapshot(tmp_path / "all.bin")
    (tmp_path / "all.bin").unlink()
    for index, (name, value) in enumerate(VALUES.items()):
        assert identical(value, manager.retrieve(name)), name
        if index % 4 < 2:
            assert TIERS[index % 4] == manager.get_tier(name)


def test_pressure_moves_values_through_all_tiers(make: Make) -> None:
    """Nothing is lost or changed when everything must keep moving."""
    manager = make("60 kB", "60 kB", "500 MB")
    values: dict[str, Any] = {
        f"{name}/{i}": value
        for i in range(20)
        for name, value in VALUES.items()
        if name not in ("long_bytes", "array/large")
    }
    for name, value in values.items():
        manager.store(name, value)
    tiers = {manager.get_tier(name) for name in values}
    assert {"hot", "warm", "cold"} <= tiers
    for name, value in values.items():
        assert identical(value, manager.retrieve(name)), name


def test_a_region_of_an_array_is_that_part_of_it(manager: MemoryManager) -> None:
    """Reading a window must not need the whole, nor differ from it."""
    import numpy as np

    array = np.arange(2_000_000.0).reshape(1000, 2000)
    for tier in TIERS:
        manager.store("a", array, tier)
        window = manager.retrieve("a", region=np.s_[10:20, ::7])
        assert identical(np.ascontiguousarray(array[10:20, ::7]), np.ascontiguousarray(window))
