"""Promise 12: `cleanup()` ends everything there and then, whatever kind of manager it is."""

from __future__ import annotations

import urllib.request
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.holdings import nothing_left

from memories import MemoryManager, StorageError, StoreLockedError

LARGE = 300_000  # Numbers whose frame has a file of its own, and is mapped when it is read.
_numbers = count()


@contextmanager
def opened(path: Path | None, **options: Any) -> Iterator[MemoryManager]:
    """Give a manager with all four tiers, and values in each of them, small and large."""
    options = {"glacier_memory_enabled": True, "storage_path": path, **options}
    manager = MemoryManager("20 MB", "20 MB", "200 MB", **options)
    try:
        for tier in ("hot", "warm", "cold", "glacier"):
            for number in range(20):
                manager.store(f"{tier} {number}", [number], tier)
            manager.store(f"{tier} large", np.arange(LARGE), tier)
        yield manager
    finally:
        manager.cleanup()


def read_all(manager: MemoryManager) -> None:
    """Read everything there is, so that every file is opened that reading opens."""
    for key in list(manager):
        assert manager[key] is not None


def tiers(home: Path) -> None:
    """Use a manager with a name, in every way that leaves files open."""
    with opened(home / "store") as manager:
        read_all(manager)
        manager.flush()
        manager.migrate("cold large", "hot")
        manager.migrate("hot large", "glacier")
        manager.delete_prefix("warm")
        manager.retrieve("glacier large", region=np.s_[:10])
        assert [] == manager.check()
        manager.prefetch([f"cold {number}" for number in range(20)])


def reopened(home: Path) -> None:
    """Open a store that has a checkpoint, and one that a repair has gone over."""
    with opened(home / "store"):
        pass
    with opened(home / "store") as manager:
        read_all(manager)
        manager.check(repair=True)


def private(home: Path) -> None:
    """Use a manager without a name, whose directory goes with it."""
    del home
    with opened(None) as manager:
        read_all(manager)


def readers(home: Path) -> None:
    """Read beside a writer, from several readers."""
    with opened(home / "store") as manager:
        manager.flush()
        for _ in range(3):
            with MemoryManager(
                "9 MB", "9 MB", "9 MB", True, storage_path=home / "store", read_only=True
            ) as reader:
                read_all(reader)
                manager.store("later", 1, "cold")


def snapshots(home: Path) -> None:
    """Create and restore, whole and lazily, lent from another directory, and incrementally."""
    with opened(home / "store") as manager:
        manager.create_snapshot(home / "full")
        manager.store("more", np.arange(LARGE), "cold")
        manager.create_snapshot(home / "increment", base=home / "full")
        manager.restore_snapshot(home / "increment", wait=True)
        read_all(manager)
        manager.restore_snapshot(home / "full", mode="merge", verify="lazy")
        read_all(manager)
    with opened(home / "other") as manager:
        manager.restore_snapshot(home / "increment", mode="keep")
        read_all(manager)


def lent_files(home: Path) -> None:
    """End while the files of a snapshot are lent, and nothing of them was read or copied yet."""
    with opened(home / "store") as manager:
        manager.create_snapshot(home / "full")
        manager.clear()
        manager.restore_snapshot(home / "full", verify="lazy")
        assert manager["cold large"].sum() == np.arange(LARGE).sum()
    with opened(home / "other") as manager:
        manager.restore_snapshot(home / "full", verify="lazy")


def watched(home: Path) -> None:
    """Sample, record a trace, plot nothing, and serve a page that somebody has open."""
    with opened(home / "store") as manager:
        manager.enable_analytics(interval=0.01)
        manager.record_trace(home / "trace.jsonl")
        served = manager.dashboard()
        with urllib.request.urlopen(served.url, timeout=10) as page:
            assert page.read()
        read_all(manager)
        manager.report(home / "report.html")


def refused(home: Path) -> None:
    """Fail to open a store or an archive that somebody else writes, and a store that is none."""
    with opened(home / "store", glacier_url=home / "archive"):
        with pytest.raises(StoreLockedError):
            MemoryManager(1, 1, 1, storage_path=home / "store")
        with pytest.raises(StoreLockedError):
            MemoryManager(1, 1, 1, True, storage_path=home / "other", glacier_url=home / "archive")
    with pytest.raises(StorageError):
        MemoryManager(1, 1, 1, storage_path=home / "none", read_only=True)


KINDS = [tiers, reopened, private, readers, snapshots, lent_files, watched, refused]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_nothing_is_left_to_the_collector(kind: Callable[[Path], None], tmp_path: Path) -> None:
    """No descriptor, mapping, thread or lock is there after `cleanup()`, collector or not."""
    kind(_made(tmp_path))  # What the packages keep for the process is theirs from here on.
    with nothing_left():
        kind(_made(tmp_path))


def test_the_memory_of_values_is_given_back(tmp_path: Path) -> None:
    """What was handed over, and nobody else holds, goes with the manager and not with the next."""
    array = np.arange(LARGE)
    held = weakref.ref(array)
    with nothing_left(), opened(tmp_path) as manager:
        manager.store("mine", array, "hot", copy=False)
        del array
        assert held() is not None
        manager.cleanup()
        assert held() is None


def _made(base: Path) -> Path:
    home = base / str(next(_numbers))
    home.mkdir()
    return home
