"""Files: how a large frame that must survive a power cut gets to the disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from memories.backends.disk import DiskBackend, files
from memories.backends.disk.files import Files, append_early
from memories.errors import StorageError
from memories.testing.backends import frame_for, record_for
from memories.testing.faults import FailingFiles


class WatchedFiles(Files):
    """Notes in which order pieces are written, begun and synced."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int, int]] = []

    def begin_sync(self, descriptor: int, offset: int, length: int) -> None:
        super().begin_sync(descriptor, offset, length)
        self.calls.append(("begin", offset, length))

    def sync(self, descriptor: int) -> None:
        super().sync(descriptor)
        self.calls.append(("sync", 0, os.fstat(descriptor).st_size))


def test_pieces_make_the_whole_whatever_the_buffers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frame is many buffers, empty and long ones; none may be lost or change places."""
    monkeypatch.setattr(files, "WRITEBACK_BYTES", 100)
    buffers = [os.urandom(length) for length in (3, 0, 250, 99, 1, 1000, 0, 7)]
    watched = WatchedFiles()
    descriptor = watched.create(tmp_path / "f")
    written = append_early(watched, descriptor, [buffers[:3], buffers[3:]])
    os.close(descriptor)
    assert b"".join(buffers) == (tmp_path / "f").read_bytes()
    assert sum(map(len, buffers)) == written
    ends = [offset + length for _, offset, length in watched.calls]
    assert [0, *ends[:-1]] == [offset for _, offset, _ in watched.calls], "a gap, or twice"
    assert written - ends[-1] < 100


def test_the_disk_begins_before_all_is_written_and_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Begun is not synced: the write returns after a sync of the whole file."""
    monkeypatch.setattr(files, "WRITEBACK_BYTES", 1 << 20)
    watched = WatchedFiles()
    with DiskBackend(tmp_path / "s", files=watched, durability="full") as backend:
        watched.calls.clear()
        kept = backend.write(record_for("k", 1), frame_for(bytes(5 << 20)))
        kinds = [kind for kind, _, length in watched.calls if length >= 1 << 20]
        assert ["begin"] * 5 == kinds[:5]
        assert ("sync", 0, kept.stored) in watched.calls


@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_a_piece_that_cannot_be_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Several pieces are one value still: there or not there, and no file left behind."""
    monkeypatch.setattr(files, "WRITEBACK_BYTES", 1 << 20)
    failing = FailingFiles(kinds=frozenset(["writev"]), torn=True)
    with DiskBackend(tmp_path / "s", files=failing, durability="full") as backend:
        failing.arm(at)
        with pytest.raises(StorageError):
            backend.write(record_for("k", 1), frame_for(bytes(4 << 20)))
        assert ["writev"] == failing.failed
        assert backend.lookup("k") is None
        assert not list((tmp_path / "s" / "values").iterdir())
