"""Promise 4: nothing is dropped silently."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.promises.conftest import Make

from memories import MemoryManager, Rule, TierFullError
from memories.backends.disk import DiskBackend

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


@pytest.mark.filterwarnings("ignore::UserWarning")  # Of sizes that look odd.
@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_a_cache_takes_whatever_fits(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """With on_full='evict' and nothing pinned there is always something that may leave.

    What is in RAM may be all that is on the disk; and what was written through is on the disk as
    long as it is there.
    """
    write_through = data.draw(st.booleans())
    hot, warm = data.draw(st.sampled_from([8, 64, 512])), data.draw(st.sampled_from([8, 256, 1024]))
    cold = data.draw(st.sampled_from([128, 256]))
    largest = data.draw(st.sampled_from([200, 6000, 90 * cold, 300 * cold]))
    quota = data.draw(st.booleans())
    rules = [Rule(prefix="1", quota={"hot": "4 KB", "warm": "8 KB"})] if quota else []
    chance = random.Random(data.draw(st.integers(0, 99)))
    path = tmp_path_factory.mktemp("cache")
    with MemoryManager(
        f"{hot} KB", f"{warm} KB", f"{cold} KB", storage_path=path, rules=rules, on_full="evict",
        write_through=write_through,
    ) as manager:  # fmt: skip
        for number in range(80):
            key = f"{chance.randrange(60)}"
            value = chance.randbytes(int(largest * chance.random() ** 2))
            manager.store(key, value, chance.choice(["auto", "hot", "warm", "cold"]))
            assert value == manager.retrieve(key)
            if number % 3 == 0:
                manager.get(f"{chance.randrange(60)}")
        assert [] == manager.check()
        if write_through:
            entries = list(manager._hierarchy.catalog.entries.values())
            assert all(entry.backed for entry in entries)
            assert all(manager._hierarchy.catalog.record(entry.key) for entry in entries)


def test_a_cache_keeps_what_it_reads(make: Make) -> None:
    """Keys that are in RAM leave after those that are only on the disk, and from both at once."""
    manager = make(
        "1 B", "1 MB", "256 KB", glacier_memory_enabled=False, on_full="evict", write_through=True
    )
    for number in range(4):
        manager.store(f"read {number}", noise(0.02), "warm")
    for number in range(30):
        manager.store(f"{number}", noise(0.02), "cold")
    assert all(f"read {number}" in manager for number in range(4))
    assert 8 < len(manager) < 13
    for number in range(4, 30):  # More than the disk holds, all of it in RAM, too.
        manager.store(f"read {number}", noise(0.02), "warm")
    assert "read 0" not in manager
    assert "read 29" in manager
    assert not any(f"{number}" in manager for number in range(30))


def test_a_cache_replaces_what_fits_once(make: Make) -> None:
    """The old version is what may leave for the new one; without on_full='evict' it stays."""
    cache = make("1 B", "1 B", "512 KB", glacier_memory_enabled=False, on_full="evict")
    cache.store("a", noise(0.3), "cold")
    value = noise(0.3)
    cache.store("a", value, "cold")
    assert np.array_equal(value, cache.retrieve("a"))
    cache.cleanup()
    kept = make("1 B", "1 B", "512 KB", glacier_memory_enabled=False)
    with pytest.raises(TierFullError):
        kept.store("a", noise(0.3), "cold")
    assert np.array_equal(value, kept.retrieve("a"))


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


def test_a_disk_without_room_is_reported_as_a_full_tier(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The backend knows files and the manager keys: a user gets one error with both."""
    manager = make("1 MB", "1 MB", "10 MB", glacier_memory_enabled=False)

    def refuse(*_: object) -> None:
        raise TierFullError("could not store it: end snapshots that run")

    monkeypatch.setattr(DiskBackend, "write", refuse)
    said = r"no room for 'k' in cold: it needs 90\d\.\d KB, cold holds .* of .*end snapshots"
    with pytest.raises(TierFullError, match=said) as failure:
        manager.store("k", noise(0.9), "cold")
    assert "could not store it" in str(failure.value.__cause__)
    assert "k" not in manager
