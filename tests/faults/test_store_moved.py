"""A directory that was moved, unmounted, replaced or emptied is missing, and not lost.

Every read fails with an error that says so, nothing is given up meanwhile, and all of it is there
again when the directory is back.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from tests.support.forking import in_child

from memories import (
    InvalidOptionError,
    KeyNotFoundError,
    MemoryManager,
    StorageError,
    StoreLockedError,
)
from memories.backends.disk import DiskBackend, compaction, follower
from memories.backends.disk.files import Files
from memories.testing.backends import frame_for, record_for
from memories.testing.faults import flip

SIZES = ("20 MB", "20 MB", "300 MB")
COUNT = 6
AWAY = r"is not there|cannot be reached"


def opened(path: Path, **options: object) -> MemoryManager:
    return MemoryManager(*SIZES, storage_path=path, migration=False, prefetch="off", **options)  # type: ignore[arg-type]


def content(number: int) -> np.ndarray[object, np.dtype[np.int64]]:
    """Return the value of a key; every other one has a file of its own."""
    size = 300_000 if number % 2 else 300
    return np.random.default_rng(number).integers(-(2**63), 2**63 - 1, size)


def filled(path: Path) -> MemoryManager:
    manager = opened(path)
    for number in range(COUNT):
        manager.store(f"k{number}", content(number), tier="cold")
    manager.flush()
    return manager


def holds_all(manager: MemoryManager) -> None:
    for number in range(COUNT):
        assert np.array_equal(content(number), manager.retrieve(f"k{number}"))


@pytest.mark.parametrize("part", [".", "cold", "cold/values", "cold/log"])
def test_nothing_is_given_up_while_a_directory_is_away(tmp_path: Path, part: str) -> None:
    """Repair dropped every key of a store whose volume was unmounted for a moment."""
    path = tmp_path / "store"
    manager = filled(path)
    away = path / part
    away.rename(tmp_path / "away")
    with pytest.raises(StorageError, match=AWAY):
        manager.check()
    with pytest.raises(StorageError, match=AWAY):
        manager.check(repair=True)
    (tmp_path / "away").rename(away)
    assert [] == manager.check(repair=True)
    holds_all(manager)
    manager.store("new", 1, "cold")
    manager.cleanup()
    with opened(path) as again:
        holds_all(again)
        assert 1 == again.retrieve("new")


def test_a_read_says_that_it_could_not_find_out(tmp_path: Path) -> None:
    """ "Damaged; delete it" was what it said of a value that was only away."""
    with filled(tmp_path / "store") as manager:
        (tmp_path / "store" / "cold").rename(tmp_path / "away")
        with pytest.raises(StorageError, match=AWAY):
            manager.retrieve("k1")
        with pytest.raises(StorageError, match=AWAY):
            manager.store("large", content(99), "cold")
        with pytest.raises(StorageError, match=AWAY):
            manager.flush()
        (tmp_path / "away").rename(tmp_path / "store" / "cold")
        holds_all(manager)


def test_writers_fail_once_it_was_noticed(tmp_path: Path) -> None:
    """Nothing more is acknowledged while it is unknown where it would be written."""
    with DiskBackend(tmp_path / "s") as backend:
        backend.write(record_for("a", 1), frame_for(b"a"))
        (tmp_path / "s").rename(tmp_path / "away")
        with pytest.raises(StorageError, match=AWAY):
            backend.sync()
        with pytest.raises(StorageError, match=AWAY):
            backend.write(record_for("b", 2), frame_for(b"b"))
        with pytest.raises(StorageError, match=AWAY):
            backend.remove("a", 3)
        (tmp_path / "away").rename(tmp_path / "s")
        backend.write(record_for("b", 4), frame_for(b"b"))
    with DiskBackend(tmp_path / "s") as again:
        assert ["a", "b"] == [record.key for record in again.scan()]


@pytest.mark.parametrize("tier", ["value", "segment"])
def test_one_file_that_is_missing_is_no_damage(tmp_path: Path, tier: str) -> None:
    """It may be brought back from a copy, so its keys stay, and say what is missing."""
    path = tmp_path / "store"
    filled(path).cleanup()
    number = 1 if tier == "value" else 0
    pattern = "values/*.val" if tier == "value" else "log/*.seg"
    missing = sorted((path / "cold").glob(pattern))[0]
    missing.rename(tmp_path / "kept")
    with opened(path) as manager:
        with pytest.raises(StorageError, match="is not there"):
            manager.retrieve(f"k{number}")
        problems = manager.check(repair=True)
        assert f"k{number}" in {problem.key for problem in problems}
        assert not any(problem.repaired for problem in problems)
        assert COUNT == len(manager)
        manager.store("new", 1, "cold")
    (tmp_path / "kept").rename(missing)
    with opened(path) as manager:
        holds_all(manager)
        assert [] == manager.check()
        assert 1 == manager.retrieve("new")


def test_a_file_that_comes_back_is_not_taken_for_dead(tmp_path: Path) -> None:
    """Its bytes were counted out while it was away: upkeep would unlink it as if empty."""
    path = tmp_path / "store"
    filled(path).cleanup()
    missing = sorted((path / "cold" / "log").iterdir())[0]
    missing.rename(tmp_path / "kept")
    with opened(path) as manager:
        manager.store("new", 1, "cold")
    (tmp_path / "kept").rename(missing)
    with opened(path) as manager:
        writer = manager._services.hierarchy.catalog.journal._writer
        assert writer is not None
        assert writer.accounting.segments[int(missing.stem)].live > 0
        manager.store("dead", content(8), "cold")
        manager.delete("dead")
        compaction.run_upkeep(writer, lambda: None, quiet=True)
        holds_all(manager)
        writer.rebuild()
        holds_all(manager)


@pytest.mark.parametrize("gone", ["removed", "moved"])
@pytest.mark.parametrize("durability", ["relaxed", "full"])
def test_a_removed_segment_is_written_anew(
    tmp_path: Path, gone: str, durability: Literal["relaxed", "full"]
) -> None:
    """What was acknowledged went into a file without a name, and was lost at the next opening."""
    held: dict[str, bytes] = {}

    def put(backend: DiskBackend, key: str) -> None:
        held[key] = key.encode() * 50
        backend.write(record_for(key, len(held)), frame_for(held[key]))

    with DiskBackend(tmp_path / "s", durability=durability) as backend:
        for number in range(20):
            put(backend, f"synced {number}")
        backend.sync()
        put(backend, "not synced")
        backend.remove("synced 3", 100)
        del held["synced 3"]
        for segment in sorted((tmp_path / "s" / "log").iterdir()):
            if gone == "removed":
                segment.unlink()
            else:
                segment.rename(tmp_path / segment.name)
        for number in range(20):
            with contextlib.suppress(StorageError):  # With "full" it may be said at once.
                put(backend, f"later {number}")
        backend.sync()
        shutil.copytree(tmp_path / "s", tmp_path / "killed")
        for key, body in held.items():
            found = backend.lookup(key)
            assert found is not None
            assert body == backend.read(found)
        assert [] == backend.check()
    for path in (tmp_path / "s", tmp_path / "killed"):
        with DiskBackend(path) as again:
            assert sorted(held) == [record.key for record in again.scan()]
            for record in again.scan():
                assert held[record.key] == again.read(record)


def test_a_value_that_was_removed_before_it_was_synced_is_said(tmp_path: Path) -> None:
    """`flush` may not say that all is durable; and it says so once, not for ever."""
    with DiskBackend(tmp_path / "s") as backend:
        assert backend._maintenance is not None
        backend._maintenance.stop()
        backend.write(record_for("victim", 1), frame_for(bytes(2 << 20)))
        backend.write(record_for("other", 2), frame_for(b"other"))
        for file in (tmp_path / "s" / "values").iterdir():
            file.unlink()
        with pytest.raises(StorageError, match="victim"):
            backend.sync()
        backend.sync()
        (problem,) = backend.check(repair=True)
        assert ("victim", False) == (problem.key, problem.repaired)
        backend.write(record_for("victim", 3), frame_for(bytes(2 << 20)))
        backend.sync()
        assert [] == backend.check()


@pytest.mark.parametrize("kind", ["pack", "segment"])
def test_a_file_that_upkeep_cannot_read_blocks_nothing(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Each store waited for upkeep, which chose the missing file again and again, and failed."""
    with DiskBackend(tmp_path / "s", capacity_bytes=8_000_000) as backend:
        for number in range(100):
            backend.write(record_for(f"old {number}", number + 1), frame_for(os.urandom(9_000)))
        frames = tmp_path / "frames"
        frames.write_bytes(os.urandom(2_000_000))
        items = [(record_for(f"p{at}", 101 + at), at * 100_000, 100_000) for at in range(20)]
        backend.adopt(frames, [items])
        assert backend._writer is not None
        backend._writer.checkpoint(seal=True)
        removed = [f"p{at}" for at in range(19)] + [f"old {2 * n}" for n in range(50)]
        for version, key in enumerate(removed, 200):
            backend.remove(key, version)
        pattern = "values/*.pack" if kind == "pack" else "log/*.seg"
        backend._writer.reader.handles.remove(1)
        sorted((tmp_path / "s").glob(pattern))[0].rename(tmp_path / "away")
        chance = random.Random(1)  # In turn, whole segments would die, which are chosen first.
        for version in range(1_000, 1_600):
            key, body = f"new {chance.randrange(100)}", os.urandom(30_000)
            backend.write(record_for(key, version), frame_for(body))
        assert body == backend.read(backend.lookup(key))
        lost = {problem.key for problem in backend.check(repair=True)}
        assert {"p19"} == lost if kind == "pack" else "old 1" in lost
        if kind == "segment":
            with pytest.raises(StorageError, match="is not there"):
                backend.amend(backend.lookup(min(key for key in lost if key)))
    if kind == "pack":
        assert any("'p19' keeps a pack" in line for line in caplog.messages)


