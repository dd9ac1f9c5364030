"""A restore that is killed or fails leaves each key with its old value or its restored one."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from memories import MemoryManager, StorageError
from memories.engine.payload import Payload

REPOSITORY = Path(__file__).parents[2]
SHARED_MEMORY = Path("/dev/shm")
KEYS = [f"k{n:03}" for n in range(300)]


def value_of(key: str, generation: int) -> bytes:
    """Return the value of a key in one generation; every third is large."""
    size = 1_200_000 if int(key[1:]) % 100 == 0 else int(key[1:]) * 7
    return f"{key} {generation} ".encode() + bytes(size)


def fill(manager: MemoryManager, generation: int) -> None:
    """Store every key, in a durable tier."""
    for key in KEYS:
        manager.store(key, value_of(key, generation), tier="cold")


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from tests.faults.test_snapshot_restore_faults import MemoryManager, fill
from tests.support.interrupting import Interrupter

with MemoryManager(storage_path=sys.argv[2], migration=False, prefetch="off") as manager:
    def restore():
        manager.restore_snapshot(sys.argv[3], verify="lazy")
        manager.flush()

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    interrupter = Interrupter(die)
    interrupter.run(restore)
    fill(manager, 2)
    manager.store("extra", 1, tier="cold")
    # The second time it may have more lines than the first, in which there was less to replace.
    share = float(sys.argv[4])
    interrupter.run(restore, 10**9 if share == 1 else 1 + int(share * interrupter.lines))
    die()
"""


@pytest.fixture(params=["same", "other"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Where the snapshot lies: where it can be linked, and where it must be imported and copied."""
    if request.param == "same":
        yield tmp_path
        return
    if not SHARED_MEMORY.is_dir() or SHARED_MEMORY.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system here")
    with tempfile.TemporaryDirectory(dir=SHARED_MEMORY) as name:
        yield Path(name)


def kill_restores(directory: Path, place: Path, runs: int) -> None:
    """Kill a process that restores over what it has overwritten, sooner or later in that."""
    store, file = directory / "store", place / "s"
    with MemoryManager(storage_path=store, migration=False, prefetch="off") as manager:
        fill(manager, 1)
        manager.create_snapshot(file)
    for run in range(runs):
        share = run / (runs - 1)
        child = subprocess.run(
            [sys.executable, "-c", KILLED, str(REPOSITORY), str(store), str(file), str(share)],
            check=False,
        )
        assert -signal.SIGKILL == child.returncode
        with MemoryManager(storage_path=store, migration=False, prefetch="off") as manager:
            generations = {key: int(manager[key].split()[1]) for key in KEYS}
            for key in KEYS:
                assert value_of(key, generations[key]) == manager[key]
            assert {*KEYS} <= {*manager} <= {*KEYS, "extra"}
            if share in (0, 1):
                assert {2 - share} == set(generations.values())
                assert ("extra" in manager) is (share == 0)
            manager.restore_snapshot(file)
            assert {key: value_of(key, 1) for key in KEYS} == dict(manager)


def test_a_killed_restore_loses_no_key(tmp_path: Path, place: Path) -> None:
    """kill -9 from its first line to its end; the store opens, and restoring again completes it."""
    kill_restores(tmp_path, place, runs=4)


@pytest.mark.torture
@pytest.mark.timeout(3000)
def test_a_killed_restore_loses_no_key_every_time(tmp_path: Path, place: Path) -> None:
    """The same, two hundred times."""
    kill_restores(tmp_path, place, runs=200)


@pytest.mark.parametrize("call", ["link", "write", "fdatasync"])
def test_a_failing_disk_fails_the_restore_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Whatever call fails, at its first time or a later one, and afterwards it works again."""
    with MemoryManager(storage_path=tmp_path / "store", migration=False, prefetch="off") as manager:
        fill(manager, 1)
        manager.create_snapshot(tmp_path / "s")
        fill(manager, 2)
        manager.flush()
        real, failures = getattr(os, call), 0
        for fail_at in (1, 2, 50, 200):
            count = 0

            def failing(*args: Any, _at: int = fail_at, **kwargs: Any) -> Any:
                nonlocal count
                count += 1
                if count == _at:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return real(*args, **kwargs)

            with monkeypatch.context() as patch:
                patch.setattr(os, call, failing)
                try:
                    manager.restore_snapshot(tmp_path / "s")
                except StorageError:
                    failures += 1
            for key in KEYS:
                assert manager[key] in (value_of(key, 1), value_of(key, 2))
        assert failures or call == "fdatasync"  # Which comes in the background.
        manager.restore_snapshot(tmp_path / "s")
        assert {key: value_of(key, 1) for key in KEYS} == dict(manager)


# Most of a cold tier of 4 MB, and not to be compressed.
FULL = {f"k{n}": random.Random(n).randbytes(1_200_000) for n in range(3)}


def full(path: Path, *, glacier: bool) -> MemoryManager:
    """Return a manager whose cold tier has no room for a snapshot of `FULL` beside its values."""
    manager = MemoryManager(
        "1MB", "1MB", "4MB", glacier, storage_path=path, migration=False, prefetch="off"
    )
    for key, value in FULL.items():
        manager.store(key, value, tier="cold")
    return manager


@pytest.mark.parametrize("stored", range(3))
def test_a_restore_into_a_full_cold_tier_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: int
) -> None:
    """It is interrupted after some values, which are stored one by one there."""
    with full(tmp_path / "store", glacier=True) as manager:
        manager.create_snapshot(tmp_path / "s")
        manager.store("extra", 1, tier="cold")
        made, count = Payload.of_frame, 0

        def failing(*arguments: Any, **options: Any) -> Payload:
            nonlocal count
            if count == stored:
                raise StorageError("the disk is gone")
            count += 1
            return made(*arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(Payload, "of_frame", failing)
            with pytest.raises(StorageError, match="gone"):
                manager.restore_snapshot(tmp_path / "s")
        assert FULL == dict(manager)
        manager.restore_snapshot(tmp_path / "s")
        assert FULL == dict(manager)


def test_a_restore_where_no_tier_has_room_for_both_makes_room(tmp_path: Path) -> None:
    """What it replaces goes first there, as the page of the snapshots says."""
    with full(tmp_path / "store", glacier=False) as manager:
        manager.create_snapshot(tmp_path / "s")
        for key, value in FULL.items():
            manager.delete(key)
            manager.store(key, value[::-1], tier="cold")
        manager.restore_snapshot(tmp_path / "s")
        assert FULL == dict(manager)
