"""Thousands of small values in a snapshot: killed, interrupted and refused by the disk, in batches.

A batch is one append and holds many locks. Whatever ends a call in the middle of one, each key has
its old or its restored value, nothing is left behind, and the next call works.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.interrupting import Interrupter
from tests.support.values import identical
from tests.support.wholeness import assert_whole

from memories import MemoryManager, StorageError
from memories.snapshot import open_snapshot

REPOSITORY = Path(__file__).parents[2]
COUNT = 1_200  # Three batches of a restore of 512 keys each.
KEYS = [f"k{n:05}" for n in range(COUNT)]


def value_of(key: str, generation: int) -> Any:
    """Return the value of a key in one generation: bytes, a dict or an array, all small."""
    n = int(key[1:])
    kinds = (
        f"{key} {generation} ".encode() + bytes(n % 700),
        {"key": key, "generation": generation, "tags": ["a", n]},
        np.full(n % 90 + 1, generation),
    )
    return kinds[n % 3]


def generation_of(key: str, value: Any) -> int:
    """Return the generation of a value, which must be whole."""
    for generation in (1, 2):
        if identical(value, value_of(key, generation)):
            return generation
    raise AssertionError(f"{key!r} holds {value!r:.80}")


def fill(manager: MemoryManager, generation: int) -> None:
    """Store every key: two of three in cold, the others in RAM as well, or only there."""
    for start in range(3):
        part = {key: value_of(key, generation) for key in KEYS[start::3]}
        manager.store_many(part, tier=("cold", "warm", "cold")[start])


def opened(path: Path) -> MemoryManager:
    """Open a store in which nothing moves by itself."""
    return MemoryManager(
        "1 MB", "20 MB", "500 MB", storage_path=path, migration=False, prefetch="off"
    )


def generations(manager: MemoryManager) -> set[int]:
    """Return the generations of all keys, of which none is missing."""
    return {generation_of(key, manager[key]) for key in KEYS}


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.faults.test_snapshot_small_values import fill, opened
from tests.support.interrupting import Interrupter

store, file, call, share = Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4], float(sys.argv[5])
with opened(store) as manager:
    def work():
        if call == "create":
            manager.create_snapshot(file)
        else:
            manager.restore_snapshot(file)

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    interrupter = Interrupter(die)
    interrupter.run(work)
    fill(manager, 2)
    manager.flush()
    manager.store("extra", 1, tier="cold")
    interrupter.run(work, 1 + int(share * interrupter.lines))
    die()
"""


def kill(call: str, store: Path, file: Path, share: float) -> None:
    """Kill a process in the middle of a call, after it has stored the second generation."""
    child = subprocess.run(
        [sys.executable, "-c", KILLED, str(REPOSITORY), str(store), str(file), call, str(share)],
        check=False,
    )
    assert -signal.SIGKILL == child.returncode


def kill_calls(directory: Path, call: str, runs: int) -> None:
    """Kill processes in the middle of a call, at points from its start to its end."""
    store, file = directory / "store", directory / "s"
    with opened(store) as manager:
        fill(manager, 1)
        manager.create_snapshot(file)
    for run in range(runs):
        share = (run + 0.5) / runs
        kill(call, store, file, share)
        assert {store, file} == set(directory.iterdir())
        with opened(store) as manager:
            assert {*KEYS} <= {*manager} <= {*KEYS, "extra"}
            assert generations(manager) <= ({2} if call == "create" else {1, 2})
            with open_snapshot(file) as snapshot:
                snapshot.verify()
                assert snapshot.keys in (COUNT, COUNT + 1)
            fill(manager, 1)
            manager.create_snapshot(file)


@pytest.mark.parametrize("call", ["create", "restore"])
def test_a_kill_among_small_values_leaves_old_or_new(tmp_path: Path, call: str) -> None:
    """kill -9 in the middle of a batch: no key is lost, and the file is whole."""
    kill_calls(tmp_path, call, runs=2)


