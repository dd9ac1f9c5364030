"""A segment that ends in a torn record stays readable, whatever becomes of the segment after it."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from memories.backends.disk import DiskBackend, compaction, size_limits
from memories.errors import StorageError
from memories.testing.backends import frame_for, record_for
from memories.testing.faults import FailingFiles


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a store whose second segment, which says where the torn first one ends, is all dead."""
    monkeypatch.setattr(size_limits, "SEGMENT_BYTES", 20_000)
    monkeypatch.setattr(size_limits, "SLACK_BYTES", 100)
    files = FailingFiles(torn=True, code=errno.EIO, kinds=frozenset({"write", "writev"}))
    path = tmp_path / "s"
    with DiskBackend(path, files=files) as backend:
        assert backend._maintenance is not None
        backend._maintenance.stop()
        for number in range(10):
            backend.write(record_for(f"first{number}", number + 1), frame_for(b"a" * 1_500))
        files.arm(1)
        with pytest.raises(StorageError):
            backend.write(record_for("torn", 11), frame_for(b"b" * 1_500))
        files.arm(0)
        for version in range(12, 40):
            backend.write(record_for("again", version), frame_for(b"c" * 1_500))
        writer = backend._writer
        assert writer is not None
        compaction.run_upkeep(writer, lambda: None, quiet=True)
        backend.sync()
        left = sorted(int(file.stem) for file in (path / "log").iterdir())
        assert 2 not in left, "nothing was compacted"
        assert [] == backend.check()
    return path


def test_its_end_stays_known(store: Path) -> None:
    """A check finds nothing, and every record is there."""
    with DiskBackend(store) as backend:
        assert [] == backend.check()
        assert 11 == len(list(backend.scan()))


def test_a_lost_index_is_built_again(store: Path) -> None:
    """Without it only the log tells where the torn segment ends."""
    for file in (store / "index").iterdir():
        file.unlink()
    with DiskBackend(store) as backend:
        assert 11 == len(list(backend.scan()))
