"""A lazy restore across file systems: the file is read where it lies until it has been copied.

Until then what it restored is volatile, and what it replaced in durable tiers is still on the disk.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.forking import in_child
from tests.support.waiting import until

from memories import MemoryManager, StorageError
from memories.backends.disk import import_file
from memories.model.tiers import TierName

SHARED_MEMORY = Path("/dev/shm")
LARGE = np.random.default_rng(0).integers(0, 256, 3_000_000, np.uint8)
KEYS = 700
OLD = {"shared": "old", "other": "old other", "archived": "old archived"}
NEW = {"shared": "new", "array": LARGE, **{f"n{n}": n for n in range(KEYS)}}


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory on another file system, with a snapshot of NEW."""
    here = tmp_path_factory.getbasetemp()
    if not SHARED_MEMORY.is_dir() or SHARED_MEMORY.stat().st_dev == here.stat().st_dev:
        pytest.skip("there is no second file system here")
    with tempfile.TemporaryDirectory(dir=SHARED_MEMORY) as name:
        with MemoryManager(0.1, 0.1, 1, migration=False) as manager:
            for key, value in NEW.items():
                manager.store(key, value, tier="warm" if key == "array" else "cold")
            manager.create_snapshot(Path(name, "new"))
        yield Path(name)


@pytest.fixture
def snapshot(far: Path) -> Path:
    """A snapshot of NEW on another file system, to be deleted."""
    return Path(shutil.copy(far / "new", far / "s"))


