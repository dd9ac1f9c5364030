"""A file that cannot be shared is read where it lies, and copied in the background."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from memories.backends.disk import DiskBackend, background_import
from memories.backends.disk.files import Files
from memories.backends.disk.import_file import Adopted
from memories.testing.backends import frame_for, record_for


def test_a_file_is_pending_until_it_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its frames are read at once; another process sees them once the log names them."""
    monkeypatch.setattr(background_import, "share", lambda *_: False)
    source = tmp_path / "frames"
    source.write_bytes(b"first" + b"second")
    items = [(record_for("a", 2), 0, 5), (record_for("b", 3), 5, 6)]
    with DiskBackend(tmp_path / "s") as backend:
        backend.write(record_for("a", 1), frame_for(b"old"))
        descriptor = os.open(source, os.O_RDONLY)
        adopted = backend.adopt(source, [items], descriptor=descriptor)
        os.close(descriptor)
        source.unlink()
        assert Adopted(2, shared=False, pending=True) == adopted
        assert backend.is_pending("a") and backend.is_pending("b")
        found = {record.key: bytes(backend.read(record)) for record in backend.scan()}
        assert {"a": b"first", "b": b"second"} == found
        assert (1, 2) == (backend.newest("a")[0], backend.usage().keys)
        with DiskBackend(tmp_path / "s", read_only=True) as reader:
            assert [("a", 1)] == [(record.key, record.version) for record in reader.scan()]
        backend.sync()
        assert not backend.is_pending("a")
        assert 2 == backend.newest("a")[0]
    with DiskBackend(tmp_path / "s") as backend:
        assert ["a", "b"] == [record.key for record in backend.scan()]


def test_a_failed_copy_calls_back_with_its_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The records stay readable, and the next sync tries again."""
    monkeypatch.setattr(background_import, "share", lambda *_: False)
    copy_in = background_import.copy_in
    monkeypatch.setattr(background_import, "copy_in", failing)
    source = tmp_path / "frames"
    source.write_bytes(b"value")
    errors: list[BaseException | None] = []
    with DiskBackend(tmp_path / "s") as backend:
        descriptor = os.open(source, os.O_RDONLY)
        backend.adopt(source, [[(record_for("k", 1), 0, 5)]], descriptor=descriptor)
        os.close(descriptor)
        backend.import_soon(errors.append)
        imports = backend._imports
        assert imports is not None and imports._thread is not None
        assert imports._thread.join_within(30.0)
        assert ["the disk is tired" in str(error) for error in errors] == [True]
        assert b"value" == backend.read(next(backend.scan()))
        monkeypatch.setattr(background_import, "copy_in", copy_in)
        backend.sync()
        assert errors[1:] == [None]
        assert not backend.is_pending("k")


class AskingFiles(Files):
    """The operating system; what a reader finds is kept while a descriptor is being closed."""

    def __init__(self) -> None:
        self.ask: Callable[[], bool] = bool
        self.found: list[tuple[int, bool]] = []

    def close(self, descriptor: int) -> None:
        super().close(descriptor)
        self.found.append(
            (descriptor, self.ask())
        )  # As another thread may, while the system closes the file.


def test_no_reader_finds_a_file_that_is_being_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its number may be that of another file a moment later, whose bytes would be returned."""
    monkeypatch.setattr(background_import, "share", lambda *_: False)
    source = tmp_path / "frames"
    source.write_bytes(b"value")
    files = AskingFiles()
    with DiskBackend(tmp_path / "s", files=files) as backend:
        descriptor = os.open(source, os.O_RDONLY)
        backend.adopt(source, [[(record_for("k", 1), 0, 5)]], descriptor=descriptor)
        os.close(descriptor)
        ((path, pending),) = backend._reader.sources.items()
        number = pending.handle.descriptor
        del pending
        files.ask = lambda: backend._reader.sources.get(path) is not None
        backend.sync()
        assert [False] == [found for closed, found in files.found if closed == number][:1]


def failing(*_: object) -> None:
    """Fail as a copy to a failing disk does."""
    raise OSError("the disk is tired")
