"""The short way of a read from cold: the same answers and the same counts as the general way."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.disk_stores import without_maintenance
from tests.support.values import identical

from memories import ClosedError, CorruptDataError, KeyNotFoundError, MemoryManager
from memories.core import wiring
from memories.engine.cold_reader import NOT_READ
from memories.testing.faults import FailingFiles

VALUES: dict[str, Any] = {
    "noise": os.urandom(1024),
    "bytes": b"compressible " * 80,
    "text": "text \u20ac " * 100,
    "tiny": b"x",
    "empty": b"",
    "array": np.arange(100.0),
    "dict": {"a": [1, 2.5, None], "b": np.arange(3)},
    "number": 7,
    "large": os.urandom(300_000),
}


def opened(path: Path, **options: Any) -> MemoryManager:
    return MemoryManager(
        "1 MB", "1 MB", "20 MB", storage_path=path, migration=False, prefetch="off", **options
    )


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[MemoryManager]:
    with opened(tmp_path) as manager:
        for _ in range(3):  # What is stored again is compressed by what was learnt.
            for key, value in VALUES.items():
                manager.store(key, value, "cold")
        yield manager


def short(manager: MemoryManager, key: str) -> Any:
    return manager._hierarchy.cold_reader.read(key)


def test_it_reads_what_the_general_way_reads(manager: MemoryManager) -> None:
    """Of every kind; a large value it leaves alone."""
    for key, value in VALUES.items():
        found = short(manager, key)
        assert (found is NOT_READ) == (key == "large")
        for one in (found, manager._hierarchy.read(key), manager.retrieve(key)):
            assert one is NOT_READ or identical(value, one)
    assert all(
        identical(VALUES[key], value) for key, value in manager.retrieve_many(VALUES).items()
    )


def test_it_reads_what_the_index_holds_on_the_disk(tmp_path: Path) -> None:
    """After a reopening no record is in RAM; and beside the writer another process reads."""
    with opened(tmp_path) as manager:
        manager.store_many(VALUES, "cold")
    with opened(tmp_path) as manager, opened(tmp_path, read_only=True) as reader:
        for one in (manager, reader):
            assert all(identical(value, one.retrieve(key)) for key, value in VALUES.items())
            found = one.retrieve_many(VALUES)
            assert list(VALUES) == list(found)
            assert all(identical(value, found[key]) for key, value in VALUES.items())
        assert VALUES["noise"] == short(manager, "noise")
        assert short(reader, "noise") is NOT_READ


def test_each_read_counts(manager: MemoryManager) -> None:
    """A read by the short way is a hit of cold with a duration, like any other."""
    before = manager.stats()
    for key in VALUES:
        manager.retrieve(key)
    manager.retrieve_many(VALUES)
    after = manager.stats()
    assert 2 * len(VALUES) == after.tiers["cold"].hits - before.tiers["cold"].hits
    timed = after.latencies["retrieve", "cold"].since(before.latencies.get(("retrieve", "cold")))
    assert 2 * len(VALUES) == timed.samples
    assert timed.seconds > 0


def test_what_is_elsewhere_or_expires_is_left_alone(manager: MemoryManager) -> None:
    """Only the general way looks at clocks, and into RAM."""
    manager.store("warm", b"x" * 1000, "warm")
    manager.store("mortal", b"x" * 1000, "cold", ttl=100)
    manager.delete("noise")
    for key in ("warm", "mortal", "noise", "absent"):
        assert short(manager, key) is NOT_READ
    assert b"x" * 1000 == manager.retrieve("warm") == manager.retrieve("mortal")
    assert manager.retrieve("absent", None) is None
    with pytest.raises(KeyNotFoundError):
        manager.retrieve("noise")


@pytest.mark.parametrize("key", ["noise", "bytes", "text", "array"])
def test_damage_is_reported_with_the_key(tmp_path: Path, key: str) -> None:
    """A flipped bit anywhere in the log is never a wrong value."""
    with opened(tmp_path) as manager:
        manager.store_many(VALUES, "cold")
        manager.flush()
        record = manager._hierarchy.catalog.journal.lookup(key)
        assert record is not None
        frame = bytes(manager._hierarchy.catalog.journal.read(record))
        (segment,) = [one for one in tmp_path.rglob("*") if one.is_file() and frame in _bytes(one)]
        at = _bytes(segment).index(frame)
        for inside in range(0, len(frame), 37):
            with segment.open("r+b") as file:
                file.seek(at + inside)
                file.write(bytes([frame[inside] ^ 1]))
            assert short(manager, key) is NOT_READ
            with pytest.raises(CorruptDataError, match=key):
                manager.retrieve(key)
            with pytest.raises(CorruptDataError, match=key):
                manager.retrieve_many(VALUES)
            with segment.open("r+b") as file:
                file.seek(at + inside)
                file.write(frame[inside : inside + 1])
        assert identical(VALUES[key], manager.retrieve(key))


def _bytes(path: Path) -> bytes:
    return path.read_bytes()


def test_a_closed_manager_reads_nothing(tmp_path: Path) -> None:
    """It raises, and never says that the key is absent."""
    manager = opened(tmp_path)
    manager.store("k", b"x" * 1000, "cold")
    manager.cleanup()
    assert short(manager, "k") is NOT_READ
    for call in (lambda: manager.retrieve("k"), lambda: manager.retrieve_many(["k"])):
        with pytest.raises(ClosedError):
            call()


@pytest.mark.parametrize("many", [False, True])
def test_where_a_read_fails_the_general_way_tries_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, many: bool
) -> None:
    """Of many values each is read alone then, which finds the one that is to blame."""
    files = FailingFiles(kinds=frozenset(("read",)))
    monkeypatch.setattr(wiring, "DiskBackend", partial(wiring.DiskBackend, files=files))
    small = {f"k{number}": os.urandom(200) for number in range(20)}
    with opened(tmp_path) as manager:
        without_maintenance(manager._hierarchy.catalog.journal)  # Upkeep reads, too.
        manager.store_many(small, "cold")
        files.arm(1)
        found = manager.retrieve_many(small) if many else {"k7": manager.retrieve("k7")}
        assert ["read"] == files.failed
        assert all(small[key] == value for key, value in found.items())
        assert list(found) == (list(small) if many else ["k7"])