class Gate:
    """Holds every copy up, or fails it, until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._real = import_file._copy
        self.open, self.reached = threading.Event(), threading.Event()
        self.error: OSError | None = None
        monkeypatch.setattr(import_file, "_copy", self._copy)

    def _copy(self, given: int, taken: int, files: Any, step: Callable[[int], object]) -> None:
        os.write(taken, b"the beginning")
        self.reached.set()
        while not self.open.wait(0.01):
            step(0)
        if self.error is not None:
            raise self.error
        os.truncate(taken, 0)
        self._real(given, taken, files, step)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(monkeypatch)


def make(path: Path, **options: Any) -> MemoryManager:
    options = {"glacier_memory_enabled": True, "migration": False, "prefetch": "off", **options}
    return MemoryManager(0.1, 0.1, 1, storage_path=path, **options)


def fill(manager: MemoryManager) -> None:
    """Store OLD durably, one value of it in the archive."""
    for key, value in OLD.items():
        manager.store(key, value, tier="glacier" if key == "archived" else "cold")
    manager.flush()


def contents(manager: MemoryManager) -> dict[str, Any]:
    """Return everything, the long array as its sum, and check that the count agrees."""
    assert len(manager) == len(list(manager))
    assert set(manager) == {key for key in [*OLD, *NEW, "extra"] if key in manager}
    return {key: plain(manager[key]) for key in manager}


def plain(value: Any) -> Any:
    return int(value.sum()) if isinstance(value, np.ndarray) else value


RESTORED = {key: plain(value) for key, value in NEW.items()}


def packs(store: Path) -> list[Path]:
    return sorted((store / "cold" / "values").glob("*.pack"))


def test_it_is_readable_before_a_byte_is_copied(tmp_path: Path, snapshot: Path, gate: Gate) -> None:
    """Instant, and the caller may delete the file right afterwards; then it becomes durable."""
    with make(tmp_path / "store") as manager:
        fill(manager)
        manager.restore_snapshot(snapshot, verify="lazy")
        snapshot.unlink()
        assert gate.reached.wait(60)
        assert RESTORED == contents(manager)
        for key in ("shared", "array"):
            explained = manager.explain(key)
            assert not explained.durable
            assert "volatile until the snapshot" in str(explained)
        gate.open.set()
        manager.flush()
        assert manager.explain("shared").durable
        assert "volatile" not in str(manager.explain("array"))
        assert RESTORED == contents(manager)
    with make(tmp_path / "store") as manager:
        assert RESTORED == contents(manager)


def test_values_come_home_once_the_copy_is_there(tmp_path: Path, snapshot: Path) -> None:
    """In the background, without a call; afterwards nothing is pending."""
    with make(tmp_path / "store") as manager:
        manager.restore_snapshot(snapshot, verify="lazy")
        until(lambda: manager.get_tier("array") == "warm")
        assert manager.explain("array").durable
        assert RESTORED == contents(manager)
        assert manager._hierarchy.catalog.journal._writer.appender.overlay is None


KILLED = """
import sys, time
sys.path.insert(0, sys.argv[1])
from tests.faults.test_pending_imports import *
gate = Gate(pytest.MonkeyPatch())
manager = make(Path(sys.argv[2]))
fill(manager)
manager.restore_snapshot(Path(sys.argv[3]), verify="lazy")
gate.reached.wait()
manager.store("extra", 1, tier="cold")
manager.store("n1", "overwritten", tier="cold")
del manager["n2"]
assert contents(manager)["shared"] == "new"
print("ready", flush=True)
time.sleep(60)
"""


def killed_after_ready(script: str, *arguments: Path) -> None:
    """Run a script and kill it once it says that it is ready."""
    root = Path(__file__).parent.parent.parent
    command = [sys.executable, "-c", script, str(root), *map(str, arguments)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert "ready\n" == child.stdout.readline()
    child.kill()
    child.wait()
    child.stdout.close()


def test_killed_during_the_copy_it_leaves_the_store_as_it_was(
    tmp_path: Path, snapshot: Path
) -> None:
    """Restored keys are absent or have their old durable value; what was stored since is there."""
    store = tmp_path / "store"
    killed_after_ready(KILLED, store, snapshot)
    assert 1 == len(packs(store))
    with make(store) as manager:
        assert [] == packs(store)
        assert {**OLD, "extra": 1, "n1": "overwritten"} == contents(manager)
        manager.restore_snapshot(snapshot, verify="lazy")
        manager.flush()
    with make(store) as manager:
        assert RESTORED == contents(manager)


def test_a_copy_that_fails_is_said_and_tried_again(
    tmp_path: Path, snapshot: Path, gate: Gate
) -> None:
    """A full disk costs nothing: all stays readable, each `flush` says why, and one succeeds."""
    seen: list[Any] = []
    with make(tmp_path / "store") as manager:
        fill(manager)
        manager._hierarchy.events.subscribe(seen.append)
        gate.error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        gate.open.set()
        manager.restore_snapshot(snapshot, verify="lazy")
        snapshot.unlink()
        until(lambda: any("copy into the store" == getattr(e, "action", "") for e in seen))
        assert RESTORED == contents(manager)
        with pytest.raises(StorageError, match=r"restored snapshot.*disk is full"):
            manager.flush()
        with pytest.raises(StorageError, match="disk is full"):
            manager.cleanup()
        assert any("disk is full" in problem.what for problem in manager.check())
        assert RESTORED == contents(manager)
        assert [] == packs(tmp_path / "store")
        gate.error = None
        manager.flush()
    with make(tmp_path / "store") as manager:
        assert RESTORED == contents(manager)


def test_cleanup_waits_for_the_copy(tmp_path: Path, snapshot: Path, gate: Gate) -> None:
    """Leaving `with` of a store that stays makes durable what was restored."""
    with make(tmp_path / "store") as manager:
        manager.restore_snapshot(snapshot, verify="lazy")
        assert gate.reached.wait(60)
        threading.Timer(0.2, gate.open.set).start()
    with make(tmp_path / "store") as manager:
        assert RESTORED == contents(manager)


def test_a_store_that_is_given_up_does_not_copy_to_the_end(
    tmp_path: Path, snapshot: Path, gate: Gate
) -> None:
    """An interpreter that ends without `cleanup` writes no gigabytes; the old values are there."""
    manager = make(tmp_path / "store")
    fill(manager)
    manager.restore_snapshot(snapshot, verify="lazy")
    assert gate.reached.wait(60)
    manager.cleanup(flush=False)
    assert [] == packs(tmp_path / "store")
    with make(tmp_path / "store") as again:
        assert OLD == contents(again)


def test_what_happens_during_the_copy_outlives_it(
    tmp_path: Path, snapshot: Path, gate: Gate
) -> None:
    """Stores, deletions, moves, terms and a snapshot, all on keys that are only pending."""
    expected = {**RESTORED, "n1": "again", "extra": 2, "n7": 7}
    del expected["n2"]
    with make(tmp_path / "store") as manager:
        fill(manager)
        manager.restore_snapshot(snapshot, verify="lazy")
        assert gate.reached.wait(60)
        manager.store("n1", "again", tier="warm")
        manager.store("extra", 2, tier="cold")
        del manager["n2"]
        manager.migrate("n3", "glacier")
        manager.migrate("n4", "hot")
        manager.pin("n5")
        manager.create_snapshot(tmp_path / "during")
        assert expected == contents(manager)
        gate.open.set()
        manager.flush()
        assert expected == contents(manager)
        manager.check()
    for restored in (False, True):
        with make(tmp_path / "store") as manager:
            if restored:
                manager.restore_snapshot(tmp_path / "during")
            assert expected == contents(manager)
            assert ("glacier", True) == (manager.get_tier("n3"), manager.explain("n5").pinned)


@pytest.mark.parametrize("mode", ["merge", "keep"])
def test_other_modes_leave_others_alone(
    tmp_path: Path, snapshot: Path, gate: Gate, mode: Any
) -> None:
    """Before and after the copy: what is there stays, and wins if the mode says so."""
    expected = {**OLD, **RESTORED} if mode == "merge" else {**RESTORED, **OLD}
    with make(tmp_path / "store") as manager:
        fill(manager)
        manager.restore_snapshot(snapshot, verify="lazy", mode=mode)
        assert expected == contents(manager)
        gate.open.set()
        manager.flush()
        assert expected == contents(manager)
    with make(tmp_path / "store") as manager:
        assert expected == contents(manager)


def test_several_restores_at_once(tmp_path: Path, snapshot: Path, far: Path, gate: Gate) -> None:
    """The second replaces the first, whose copy is given up; neither waits for the other."""
    with make(tmp_path / "one") as manager:
        manager.store("second", 2)
        manager.create_snapshot(far / "second")
    with make(tmp_path / "store") as manager:
        fill(manager)
        manager.restore_snapshot(snapshot, verify="lazy")
        assert gate.reached.wait(60)
        manager.restore_snapshot(far / "second", verify="lazy", mode="merge")
        assert 2 == manager["second"]
        assert len(RESTORED) + 1 == len(manager)
        manager.restore_snapshot(far / "second", verify="lazy")
        assert {"second": 2} == dict(manager)
        gate.open.set()
        manager.flush()
        assert {"second": 2} == dict(manager)
        until(lambda: len(packs(tmp_path / "store")) <= 1)
    with make(tmp_path / "store") as manager:
        assert {"second": 2} == dict(manager)


@pytest.mark.parametrize("how", ["clear", "restore"])
def test_what_clears_the_store_for_good_clears_what_is_hidden_too(
    tmp_path: Path, snapshot: Path, how: str
) -> None:
    """The durable values under a pending snapshot must not come back after a crash."""
    with make(tmp_path / "empty") as manager:
        manager.create_snapshot(tmp_path / "nothing")
    action = "manager.clear()" if how == "clear" else "manager.restore_snapshot(sys.argv[4])"
    script = KILLED.partition("manager.store")[0] + f"{action}\nprint('ready', flush=True)\n"
    killed_after_ready(
        script + "time.sleep(60)", tmp_path / "store", snapshot, tmp_path / "nothing"
    )
    with make(tmp_path / "store") as manager:
        assert {} == contents(manager)


def test_a_forked_child_reads_pending_files(tmp_path: Path, snapshot: Path, gate: Gate) -> None:
    """It inherits the open file, and takes none of the parent's locks."""
    with make(tmp_path / "store") as manager:
        fill(manager)
        manager.restore_snapshot(snapshot, verify="lazy")
        snapshot.unlink()
        assert gate.reached.wait(60)
        answer = in_child(lambda: (contents(manager) == RESTORED, manager.explain("n1").durable))
        gate.open.set()
        assert "(True, False)" == answer


