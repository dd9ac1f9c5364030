"""A commit is one step: whatever ends it, log, index and accounting agree afterwards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.disk_stores import without_maintenance

from memories.backends.disk import DiskBackend
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
