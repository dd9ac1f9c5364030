"""Promise 4: nothing is dropped silently."""

from __future__ import annotations

import numpy as np
import pytest
from tests.promises.conftest import Make

from memories import MemoryManager, TierFullError

NOISE = np.random.default_rng(0)


def noise(megabytes: float) -> np.ndarray:
    """Return what no compressor makes smaller."""
    return NOISE.integers(0, 256, int(megabytes * 10**6), dtype="u1")


def test_a_value_larger_than_a_tier_goes_to_the_first_that_holds_it(make: Make) -> None:
    """The caller asked for a tier, but storing the value matters more."""
    manager = make("1 MB", "3 MB")
    manager.store("a", noise(2), "hot")
    assert "warm" == manager.get_tier("a")
    manager.store("b", noise(5), "hot")
    assert "cold" == manager.get_tier("b")


def test_a_value_that_no_tier_can_hold_is_refused_by_name(make: Make) -> None:
    """The error says which tiers there are and how large, and nothing has changed."""
    manager = make("1 MB", "1 MB", "5 MB", glacier_memory_enabled=False)
    manager.store("old", "value", "hot")
    with pytest.raises(TierFullError, match=r"'huge'.*9\.0 MB.*hot 1\.0 MB.*cold"):
        manager.store("huge", noise(9))
    with pytest.raises(MemoryError):
        manager.store("old", noise(9))
    assert "value" == manager.retrieve("old")


def test_a_full_last_tier_is_an_error_and_loses_nothing(make: Make) -> None:
    """Every value acknowledged before is still there afterwards."""
    manager = make("1 MB", "1 MB", "8 MB", glacier_memory_enabled=False)
    stored: dict[str, np.ndarray] = {}
    with pytest.raises(TierFullError, match="nothing more may leave"):
        for index in range(100):
            value = noise(0.4)
            manager.store(str(index), value)
            stored[str(index)] = value
    assert len(stored) > 10
    for key, value in stored.items():
        assert np.array_equal(value, manager.retrieve(key))
    with pytest.raises(TierFullError):
        manager.cleanup()
    assert len(stored) == len(manager)
    manager.clear()


def test_a_cache_may_drop_when_it_says_so(make: Make) -> None:
    """on_full='evict' turns the refusal into a removal with a cause."""
    manager = make("1 MB", "1 MB", "8 MB", glacier_memory_enabled=False, on_full="evict")
    for index in range(60):
        manager.store(str(index), noise(0.4))
    assert 0 < len(manager) < 60
    assert sum(manager.stats().removed.values()) == 60 - len(manager)


def test_a_pinned_value_stays(make: Make) -> None:
    """Pressure moves others, never what the caller pinned."""
    manager = make("1 MB", "1 MB")
    manager.store("pinned", noise(0.5), "hot", pin=True)
    for index in range(20):
        manager.store(str(index), noise(0.4), "hot")
    assert "hot" == manager.get_tier("pinned")
    manager.unpin("pinned")
    for index in range(20):
        manager.store(str(index), noise(0.4), "hot")
    assert "hot" != manager.get_tier("pinned")


def test_terms_bind(manager: MemoryManager) -> None:
    """min_tier and max_tier hold for stores, moves and pressure."""
    with pytest.raises(ValueError, match="contradicts"):
        manager.store("a", 1, "cold", max_tier="warm")
    manager.store("a", 1, max_tier="warm")
    with pytest.raises(ValueError, match="max_tier warm"):
        manager.migrate("a", "cold")
    manager.store("b", 1, min_tier="cold")
    assert "cold" == manager.get_tier("b")