def test_another_process_sees_the_store_as_it_was(
    tmp_path: Path, snapshot: Path, gate: Gate
) -> None:
    """A reader sees what is durable: the old values, and after the copy the restored ones."""
    with make(tmp_path / "store") as manager:
        fill(manager)
        manager.restore_snapshot(snapshot, verify="lazy")
        with make(tmp_path / "store", read_only=True) as reader:
            assert OLD == contents(reader)
            gate.open.set()
            manager.flush()
            until(lambda: set(reader) == set(RESTORED))
            assert RESTORED == contents(reader)


def test_capacity_counts_what_is_still_to_come(tmp_path: Path, snapshot: Path, gate: Gate) -> None:
    """The room of the copy is taken from the beginning, so that nothing else is stored there."""
    size = snapshot.stat().st_size
    with make(tmp_path / "store") as manager:
        held = manager._hierarchy.tiers[TierName.COLD].budget
        before = held.used
        manager.restore_snapshot(snapshot, verify="lazy")
        assert size <= held.used - before <= 2 * size
        gate.open.set()
        manager.flush()
        assert size / 2 <= held.used - before <= 2 * size


def test_a_mass_of_readers_and_writers_during_the_copy(tmp_path: Path, snapshot: Path) -> None:
    """While records pass from pending files into the log, no key is ever absent or old."""
    wrong: list[Any] = []
    with make(tmp_path / "store") as manager:
        fill(manager)
        stop = threading.Event()

        def read() -> None:
            while not stop.is_set():
                for n in range(0, KEYS, 7):
                    try:
                        value = manager[f"n{n}"]
                    except KeyError as error:
                        value = error
                    if value not in (n, "written"):
                        wrong.append((n, value))

        threads = [threading.Thread(target=read) for _ in range(3)]
        manager.restore_snapshot(snapshot, verify="lazy")
        for thread in threads:
            thread.start()
        for n in range(0, KEYS, 50):
            manager.store(f"n{n}", "written", tier="cold" if n % 100 else "warm")
        manager.flush()
        stop.set()
        for thread in threads:
            thread.join()
        assert [] == wrong
        assert len(NEW) == len(manager) == len(list(manager))