@pytest.mark.parametrize("part", [".", "cold", "cold/log"])
def test_a_reader_does_not_take_it_for_empty(tmp_path: Path, part: str) -> None:
    """KeyError means absent, and never that the store could not be read."""
    path = tmp_path / "store"
    with filled(path), opened(path, read_only=True) as reader:
        holds_all(reader)
        (path / part).rename(tmp_path / "away")
        time.sleep(2 * follower.REFRESH_SECONDS)
        for key in ("k0", "k1", "absent"):
            with pytest.raises(StorageError):
                reader.retrieve(key)
        with pytest.raises(StorageError):
            reader.check()
        (tmp_path / "away").rename(path / part)
        holds_all(reader)
        with pytest.raises(KeyNotFoundError):
            reader.retrieve("absent")


def test_nothing_is_written_into_another_store_in_its_place(tmp_path: Path) -> None:
    """A backup is put where the store was: two histories in one directory destroy both."""
    path = tmp_path / "s"
    with DiskBackend(path) as backend:
        backend.write(record_for("a", 1), frame_for(b"a"))
    shutil.copytree(path, tmp_path / "backup")
    backend = DiskBackend(path)
    backend.write(record_for("b", 2), frame_for(b"b"))
    (path).rename(tmp_path / "moved")
    (tmp_path / "backup").rename(path)
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    for act in (
        lambda: backend.write(record_for("c", 3), frame_for(bytes(2 << 20))),
        backend.sync,
        lambda: backend.check(repair=True),
        lambda: backend.remove("a", 4),
        backend.close,
    ):
        with pytest.raises(StorageError, match="another directory"):
            act()
    assert before == {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    with DiskBackend(tmp_path / "moved") as again:
        assert ["a", "b"] == [record.key for record in again.scan()]


class Swapping(Files):
    """Files under which another store takes the place of this one, just before one of the calls."""

    def __init__(self, swap: Callable[[], object]) -> None:
        self._swap: Callable[[], object] | None = swap
        self.call = ""

    def _at(self, call: str) -> None:
        if call == self.call and self._swap is not None:
            swap, self._swap = self._swap, None
            swap()

    def named(self, descriptor: int, path: Path) -> bool:
        self._at("named")
        return super().named(descriptor, path)

    def sync(self, descriptor: int) -> None:
        self._at("sync")
        super().sync(descriptor)
        if self.call == "sync":
            raise OSError(errno.EIO, "the disk has gone")


@pytest.mark.parametrize("call", ["named", "sync"])
def test_another_store_that_comes_in_the_middle_is_not_written_to(
    tmp_path: Path, call: str
) -> None:
    """Every file of the old one is missing then; they must not be written there again."""
    path = tmp_path / "s"
    with DiskBackend(path) as backend:
        backend.write(record_for("a", 1), frame_for(b"a"))
    shutil.copytree(path, tmp_path / "backup")

    def swap() -> None:
        path.rename(tmp_path / "moved")
        (tmp_path / "backup").rename(path)

    before = {
        path / file.relative_to(tmp_path / "backup"): file.read_bytes()
        for file in (tmp_path / "backup").rglob("*")
        if file.is_file()
    }
    files = Swapping(swap)
    backend = DiskBackend(path, files=files)
    backend.write(record_for("b", 2), frame_for(b"b"))
    files.call = call
    for act in (
        backend.sync,
        lambda: backend.write(record_for("c", 3), frame_for(b"c")),
        lambda: backend.check(repair=True),
        backend.close,
    ):
        with pytest.raises(OSError, match=r"another directory|the disk has gone"):
            act()
    assert before == {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    with DiskBackend(tmp_path / "moved") as again:
        assert ["a", "b"] == [record.key for record in again.scan()]


def test_a_store_of_which_a_part_is_missing_is_not_begun_anew(tmp_path: Path) -> None:
    """An empty directory in its place would make every key absent, for good."""
    filled(tmp_path / "store").cleanup()
    (tmp_path / "store" / "cold" / "log").rename(tmp_path / "away")
    for read_only in (False, True):
        with pytest.raises(StorageError, match="log is not there"):
            opened(tmp_path / "store", read_only=read_only)
    (tmp_path / "away").rename(tmp_path / "store" / "cold" / "log")
    with opened(tmp_path / "store") as manager:
        holds_all(manager)


def removed(lock: Path) -> None:
    lock.unlink()


def replaced(lock: Path) -> None:
    other = lock.with_name("OTHER")
    other.write_text("pid 1 on another machine\n")
    other.rename(lock)


@pytest.mark.parametrize("spoil", [removed, replaced])
def test_a_lock_that_was_cleaned_up_lets_no_process_in(
    tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    """Two writers of one log lose what either acknowledged."""
    lock = tmp_path / "s" / "LOCK"
    with DiskBackend(tmp_path / "s") as backend:
        backend.write(record_for("a", 1), frame_for(b"a"))
        spoil(lock)
        with pytest.raises(StoreLockedError):
            DiskBackend(tmp_path / "s")
        assert "StoreLockedError" in in_child(lambda: DiskBackend(tmp_path / "s"))
        backend.sync()
        assert f"pid {os.getpid()}" in lock.read_text()
        with pytest.raises(StoreLockedError, match=f"pid {os.getpid()}"):
            DiskBackend(tmp_path / "s")
    DiskBackend(tmp_path / "s").close()


@pytest.fixture
def damaged(tmp_path: Path) -> Iterator[MemoryManager]:
    """Return a manager of a store with one small and one large value damaged, and an orphan."""
    path = tmp_path / "store"
    filled(path).cleanup()
    large = sorted((path / "cold" / "values").iterdir())[0]
    segment = sorted((path / "cold" / "log").iterdir())[0]
    flip(large, 100_000)
    at = segment.read_bytes().find(content(0).tobytes())
    assert at > 0
    flip(segment, at + 40)
    with opened(path) as manager:
        (path / "cold" / "values" / "00000777.val").write_bytes(b"foreign")
        yield manager


def files_of(path: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_a_dry_run_says_what_repair_would_do_and_does_nothing(
    tmp_path: Path, damaged: MemoryManager
) -> None:
    """A dry run shows first what a repair would remove."""
    before = files_of(tmp_path / "store")
    shown = damaged.check(repair=True, dry_run=True)
    assert before == files_of(tmp_path / "store")
    assert not any(problem.repaired for problem in shown)
    done = damaged.check(repair=True)
    assert [one._replace(repaired=True) for one in shown] == done
    assert {"k0", "k1", None} == {one.key for one in done}
    assert all("lost+found" in one.remedy for one in done)


def test_what_repair_takes_out_lies_beside_the_store(
    tmp_path: Path, damaged: MemoryManager
) -> None:
    """What it took for damage may be all that is left of a value."""
    assert all(problem.repaired for problem in damaged.check(repair=True))
    assert [] == damaged.check()
    assert {"k2", "k3", "k4", "k5"} == set(damaged)
    (kept,) = (tmp_path / "store" / "lost+found").iterdir()
    lines = [json.loads(line) for line in (kept / "report.jsonl").read_text().splitlines()]
    for line in lines:
        assert (kept / line["kept"]).is_file()
    bodies = {line.get("key"): (kept / line["kept"]).read_bytes() for line in lines}
    assert content(0).tobytes()[100:] in bodies["k0"]
    assert content(1).tobytes()[200_000:] in bodies["k1"]
    assert any(body == b"foreign" for body in files_of(kept).values())


@pytest.mark.parametrize("path", ["", " ", "\t"])
def test_no_directory_is_not_the_current_one(path: str) -> None:
    """A variable that is not set opened the current directory, and made `/cold` at the root."""
    with pytest.raises(InvalidOptionError, match="storage_path"):
        MemoryManager(storage_path=path)
    with pytest.raises(InvalidOptionError, match="glacier_url"):
        MemoryManager(glacier_memory_enabled=True, glacier_url=path)
