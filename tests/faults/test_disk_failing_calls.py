"""Every call to the operating system may fail; nothing acknowledged may be lost by it."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.disk_stores import without_maintenance

from memories.backends.disk import DiskBackend, size_limits
from memories.errors import MemoriesError, StorageError
from memories.testing.backends import frame_for, record_for
from memories.testing.faults import CHANGING, FailingFiles

LARGE = 40_000


@pytest.fixture(autouse=True)
def small_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every kind of file come up without writing gigabytes."""
    monkeypatch.setattr(size_limits, "LARGE_BYTES", LARGE)


def script(backend: DiskBackend, held: dict[str, bytes | None]) -> Iterator[None]:
    """Store, overwrite, remove, sync and checkpoint; `held` says what was acknowledged."""
    for version, step in enumerate(range(24), start=1):
        key = f"k{step % 5}"
        size = LARGE + step if step % 6 == 0 else 900 + step
        data = bytes([step + 1]) * size
        try:
            if step % 7 == 5:
                backend.remove(key, version)
                held[key] = None
            else:
                backend.write(record_for(key, version), frame_for(data, pieces=2))
                held[key] = data
            if step % 8 == 7:
                backend.sync()
            if step == 12 and backend._writer is not None:
                backend._writer.checkpoint()
        except OSError as error:
            assert isinstance(error, (StorageError, OSError))
        yield


def values(backend: DiskBackend) -> dict[str, bytes]:
    return {record.key: bytes(backend.read(record)) for record in backend.scan()}


def present(held: dict[str, bytes | None]) -> dict[str, bytes]:
    return {key: data for key, data in held.items() if data is not None}


@pytest.mark.parametrize("durability", ["relaxed", "full"])
@pytest.mark.parametrize(
    ("code", "torn"), [(errno.EIO, False), (errno.ENOSPC, True)], ids=["EIO", "ENOSPC torn"]
)
def test_any_one_call_may_fail(tmp_path: Path, durability: str, code: int, torn: bool) -> None:
    """The failed operation raises, every other keeps its promise, also after a reopen."""
    failures = 0
    for at in range(1, 200):
        files = FailingFiles(code=code, torn=torn)
        path = tmp_path / f"{at}"
        backend = without_maintenance(DiskBackend(path, durability=durability, files=files))
        files.arm(at)
        held: dict[str, bytes | None] = {}
        for _ in script(backend, held):
            assert present(held) == values(backend), (at, files.failed)
        failed = list(files.failed)
        files.arm(0)
        backend.sync()
        backend.close()
        with DiskBackend(path) as again:
            assert present(held) == values(again), (at, failed)
        if not failed:
            break
        failures += 1
    assert failures > 40


def test_a_full_disk_recovers_without_reopening(tmp_path: Path) -> None:
    """Fill, fail, free: then 100 of 100 operations succeed, and nothing was lost."""
    files = FailingFiles(code=errno.ENOSPC, kinds=frozenset(["create", "write", "writev"]))
    backend = without_maintenance(DiskBackend(tmp_path / "s", files=files))
    kept = backend.write(record_for("before", 1), frame_for(b"value"))
    files.arm(1, count=10**9)
    for version in range(2, 30):
        with pytest.raises(StorageError, match="disk is full") as caught:
            backend.write(record_for(f"k{version % 3}", version), frame_for(bytes(LARGE * 2)))
        assert errno.ENOSPC == caught.value.errno
        assert f"k{version % 3}" in str(caught.value)
        with pytest.raises(StorageError):
            backend.write(record_for("before", version), frame_for(b"other"))
        assert b"value" == backend.read(kept)
    files.arm(0)
    for version in range(100, 200):
        backend.write(record_for(f"k{version}", version), frame_for(bytes(2000)))
    backend.close()
    with DiskBackend(tmp_path / "s") as again:
        assert 101 == again.usage().keys
        assert b"value" == again.read(again.lookup("before"))
        assert [] == again.check()
        assert not list((tmp_path / "s" / "values").iterdir())


def test_a_removal_works_on_a_full_disk(tmp_path: Path) -> None:
    """Removing is how to make room, and it has to be written down first."""

    class Full(FailingFiles):
        """Has no room until the reserve is unlinked."""

        def unlink(self, path: Path) -> None:
            super().unlink(path)
            if path.name == "RESERVE":
                self.arm(0)

    files = Full(code=errno.ENOSPC, kinds=frozenset(["create", "write", "writev"]))
    backend = without_maintenance(DiskBackend(tmp_path / "s", files=files))
    backend.write(record_for("k", 1), frame_for(b"value"))
    assert backend._writer is not None
    backend._writer.space.reserve.allocate(0, 10**9, 10**9)
    files.arm(1, count=10**9)
    with pytest.raises(StorageError):
        backend.write(record_for("other", 2), frame_for(b"value"))
    backend.remove("k", 3)
    assert backend.lookup("k") is None
    assert not (tmp_path / "s" / "RESERVE").exists()
    backend.close()


@pytest.mark.parametrize("kind", sorted(CHANGING - {"link"}))
def test_a_store_that_cannot_be_opened_says_why(tmp_path: Path, kind: str) -> None:
    """Opening fails with our error or succeeds; the next opening finds everything."""
    with DiskBackend(tmp_path / "s") as backend:
        backend.write(record_for("k", 1), frame_for(b"value"))
    for at in range(1, 12):
        files = FailingFiles(at, code=errno.EACCES, kinds=frozenset([kind]))
        try:
            DiskBackend(tmp_path / "s", files=files).close()
        except MemoriesError as error:
            assert "permission" in str(error)
        with DiskBackend(tmp_path / "s") as again:
            assert b"value" == again.read(again.lookup("k"))


def test_reading_on_while_the_disk_refuses(tmp_path: Path) -> None:
    """A failing read is an error that names the key, never absence."""
    files = FailingFiles(kinds=frozenset(["read"]))
    with DiskBackend(tmp_path / "s", files=files) as backend:
        kept = backend.write(record_for("k", 1), frame_for(b"value"))
        files.arm(1)
        with pytest.raises(StorageError, match="'k'"):
            backend.read(kept)
        assert b"value" == backend.read(kept)
