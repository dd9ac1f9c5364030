"""A file system that turns read-only under a running manager, for real, on a loop mount.

This happens in two ways: an administrator remounts the directory read-only, so that every later
open is refused, and undoes that; and ext4 gives up after an error of its own, so that writes to
open files are refused too, until it is mounted anew.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.loop_mounts import mounted, unmount

from memories import MemoryManager
from memories.backends.disk import DiskBackend
from memories.errors import StorageError

pytestmark = [pytest.mark.torture, pytest.mark.timeout(600)]

SMALL, LARGE, COUNT = 300, 3_000_000, 40


@pytest.fixture(params=["ext4", "xfs"])
def mount(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    mount = mounted(tmp_path, request.param).mount
    yield mount
    unmount(mount)


def system(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def content(number: int) -> np.ndarray[Any, Any]:
    """Return the value of a key; every fifth has a file of its own."""
    return np.full(LARGE if number % 5 == 0 else SMALL, number % 256, np.uint8)


def holds(manager: MemoryManager, numbers: range) -> None:
    for number in numbers:
        assert np.array_equal(content(number), manager.retrieve(f"k{number}"))


def refused(actions: list[Callable[[], object]]) -> int:
    """Return how many of `actions` raise, each of them the one error that says why."""
    count = 0
    for action in actions:
        try:
            action()
        except StorageError as error:
            assert "Read-only file system" in str(error)
            count += 1
    return count


def journal(manager: MemoryManager) -> DiskBackend:
    backend = manager._hierarchy.catalog.journal
    assert isinstance(backend, DiskBackend)
    return backend


def test_a_directory_that_is_read_only_for_a_while(mount: Path) -> None:
    """RAM and cold are read meanwhile; then 100 of 100 operations work, without reopening."""
    with MemoryManager("50 MB", "50 MB", storage_path=mount / "s", migration=False) as manager:
        for number in range(COUNT):
            manager.store(f"k{number}", content(number), "cold")
        manager.store("warm", content(7), "warm")
        writer = journal(manager)._writer
        assert writer is not None
        with writer.lock:
            writer.log.cut()  # The next record needs a file that is not open yet.
        # Files that are open for writing keep a mount writable, so one that is not lies over it.
        system("mount", "--bind", str(mount), str(mount))
        system("mount", "-o", "remount,ro,bind", str(mount))
        stores = [lambda n=n: manager.store(f"k{n}", content(n + 1), "cold") for n in range(COUNT)]
        removals = [lambda n=n: manager.delete(f"k{n}") for n in range(COUNT)]
        assert 2 * COUNT == refused(stores + removals)
        assert 1 == refused([lambda: manager.demote("warm")])
        assert np.array_equal(content(7), manager.retrieve("warm"))
        manager.store("later", content(8), "warm")
        holds(manager, range(COUNT))
        system("umount", str(mount))
        worked = 0
        for number in range(50):
            manager.store(f"k{number}", content(number), "cold")
            assert np.array_equal(content(number), manager.retrieve(f"k{number}"))
            worked += 2
        assert 100 == worked
        manager.demote("warm")
        manager.flush()
        assert [] == manager.check()
    with MemoryManager("50 MB", "50 MB", storage_path=mount / "s") as again:
        holds(again, range(50))
        assert np.array_equal(content(8), again.retrieve("later"))


def test_a_file_system_that_gives_up(tmp_path: Path) -> None:
    """Every store is refused and RAM goes on; mounted anew, nothing that was synced is missing."""
    mount = mounted(tmp_path, "ext4").mount
    try:
        child = subprocess.run(
            [sys.executable, "-m", "tests.torture.test_disk_readonly", str(mount)],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert "as it must be" == child.stdout.strip(), child.stderr
        system("umount", str(mount))
        system("mount", "-o", "loop", str(tmp_path / "disk"), str(mount))
        with MemoryManager("50 MB", "50 MB", storage_path=mount / "s") as again:
            holds(again, range(COUNT))
            assert [] == again.check()
            again.store("k0", content(1), "cold")
    finally:
        unmount(mount)


def given_up(mount: Path) -> None:
    """Live through it, in a process of its own: what is open on the mount goes with it."""
    manager = MemoryManager("50 MB", "50 MB", storage_path=mount / "s", migration=False)
    for number in range(COUNT):
        manager.store(f"k{number}", content(number), "cold")
    manager.store("warm", content(7), "warm")
    journal(manager).sync()
    system("mount", "-o", "remount,abort", str(mount))
    stores = [lambda n=n: manager.store(f"k{n}", content(n + 1), "cold") for n in range(COUNT)]
    assert COUNT == refused(stores)
    assert np.array_equal(content(7), manager.retrieve("warm"))
    holds(manager, range(COUNT))
    assert 1 == refused([manager.cleanup])
    print("as it must be")


if __name__ == "__main__":
    given_up(Path(sys.argv[1]))
