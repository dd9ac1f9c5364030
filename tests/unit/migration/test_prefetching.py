"""Fetching ahead: what is brought up, what it may displace, and what is said of it."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator

import numpy as np
import pytest
from tests.support.waiting import until

from memories import InvalidOptionError, MemoryManager, StorageError
from memories.migration.prefetching import Prefetching
from memories.model.tiers import Cause, TierName
from memories.policies.predictors import PREDICTORS, Prefetcher
from memories.testing.clock import ManualClock

KEYS = [f"frame/{number}" for number in range(200)]
BYTES = 8_000


@pytest.fixture
def manager() -> Iterator[MemoryManager]:
    with MemoryManager("1 B", "1 MB", "100 MB", migration=False, prefetch="off") as made:
        for number, key in enumerate(KEYS):
            made.store(key, np.full(BYTES // 8, number), "cold")
        yield made


def prefetching(manager: MemoryManager, *kinds: str) -> Prefetching:
    """Return one without threads, for which every durable read is worth learning from."""
    prefetcher = Prefetcher([PREDICTORS[kind]() for kind in kinds], budget_bytes=0)
    return Prefetching(manager._hierarchy, prefetcher, workers=0, worth_seconds=0.0)


def read(manager: MemoryManager, key: str, ahead: Prefetching) -> str:
    """Read `key`, let what follows from it happen, and return the tier that answered."""
    tier = manager.get_tier(key)
    assert int(key.split("/")[1]) == manager[key][0]
    ahead.drain()
    return tier


def test_a_walk_along_numbered_keys_is_answered_from_ram(manager: MemoryManager) -> None:
    """This is what it is for: the disk is waited for a few times, then never again."""
    ahead = prefetching(manager, "stride")
    tiers = [read(manager, key, ahead) for key in KEYS[:100]]
    assert tiers[50:] == ["warm"] * 50
    counts = manager.stats().prefetch
    assert counts.used > 80
    assert counts.accuracy > 0.95


def test_a_second_pass_over_a_random_order_is_answered_from_ram(manager: MemoryManager) -> None:
    """A data loader that repeats its order repeats it from the disk otherwise."""
    ahead = prefetching(manager, "successor")
    order = list(np.random.default_rng(3).permutation(KEYS))
    for turn in range(4):
        tiers = [read(manager, str(key), ahead) for key in order]
        for key in KEYS:
            manager.migrate(key, "cold")
        ahead.drain()
        del turn
    assert tiers.count("warm") > 150


def test_random_reads_fetch_nothing(manager: MemoryManager) -> None:
    """A guess that nothing speaks for costs bandwidth and room."""
    ahead = prefetching(manager, "successor", "stride", "pattern")
    chance = np.random.default_rng(5)
    for number in range(2000):
        manager.store(f"tile/{number}", b"value", "cold")
    for _ in range(300):
        manager[f"tile/{chance.integers(2000)}"]
        ahead.drain()
    assert manager.stats().prefetch.issued < 15


def test_a_guess_displaces_nothing_that_was_read_lately(manager: MemoryManager) -> None:
    """A value that is read all the time must not be displaced by a guess."""
    clock = ManualClock()
    manager._hierarchy.clock = clock
    ahead = prefetching(manager, "stride")
    busy = [f"busy/{number}" for number in range(100)]
    for number, key in enumerate(busy):
        manager.store(key, np.full(BYTES // 8, number), "warm")
    for key in KEYS[:60]:
        manager[key]
        for other in busy:
            manager._hierarchy.tiers[TierName.WARM].hit_clock.record(clock.monotonic())
            manager[other]
        ahead.drain()
    kept = sum(manager.get_tier(key) == "warm" for key in busy)
    assert kept == len([key for key in busy if key in manager]) == 100


def test_values_fetched_and_never_read_are_counted_as_wasted(manager: MemoryManager) -> None:
    """A count of used values alone would make every prefetcher look good."""
    ahead = prefetching(manager, "stride")
    for key in KEYS[:20]:
        read(manager, key, ahead)
    fetched = [key for key in KEYS[20:] if manager.get_tier(key) == "warm"]
    assert fetched
    for key in fetched:
        manager.migrate(key, "cold")
    ahead.drain()
    assert len(fetched) == manager.stats().prefetch.wasted


def test_a_read_that_overtakes_its_fetch_is_counted_as_late(manager: MemoryManager) -> None:
    """The guess was right but helped no reader: that is neither used nor wasted."""
    ahead = prefetching(manager, "stride")
    for key in KEYS[:20]:
        read(manager, key, ahead)
    issued = manager.stats().prefetch.issued
    for key in KEYS[20:23]:
        manager[key]
    ahead._process_notes()
    manager[KEYS[23]]
    ahead._process_notes()
    assert manager.stats().prefetch.late >= 1
    ahead.drain()
    assert manager.stats().prefetch.issued <= issued + 3


def test_prefetch_brings_up_the_named_keys(manager: MemoryManager) -> None:
    """A caller who knows what comes next need not wait for the predictors to find out."""
    assert 10 == manager.prefetch([*KEYS[:10], "absent"])
    until(lambda: manager.stats().prefetch.issued == 10)
    assert {"warm"} == {manager.get_tier(key) for key in KEYS[:10]}
    assert 0 == manager.prefetch(KEYS[:10]), "they are there already"
    moves = manager.stats().moves
    assert 10 == moves[TierName.COLD, TierName.WARM, Cause.PREFETCH]


def test_prefetch_takes_no_more_than_half_of_warm(manager: MemoryManager) -> None:
    """A list of everything must not push out everything."""
    service = Prefetching(manager._hierarchy, None, workers=0)
    taken = service.request(KEYS)
    assert 50 < taken < 65
    service.drain()
    assert manager.stats().tiers[TierName.WARM].used_bytes < 510_000


def test_a_value_fetched_ahead_is_not_kept_alive_by_its_note(manager: MemoryManager) -> None:
    """An entry that waits for its first reader must go at once when it is replaced."""
    service = Prefetching(manager._hierarchy, None, workers=0)
    service.request(KEYS[:1])
    service.drain()
    gc.collect()
    gc.disable()
    try:
        died = weakref.ref(manager._hierarchy.catalog.entries[KEYS[0]].payload)
        manager.delete(KEYS[0])
        assert died() is None
    finally:
        gc.enable()


def test_an_expiring_value_fetched_ahead_is_noted_too(manager: MemoryManager) -> None:
    """Its entry is of another kind."""
    manager.store("timed", np.zeros(10), "cold", ttl=1000)
    service = Prefetching(manager._hierarchy, None, workers=0)
    service.request(["timed"])
    service.drain()
    manager["timed"]
    service.drain()
    assert 1 == manager.stats().prefetch.used


def test_the_threads_end_with_the_manager() -> None:
    """What a manager started must not outlive it."""
    before = threading.enumerate()  # Managers of other tests may end theirs later.

    def started() -> list[str]:
        names = [one.name for one in threading.enumerate() if one not in before]
        return [name for name in names if name.startswith("memories-prefetch")]

    with MemoryManager("1 B", "1 MB", "100 MB") as manager:
        manager.store("key", b"value", "cold")
        manager.prefetch(["key"])
        assert started()
    assert not started()


def test_a_reader_of_another_process_cannot_prefetch(tmp_path: object) -> None:
    """It may change nothing, and a move is a change."""
    path = f"{tmp_path}/store"
    with MemoryManager("1 B", "1 MB", "10 MB", storage_path=path) as writer:
        writer.store("key", b"value", "cold")
        with (
            MemoryManager("1 B", "1 MB", "10 MB", storage_path=path, read_only=True) as reader,
            pytest.raises(StorageError),
        ):
            reader.prefetch(["key"])


def test_an_unknown_predictor_is_refused() -> None:
    """A typing mistake would otherwise switch prefetching off in silence."""
    with pytest.raises(InvalidOptionError, match="successor"):
        MemoryManager(prefetch="sucessor")
