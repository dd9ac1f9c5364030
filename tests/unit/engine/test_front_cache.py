"""The front: what it answers is never old, and every read is counted."""

from __future__ import annotations

import gc
import random
import sys
import threading
import weakref
from collections.abc import Iterator

import numpy as np
import pytest

from memories import ClosedError, KeyNotFoundError, MemoryManager
from memories.engine.front_cache import EXACT_HITS, REQUESTS
from memories.model.tiers import Cause, TierName


@pytest.fixture
def manager() -> Iterator[MemoryManager]:
    with MemoryManager("10 MB", "10 MB", "10 MB", migration=False, prefetch="off") as made:
        yield made


def bring(manager: MemoryManager, key: str) -> None:
    """Read `key` until it is at the front."""
    for _ in range(EXACT_HITS + REQUESTS):
        manager[key]
    assert key in manager._at_front


def test_a_busy_key_is_answered_by_the_front(manager: MemoryManager) -> None:
    """Otherwise every hit would cost three times as much."""
    manager["key"] = b"value"
    bring(manager, "key")
    assert b"value" == manager["key"] == manager.retrieve("key")


@pytest.mark.parametrize("change", ["store", "delete", "migrate", "clear", "pop"])
def test_no_change_leaves_an_old_value_at_the_front(manager: MemoryManager, change: str) -> None:
    """A value that was replaced or deleted must be gone for every reader at once."""
    for key in ("key", "other"):
        manager[key] = b"old"
        bring(manager, key)
    match change:
        case "store":
            manager.store("key", b"new")
            assert b"new" == manager["key"]
        case "migrate":
            manager.migrate("key", "cold")
            assert "key" not in manager._at_front
        case "delete":
            del manager["key"]
        case "pop":
            manager.pop("key")
        case "clear":
            manager.clear()
    if change in ("delete", "pop", "clear"):
        assert manager.retrieve("key", None) is None
        with pytest.raises(KeyNotFoundError):
            manager["key"]


def test_a_reader_that_was_overtaken_brings_nothing_forward(manager: MemoryManager) -> None:
    """It found the entry, a writer replaced it, and only then did it go on: the value is old."""
    manager["key"] = b"old"
    for _ in range(EXACT_HITS + REQUESTS - 1):
        manager["key"]
    assert "key" not in manager._at_front
    manager["key"] = b"new"
    manager._hierarchy.catalog.request_front("key")
    assert "key" not in manager._at_front
    assert b"new" == manager["key"]


def test_a_read_does_not_wait_for_a_change(manager: MemoryManager) -> None:
    """A thread that loses the interpreter in the middle of a change would stall all readers."""
    for key in ("front", "entry"):
        manager[key] = b"value"
    bring(manager, "front")
    read, changed = threading.Event(), threading.Event()

    def change() -> None:
        with manager._hierarchy.catalog.lock:
            read.set()
            changed.wait(60)

    writer = threading.Thread(target=change)
    writer.start()
    read.wait(60)
    for key in ("front", *["entry"] * (EXACT_HITS + REQUESTS - 1)):
        assert b"value" == manager.retrieve(key)
    assert writer.is_alive()
    changed.set()
    writer.join()


@pytest.mark.parametrize("value", [None, b"", 0, "text"])
def test_a_value_that_looks_like_nothing_is_found(manager: MemoryManager, value: object) -> None:
    """A look into a dict says None where the key is absent, too."""
    manager["key"] = value
    for _ in range(EXACT_HITS + 2 * REQUESTS):
        assert value == manager["key"] == manager.retrieve("key", b"default")
    assert 2 * (EXACT_HITS + 2 * REQUESTS) == manager.stats().memory_hits


def test_a_closed_manager_has_nothing_at_the_front() -> None:
    """`cleanup` ends every read, the quickest ones too."""
    manager = MemoryManager("1 MB", "1 MB", "1 MB")
    manager["key"] = b"value"
    bring(manager, "key")
    manager.cleanup()
    with pytest.raises(ClosedError):
        manager["key"]


def test_arrays_at_the_front_are_views_of_their_own(manager: MemoryManager) -> None:
    """A reader that changes the shape of its value must not change it for others."""
    manager["key"] = np.arange(6)
    bring(manager, "key")
    one, two = manager["key"], manager.retrieve("key")
    assert one is not two
    assert not one.flags.writeable
    assert not two.flags.writeable


