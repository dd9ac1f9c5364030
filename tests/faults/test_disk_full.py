"""A full file system, for real: there is always room kept to get out of it.

Removals, checkpoints and compaction need room before they give any back. Without some that nothing
else may take, a disk that is full once stays full for good.
"""

from __future__ import annotations

import os
import random
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.loop_mounts import mounted_in_ram, unmount

from memories import MemoryManager, StorageError, TierFullError
from memories.backends.disk import DiskBackend, compaction
from memories.model.record import Record
from memories.testing.backends import frame_for, record_for

DISK = 8_000_000
# The stores may be far larger than the disk, which a manager takes for a mistake.
pytestmark = pytest.mark.filterwarnings("ignore:.*this machine has:UserWarning")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    mount = mounted_in_ram(tmp_path, DISK)
    yield mount
    while stores:  # Also of a test that failed: no thread may work on what is unmounted.
        stores.pop().manager.cleanup()
    unmount(mount)


def opened(path: Path) -> MemoryManager:
    """Return a manager that may put far more on the disk than it has room for."""
    return MemoryManager("1 MB", "1 MB", "1 GB", storage_path=path, migration=False, prefetch="off")


stores: list[Store] = []  # Of the test that runs.
NOISE = random.Random(1).randbytes(600_000)


def content(key: str, size: int) -> bytes:
    at = zlib.crc32(key.encode()) % 100_000
    return NOISE[at : at + size]


class Store:
    """A manager, and what must be in it."""

    def __init__(self, path: Path, size: int) -> None:
        self.path, self.size = path, size
        self.manager = opened(path)
        self.held: set[str] = set()
        self._number = 0
        stores.append(self)

    def fill(self) -> int:
        """Store until it is refused; return how many came in."""
        before = len(self.held)
        while True:
            key = f"key {self._number}"
            self._number += 1
            try:
                self.manager.store(key, content(key, self.size), "cold")
            except (TierFullError, StorageError):
                return len(self.held) - before
            self.held.add(key)

    def fill_again(self) -> int:
        """Store until it is refused though upkeep has nothing left to do, however late it comes."""
        count = self.fill()
        self.upkeep()
        return count + self.fill()

    def upkeep(self) -> None:
        writer = self.manager._services.hierarchy.catalog.journal._writer
        assert writer is not None
        compaction.run_upkeep(writer, lambda: None, quiet=True)

    def delete(self, keys: list[str]) -> None:
        """Delete; none of it may be refused."""
        for key in keys:
            self.manager.delete(key)
            self.held.discard(key)

    def reopen(self) -> None:
        self.manager.cleanup()
        self.manager = opened(self.path)

    def holds(self) -> None:
        assert self.held == set(self.manager)
        for key in sorted(self.held)[::37]:
            assert content(key, self.size) == self.manager.retrieve(key)


def free(path: Path) -> int:
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def every_other(keys: list[str]) -> list[str]:
    return keys[::2]


def the_older_half(keys: list[str]) -> list[str]:
    return keys[: len(keys) // 2]


def a_random_half(keys: list[str]) -> list[str]:
    return random.Random(1).sample(keys, len(keys) // 2)


@pytest.mark.parametrize(
    ("size", "half"),
    [(800, every_other), (5_000, the_older_half), (5_000, a_random_half), (60_000, every_other)],
)
def test_a_disk_that_this_store_filled_is_not_full_for_good(
    disk: Path, size: int, half: Callable[[list[str]], list[str]]
) -> None:
    """After half was deleted and stores went on at once, every store and delete was refused."""
    store = Store(disk / "store", size)
    first = store.fill()
    assert first * size > 0.4 * DISK
    for _ in range(3):
        store.delete(half(sorted(store.held)))
        assert store.fill_again() > 0.2 * first
        assert free(disk) > 0, "nothing is kept for upkeep"
        store.holds()
    store.reopen()
    store.holds()
    store.delete(sorted(store.held))
    store.reopen()
    assert store.fill_again() > 0.8 * first
    store.holds()


def test_a_disk_that_others_filled_lets_values_go(disk: Path) -> None:
    """Nothing is free: what is there is read, removals are written, and it ends and opens."""
    store = Store(disk / "store", 800)
    for number in range(2000):
        store.manager.store(f"old {number}", content(f"old {number}", 800), "cold")
        store.held.add(f"old {number}")
    store.upkeep()
    assert (disk / "store" / "cold" / "RESERVE").stat().st_size > 0
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(bytes(4096))
    assert 0 == free(disk)
    store.holds()
    with pytest.raises((StorageError, TierFullError)):
        store.manager.store("new", content("new", 30_000), "cold")
    store.delete(sorted(store.held)[:1200])
    store.holds()
    store.reopen()
    store.holds()
    filler.unlink()
    store.reopen()
    store.holds()
    assert store.fill_again() > 2000
    store.holds()


@pytest.mark.parametrize("left", [100_000, 1_000_000])
def test_a_batch_on_a_full_disk_stores_its_first_values(disk: Path, left: int) -> None:
    """Another program fills the disk; what is reported as stored is there, and nothing else."""
    with DiskBackend(disk / "s") as backend:
        backend.write(record_for("before", 1), frame_for(b"value"))
    (disk / "other").write_bytes(bytes(shutil.disk_usage(disk).free - left))
    with DiskBackend(disk / "s") as backend:
        items = [
            (record_for(f"k{n}", 2 + n, size=1000), frame_for(content(f"k{n}", 1000)))
            for n in range(3000)
        ]
        stored = list[Record]()
        with pytest.raises((TierFullError, StorageError)):
            while True:
                stored += backend.write_many(items[len(stored) :])
        assert len(stored) < left // 1000
        assert {"before", *[record.key for record in stored]} == {r.key for r in backend.scan()}
        for record in stored:
            assert content(record.key, 1000) == backend.read(record)
    (disk / "other").unlink()
    with DiskBackend(disk / "s") as again:
        assert len(stored) + 1 == again.usage().keys
        gone = [(record.key, 9000 + n) for n, record in enumerate(stored)]
        assert len(gone) == again.remove_many(gone)
        assert {"before"} == {record.key for record in again.scan()}
        assert [] == again.check()


@pytest.mark.parametrize("size", [3_000, 60_000, 400_000])
def test_a_disk_that_fills_makes_room_in_the_archive(disk: Path, tmp_path: Path, size: int) -> None:
    """The archive's map and what it stages lie on the same disk, and cold left no room for them."""
    count = min(4 * DISK // size, 4_000)
    store, archive = disk / "store", tmp_path / "archive"
    options: dict[str, Any] = {"storage_path": store, "glacier_url": archive}
    keys = [f"key {number:05}" for number in range(count)]
    with MemoryManager("1 MB", "1 MB", "1 GB", True, **options) as manager:
        for key in keys:
            manager.store(key, content(key, size), "cold")
        assert manager.stats().tiers["cold"].used_bytes > 0.5 * DISK
        for key in keys[::7]:
            assert content(key, size) == manager.retrieve(key)
        for key in keys[: count // 2]:
            manager.migrate(key, "glacier")
    with MemoryManager("1 MB", "1 MB", "1 GB", True, **options) as manager:
        assert set(keys) == set(manager)
        for key in keys[::7]:
            assert content(key, size) == manager.retrieve(key)
