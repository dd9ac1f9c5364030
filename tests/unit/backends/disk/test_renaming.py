"""A key is renamed in the log in one step: a value and the removal of its old key, in one write."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest
from tests.support.disk_stores import without_maintenance

from memories.backends.disk import DiskBackend
from memories.errors import StorageError
from memories.model.record import Record
from memories.model.tiers import TierName
from memories.testing.backends import frame_for, record_for
from memories.testing.faults import FailingFiles

OLD, NEW = b"a" * 900, b"b" * 900


def rename(backend: DiskBackend, *, body: bytes = NEW, version: int = 10) -> None:
    """Give what "old" holds the key "new", as the engine does."""
    with backend.renaming("new", "old", version - 1):
        backend.write(record_for("new", version), frame_for(body))


def names(backend: DiskBackend) -> list[str]:
    """Return the keys."""
    return [record.key for record in backend.scan()]


def read(backend: DiskBackend, key: str) -> bytes:
    """Return the frame of a key."""
    record = backend.lookup(key)
    assert record is not None
    return bytes(backend.read(record))


@pytest.mark.parametrize("size", [900, 3 << 20])
@pytest.mark.parametrize("over", [False, True])
def test_a_key_is_renamed(tmp_path: Path, size: int, over: bool) -> None:
    """Small and large values, also over others; the same after a reopen and without an index."""
    body = os.urandom(size)
    with DiskBackend(tmp_path / "s") as backend:
        backend.write(record_for("old", 1), frame_for(OLD))
        backend.write(record_for("other", 2), frame_for(OLD))
        if over:
            backend.write(record_for("new", 3), frame_for(os.urandom(2 << 20)))
        rename(backend, body=body)
        assert ["new", "other"] == names(backend) and backend.lookup("old") is None
        backend.write(record_for("new/2", 11), frame_for(OLD))
        before = backend.usage()
        assert 3 == before.keys and [] == backend.check()
    for lost in (False, True):
        if lost:
            shutil.rmtree(tmp_path / "s" / "index")
        with DiskBackend(tmp_path / "s") as backend:
            assert ["new", "new/2", "other"] == names(backend)
            assert b"".join(frame_for(body)) == read(backend, "new")
            assert before.live == backend.usage().live and [] == backend.check()


def test_a_note_renames_too(tmp_path: Path) -> None:
    """A value whose frame lies in the archive has only a note in the log."""
    note = Record(key="new", version=10, tier=TierName.GLACIER, size=9, stored_at=1.0, place=b"x")
    with DiskBackend(tmp_path / "s") as backend:
        backend.write(record_for("old", 1), frame_for(OLD))
        with backend.renaming("new", "old", 9):
            backend.write_note(note)
        assert ["new"] == names(backend)


def test_a_torn_renaming_is_done_or_not_done(tmp_path: Path) -> None:
    """The machine may stop at each byte of the write; never are both keys there, or none."""
    path = tmp_path / "s"
    with DiskBackend(path, durability="full") as backend:
        without_maintenance(backend)
        backend.write(record_for("old", 1), frame_for(OLD))
        segment = max((path / "log").iterdir())
        start = segment.stat().st_size
        shutil.copytree(path, tmp_path / "before")
        rename(backend)
        whole = segment.read_bytes()
    found = set()
    for end in range(start, len(whole) + 1, 16):
        torn = tmp_path / "torn"
        shutil.copytree(tmp_path / "before", torn)
        (torn / "log" / segment.name).write_bytes(whole[:end])
        for _ in range(2):
            with DiskBackend(torn) as backend:
                (name,) = names(backend)
                body = {"old": OLD, "new": NEW}[name]
                assert b"".join(frame_for(body)) == read(backend, name)
                assert [] == backend.check()
        found.add(name)
        shutil.rmtree(torn)
    assert {"old", "new"} == found


def test_what_came_after_a_renaming_stays(tmp_path: Path) -> None:
    """The old key may be stored anew, and be there after a kill."""
    path = tmp_path / "s"
    with DiskBackend(path) as backend:
        without_maintenance(backend)
        backend.write(record_for("old", 1), frame_for(OLD))
        rename(backend)
        backend.write(record_for("old", 11), frame_for(NEW))
        shutil.copytree(path, tmp_path / "killed")
    with DiskBackend(tmp_path / "killed") as backend:
        assert ["new", "old"] == names(backend)


@pytest.mark.parametrize("at", range(1, 4))
@pytest.mark.parametrize("durability", ["relaxed", "full"])
def test_a_failing_disk_leaves_the_old_key(tmp_path: Path, at: int, durability: str) -> None:
    """What was refused has not happened, and the next call succeeds."""
    files = FailingFiles(code=errno.EIO, kinds=frozenset({"write", "writev", "sync"}))
    with DiskBackend(tmp_path / "s", files=files, durability=durability) as backend:  # type: ignore[arg-type]
        without_maintenance(backend)
        backend.write(record_for("old", 1), frame_for(OLD))
        files.arm(at)
        try:
            rename(backend)
        except StorageError:
            assert ["old"] == names(backend)
            assert b"".join(frame_for(OLD)) == read(backend, "old")
        files.arm(0)
        if backend.lookup("new") is None:
            rename(backend, version=20)
        assert ["new"] == names(backend)
    with DiskBackend(tmp_path / "s") as backend:
        assert ["new"] == names(backend) and [] == backend.check()