def test_a_moved_payload_is_not_kept_alive(manager: MemoryManager) -> None:
    """The memory of what left a tier is charged until it is free, so it must become free."""
    manager["key"] = np.arange(1000)
    bring(manager, "key")
    died = weakref.ref(manager._hierarchy.catalog.entries["key"].payload)
    manager.migrate("key", "cold")
    gc.collect()
    assert died() is None


def test_hits_are_counted_one_by_one_when_one_key_is_read(manager: MemoryManager) -> None:
    """`stats` and `explain` tell the truth about a program that reads one key in a loop."""
    manager.store("key", b"value", "warm")
    for _ in range(1000):
        manager["key"]
    assert 1000 == manager.stats().tiers[TierName.WARM].hits
    assert 1000 == manager.explain("key").hits


def test_the_hits_of_each_key_are_exact(manager: MemoryManager) -> None:
    """A key that is read twenty times as often as another one is shown so, at once."""
    reads = {f"key{number}": 40 * 3**number for number in range(6)}
    for key in reads:
        manager.store(key, np.arange(3) if key == "key0" else key, "warm")
    order = [key for key, count in reads.items() for _ in range(count)]
    random.Random(1).shuffle(order)
    for key in order:
        manager[key]
    assert set(reads) == set(manager._at_front)
    assert reads == {key: manager.explain(key).hits for key in reads}
    assert reads == {one["key"]: one["hits"] for one in manager.telemetry()["hot_keys"]}
    assert sum(reads.values()) == manager.stats().tiers[TierName.WARM].hits


def test_a_key_that_was_not_read_since_is_not_marked(manager: MemoryManager) -> None:
    """Being at the front is no read: otherwise a key of yesterday would stay for today's."""
    manager.update(busy=b"value", quiet=b"value")
    manager.stats()  # Settles the stores, which empty the front.
    for key in ("busy", "quiet"):
        bring(manager, key)
    manager.stats()  # Credits what was read so far.
    assert {"busy", "quiet"} == set(manager._at_front)
    quiet = manager._hierarchy.catalog.entries["quiet"]
    stamp, hits = quiet.stamp, quiet.hits
    manager["busy"]
    manager.stats()
    assert (stamp, hits) == (quiet.stamp, quiet.hits)
    assert manager._hierarchy.catalog.entries["busy"].stamp > stamp


def test_a_reader_that_was_overtaken_is_still_counted(manager: MemoryManager) -> None:
    """Between finding the source and reading from it a thread may lose the interpreter."""
    manager["key"] = b"value"
    manager.stats()  # Settles the store, which empties the front.
    bring(manager, "key")
    before = manager.stats().memory_hits
    source = manager._at_front["key"]
    for _ in range(3):
        manager._hierarchy.catalog.flush_front()
    source.hits += 1.0
    assert before + 1 == manager.stats().memory_hits
    del source
    manager.stats()
    assert [] == manager._hierarchy.catalog.front._late


def test_the_sum_of_hits_is_exact_with_many_threads(manager: MemoryManager) -> None:
    """The hit rate is a sum over all readers; a lost count would be a wrong rate."""
    keys = [f"key{index}" for index in range(20)]
    for index, key in enumerate(keys):
        manager.store(key, b"value", "hot" if index % 2 else "warm")
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def read() -> None:
        for turn in range(2000):
            manager[keys[turn % 20]]
            if turn % 100 == 0:
                manager.stats()

    try:
        threads = [threading.Thread(target=read) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert 16_000 == manager.stats().memory_hits


def test_what_is_read_at_the_front_is_not_the_victim() -> None:
    """The policy sees marks, not reads: they must be fresh when room is made."""
    with MemoryManager(
        "1 B", "100 kB", "10 MB", eviction_policy="lru", migration=False, prefetch="off"
    ) as manager:
        for index in range(12):
            manager.store(f"key{index}", np.zeros(1000), "warm")
            manager.retrieve_many([key for key in ("key0", "key1") if key in manager] * 4)
        for index in range(12, 60):
            manager.store(f"key{index}", np.zeros(1000), "warm")
            for _ in range(4):
                manager["key0"]
        assert "warm" == manager.get_tier("key0")
        assert "cold" == manager.get_tier("key1")


def test_a_removal_of_another_cause_empties_the_front_too(manager: MemoryManager) -> None:
    """Victims are dropped by the mover, not by the caller."""
    manager["key"] = b"value"
    bring(manager, "key")
    manager._hierarchy.remove("key", Cause.CAPACITY)
    assert "key" not in manager._at_front
