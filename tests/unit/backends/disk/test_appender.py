"""A commit is one step: whatever ends it, log, index and accounting agree afterwards."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.disk_stores import without_maintenance

from memories.backends.disk import DiskBackend
from memories.backends.disk.appender import GATHERED_BYTES
from memories.backends.disk.writer import Writer
from memories.errors import StorageError
from memories.testing.backends import frame_for, record_for


def failing_once(action: Callable[..., Any], error: BaseException) -> Callable[..., Any]:
    """Return `action`, whose first call raises `error` instead."""
    errors = [error]

    def act(*arguments: Any, **options: Any) -> Any:
        if errors:
            raise errors.pop()
        return action(*arguments, **options)

    return act


def assert_agree(writer: Writer) -> None:
    """Compare index and accounting with what the log yields."""
    assert writer.appender.started is None
    index, accounting = writer._rebuild()
    assert list(index.rows()) == list(writer.index.rows())
    for figure in ("keys", "live", "log_bytes", "log_live", "last_version"):
        assert getattr(accounting, figure) == getattr(writer.accounting, figure), figure


@pytest.mark.parametrize("step", ["put", "replace", "extend_segment"])
def test_what_was_wholly_appended_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """As after a kill: the record is in the log, so the key has the new version."""
    with without_maintenance(DiskBackend(tmp_path / "s")) as backend:
        backend.write(record_for("k", 1), frame_for(b"old"))
        writer = backend._writer
        assert writer is not None
        owner = writer.index if step == "put" else writer.accounting
        interrupted = failing_once(getattr(owner, step), KeyboardInterrupt())
        monkeypatch.setattr(type(owner), step, lambda _, *args: interrupted(*args))
        with pytest.raises(KeyboardInterrupt):
            backend.write(record_for("k", 2), frame_for(b"new"))
        monkeypatch.undo()
        found = backend.lookup("k")
        assert found is not None
        assert (2, b"new") == (found.version, backend.read(found))
        assert_agree(writer)


def test_what_was_not_appended_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next commit succeeds, in a segment of its own."""
    with without_maintenance(DiskBackend(tmp_path / "s")) as backend:
        backend.write(record_for("k", 1), frame_for(b"old"))
        writer = backend._writer
        assert writer is not None
        full = failing_once(writer.files.write, OSError("the disk is tired"))
        monkeypatch.setattr(writer.files, "write", full)
        with pytest.raises(StorageError, match="tired"):
            backend.write(record_for("k", 2), frame_for(b"new"))
        found = backend.lookup("k")
        assert found is not None
        assert (1, b"old") == (found.version, backend.read(found))
        assert_agree(writer)
        backend.write(record_for("k", 3), frame_for(b"newest"))
        assert writer.log.end.segment == 2
        assert_agree(writer)


@pytest.mark.parametrize("length", [GATHERED_BYTES - 1, GATHERED_BYTES, 300_001])
def test_a_long_frame_of_several_parts_is_written_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    """Its parts are not joined before; a write that ends early is continued, or is no commit."""
    data = os.urandom(length)
    frame = [memoryview(data)[:100], memoryview(data)[100:70_000], memoryview(data)[70_000:]]
    with without_maintenance(DiskBackend(tmp_path / "s")) as backend:
        writer = backend._writer
        assert writer is not None
        backend.write(record_for("whole", 1), frame)
        writev = writer.files.writev

        def in_pieces(descriptor: int, buffers: list[memoryview]) -> int:
            return writev(descriptor, [buffers[0][:1000]])

        monkeypatch.setattr(writer.files, "writev", in_pieces)
        backend.write(record_for("pieces", 2), frame)
        calls = []

        def torn(descriptor: int, buffers: list[memoryview]) -> int:
            calls.append(1)
            if len(calls) > 3:
                raise OSError("the disk is tired")
            return in_pieces(descriptor, buffers)

        monkeypatch.setattr(writer.files, "writev", torn)
        if length >= GATHERED_BYTES:
            with pytest.raises(StorageError, match="tired"):
                backend.write(record_for("torn", 3), frame)
            assert backend.lookup("torn") is None
        monkeypatch.undo()
        backend.write(record_for("after", 4), frame)
        assert_agree(writer)
        for key in ("whole", "pieces", "after"):
            found = backend.lookup(key)
            assert found is not None
            assert data == backend.read(found)
