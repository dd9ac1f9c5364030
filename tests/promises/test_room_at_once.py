"""What is removed in one call gives its room back in that call: on the disk, and in the figures."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from memories import MemoryManager

LITTLE = 100_000


def on_disk(path: Path) -> int:
    """Return the bytes that the files of a directory take."""
    return sum(file.stat().st_blocks * 512 for file in path.rglob("*") if file.is_file())


def fill(manager: MemoryManager, prefix: str) -> None:
    """Store 11 MB of all sizes in cold, some of it overwritten, and some of it read and in RAM."""
    chance = np.random.default_rng(3)
    for number in range(600):
        manager.store(f"{prefix}/small/{number}", chance.bytes(800), "cold")
    for number in range(10):
        manager.store(f"{prefix}/large/{number % 8}", chance.bytes(1_200_000), "cold")
        manager.promote(f"{prefix}/large/{number % 8}")
    manager.flush()


def clear(manager: MemoryManager, snapshot: Path) -> None:
    """Remove everything."""
    del snapshot
    manager.clear()


def delete(manager: MemoryManager, snapshot: Path) -> None:
    """Remove everything, by prefixes that share no key."""
    del snapshot
    assert 111 + 8 == manager.delete_prefix("a/small/1") + manager.delete_prefix("a/la")
    assert 489 == manager.delete_prefix("")


def restore(manager: MemoryManager, snapshot: Path) -> None:
    """Put a snapshot of nothing in the place of everything."""
    manager.restore_snapshot(snapshot)


def restore_pending(manager: MemoryManager, snapshot: Path) -> None:
    """Do the same with a file that is pending until it is copied."""
    manager.restore_snapshot(snapshot, verify="lazy")
    manager.flush()


@pytest.mark.parametrize(
    ("remove", "capacity"),
    [(clear, "100 MB"), (clear, "500 GB"), (delete, "100 MB"), (delete, "500 GB"),
     (restore, "500 GB"), (restore_pending, "500 GB")],
)  # fmt: skip
def test_an_emptied_store_takes_hardly_more_than_a_new_one(
    tmp_path: Path, remove: Callable[[MemoryManager, Path], None], capacity: str
) -> None:
    """Neither dead values nor the tombstones of those, nor an index over them."""
    snapshot, store = tmp_path / "snapshot", tmp_path / "store"
    with MemoryManager("50 MB", "50 MB", capacity, storage_path=store) as manager:
        manager.create_snapshot(snapshot)
        fill(manager, "a")
        assert on_disk(store) > 10_000_000
        remove(manager, snapshot)
        assert on_disk(store) < LITTLE
        assert manager.get_memory_usage()["cold"] < 0.2
        assert [] == list(manager)
        shutil.copytree(store, tmp_path / "killed")  # As a kill would leave it, at this moment.
        manager["a/small/1"] = "new"
        assert [] == manager.check()
    for path, left in ((tmp_path / "killed", []), (store, ["a/small/1"])):
        with MemoryManager(1, 1, 1, storage_path=path) as manager:
            assert left == list(manager)


def test_what_stays_is_not_touched_and_what_goes_is_gone(tmp_path: Path) -> None:
    """The room of a prefix comes back, though others lie beside it, and these stay whole."""
    with MemoryManager(
        "50 MB", "50 MB", 1, storage_path=tmp_path, migration=False, prefetch="off"
    ) as manager:
        fill(manager, "a")
        before, kept = on_disk(tmp_path), dict(manager)
        fill(manager, "b")
        assert 608 == manager.delete_prefix("b/")
        assert on_disk(tmp_path) < before + 10 * LITTLE  # Of 11 MB, some tombstones among others.
        assert kept.keys() == set(manager)
        assert all(manager[key] == value for key, value in kept.items())
    with MemoryManager(1, 1, 1, storage_path=tmp_path) as manager:
        assert kept.keys() == set(manager)
        assert [] == manager.check()


def test_a_view_keeps_what_it_shows_and_nothing_else(tmp_path: Path) -> None:
    """A reader that holds a cleared value holds its bytes; the figures count them until it ends."""
    with MemoryManager("50 MB", "50 MB", "100 MB", storage_path=tmp_path) as manager:
        fill(manager, "a")
        values = np.random.default_rng(4).random(500_000)
        manager.store("shown", values, "cold")
        shown = manager["shown"]
        manager.clear()
        assert on_disk(tmp_path) < LITTLE
        assert 2 < manager.get_memory_usage()["cold"] < 5
        assert np.array_equal(values, shown)
        del shown
        assert manager.get_memory_usage()["cold"] < 0.2