@pytest.mark.torture
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("call", ["create", "restore"])
def test_a_kill_among_small_values_leaves_old_or_new_every_time(tmp_path: Path, call: str) -> None:
    """The same, a hundred times."""
    kill_calls(tmp_path, call, runs=100)


def interrupt(directory: Path, call: str, error: Callable[[], BaseException], points: int) -> None:
    """Interrupt a call at lines spread over it; after each, all is whole and the call works."""
    file = directory / "s"
    with opened(directory / "store") as manager:
        fill(manager, 1)
        manager.create_snapshot(file)

        def work() -> None:
            if call == "create":
                manager.create_snapshot(file)
            else:
                manager.restore_snapshot(file, wait=True)

        fill(manager, 2)
        interrupter = Interrupter(error)
        interrupter.run(work)
        lines = interrupter.lines
        for point in range(points):
            fill(manager, 2)
            manager.store("other", point, tier="cold")
            struck = interrupter.run(work, 1 + int((point + 0.5) / points * lines))
            found = generations(manager)
            if call == "create":
                assert {2} == found
            assert struck or call == "restore" or manager["other"] == point
            assert_whole(manager)
            assert {directory / "store", file} == set(directory.iterdir())
            with open_snapshot(file) as snapshot:
                snapshot.verify()
            if call == "restore":
                manager.restore_snapshot(file, wait=True)
                assert {1} == generations(manager)
        assert_whole(manager)
    with opened(directory / "store") as manager:
        assert COUNT <= len(manager) <= COUNT + 1
        assert generations(manager) <= {1, 2}


@pytest.mark.parametrize("call", ["create", "restore"])
def test_an_interrupt_among_small_values_is_done_or_not_done(tmp_path: Path, call: str) -> None:
    """Ctrl-C in the middle of a batch releases its locks and leaves no file and no reservation."""
    interrupt(tmp_path, call, KeyboardInterrupt, points=5)


@pytest.mark.parametrize("call", ["create", "restore"])
def test_a_failing_allocation_among_small_values(tmp_path: Path, call: str) -> None:
    """The same for a MemoryError, which anything may raise."""
    interrupt(tmp_path, call, MemoryError, points=2)


@pytest.mark.torture
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("call", ["create", "restore"])
def test_an_interrupt_at_many_lines_is_done_or_not_done(tmp_path: Path, call: str) -> None:
    """The same at two hundred lines."""
    interrupt(tmp_path, call, KeyboardInterrupt, points=200)


@pytest.mark.parametrize(("name", "call"), [("write", "restore"), ("pwrite", "create")])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_refuses_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, call: str, code: int
) -> None:
    """At its first write or a later one, some bytes may have been written; then it works again."""
    file, failures = tmp_path / "s", 0
    with opened(tmp_path / "store") as manager:
        fill(manager, 1)
        manager.create_snapshot(file)
        real = getattr(os, name)
        for fail_at in range(1, 6):
            fill(manager, 2)
            count = 0

            def failing(fd: int, data: Any, *rest: Any, _at: int = fail_at) -> Any:
                nonlocal count
                count += 1
                if count == _at:
                    real(fd, memoryview(data)[: len(data) // 2], *rest)
                    raise OSError(code, os.strerror(code))
                return real(fd, data, *rest)

            with monkeypatch.context() as patch:
                patch.setattr(os, name, failing)
                try:
                    if call == "create":
                        manager.create_snapshot(file)
                    else:
                        # No thread may be moving values back to RAM while all is counted.
                        manager.restore_snapshot(file, wait=True)
                except StorageError:
                    failures += 1
            assert generations(manager) <= ({2} if call == "create" else {1, 2})
            assert {tmp_path / "store", file} == set(tmp_path.iterdir())
            assert_whole(manager)
        assert failures
        fill(manager, 1)
        manager.create_snapshot(file)
        fill(manager, 2)
        manager.restore_snapshot(file)
        assert {1} == generations(manager)
