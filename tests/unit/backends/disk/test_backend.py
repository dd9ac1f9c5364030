"""What the disk backend does beyond the contract of backends."""

from __future__ import annotations

import gc
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tests.support.disk_stores import without_maintenance

from memories.backends.base import Problem
from memories.backends.disk import DiskBackend, compaction, size_limits
from memories.backends.disk.import_file import Adopted
from memories.errors import KeyNotFoundError, StorageError, StoreLockedError
from memories.model.record import Terms
from memories.model.tiers import TierName
from memories.testing.backends import frame_for, record_for

LARGE = 1 << 20


def test_a_second_writer_is_refused_with_the_name_of_the_first(tmp_path: Path) -> None:
    """At once, with pid and host; and the lock goes with the process."""
    with DiskBackend(tmp_path / "s"):
        with pytest.raises(StoreLockedError, match=rf"pid {os.getpid()} on {socket.gethostname()}"):
            DiskBackend(tmp_path / "s")
        code = (
            f"from memories.backends.disk import DiskBackend; DiskBackend({str(tmp_path / 's')!r})"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert f"pid {os.getpid()}" in done.stderr
    DiskBackend(tmp_path / "s").close()


def test_a_forgotten_store_is_unlocked_and_ends_its_threads(tmp_path: Path) -> None:
    """An object that is garbage-collected was not closed."""
    backend = DiskBackend(tmp_path / "s")
    backend.write(record_for("k", 1), frame_for(b"value"))
    assert backend._maintenance is not None
    threads = [one.thread for one in backend._maintenance.threads]
    time.sleep(0.3)
    del backend
    gc.collect()
    for thread in threads:
        assert thread is not None and thread.join_within(60.0)
    with DiskBackend(tmp_path / "s") as again:
        assert b"value" == again.read(again.lookup("k"))


@pytest.mark.parametrize("size", [10, LARGE])
def test_a_write_that_comes_too_late_returns_no_tombstone(tmp_path: Path, size: int) -> None:
    """Small and large values alike: the newer value, or the record of a removed key as given."""
    with DiskBackend(tmp_path / "s") as backend:
        newer = backend.write(record_for("there", 5), frame_for(bytes(size)))
        assert newer == backend.write(record_for("there", 4), frame_for(bytes(size)))
        backend.remove("gone", 5)
        written = backend.write(record_for("gone", 4), frame_for(bytes(size)))
        assert (4, 100, "bytes") == (written.version, written.size, written.kind)
        assert backend.lookup("gone") is None


def test_a_noted_record_is_journaled_without_a_frame(tmp_path: Path) -> None:
    """A glacier reference survives, replaces a cold copy of the same version, and back."""
    away = record_for("k", 7, tier=TierName.GLACIER, place=b"bucket/object", stored=5)
    with DiskBackend(tmp_path / "s") as backend:
        backend.write(record_for("k", 7), frame_for(bytes(LARGE)))
        assert away == backend.write_note(away)
        assert away == backend.lookup("k")
        assert (0, 1) == (backend.usage().live, backend.usage().keys)
    with DiskBackend(tmp_path / "s") as backend:
        assert away == backend.lookup("k")
        backend.write(record_for("k", 7), frame_for(b"back"))
        assert b"back" == backend.read(backend.lookup("k"))
        backend.remove("k", 8)
        assert [] == list(backend.scan())
        backend.sync()
        assert [] == list((tmp_path / "s" / "values").iterdir())


def test_an_adopted_file_is_shared_and_given_back(tmp_path: Path) -> None:
    """No bytes are copied; one live key does not pin the whole file."""
    bodies = {f"k{n}": os.urandom(400_000) for n in range(10)}
    bodies["big"] = os.urandom(3 * LARGE)
    source, items, offset = tmp_path / "pack", [], 0
    with source.open("wb") as file:
        for version, (key, body) in enumerate(bodies.items(), start=1):
            items.append((record_for(key, version), offset, len(body)))
            offset += file.write(body)
    with without_maintenance(DiskBackend(tmp_path / "s")) as backend:
        before = backend.usage().physical
        assert Adopted(11, shared=True) == backend.adopt(source, [items[:4], items[4:]])
        kept = list(backend.scan())
        source.unlink()
        assert offset == backend.usage().live
        assert before + offset + 10_000 > backend.usage().physical
        for record in kept:
            assert bodies[record.key] == backend.read(record)
            assert record == backend.lookup(record.key)
        view = backend.read(backend.lookup("big"))
        for version in range(100, 109):
            backend.remove(f"k{version - 100}", version)
        assert backend._writer is not None
        (number,) = backend._writer.accounting.packs
        compaction._empty_pack(backend._writer, number, lambda: None)
        backend.sync()
        assert [] == list((tmp_path / "s" / "values").glob("*.pack"))
        assert bodies["k9"] == backend.read(backend.lookup("k9"))
        assert bodies["big"] == view == backend.read(backend.lookup("big"))
        assert backend.usage().physical >= 2 * 3 * LARGE, "the mapped pack is still held"
        del view, kept
        assert backend.usage().physical < 4 * LARGE + 400_000
    with DiskBackend(tmp_path / "s") as backend:
        assert {"big", "k9"} == {record.key for record in backend.scan()}
        assert [] == backend.check()


def test_a_private_frame_is_changed_by_its_reader_alone(tmp_path: Path) -> None:
    """Nothing is copied for it; its file stays until it is not in use, as for a shared one."""
    body = os.urandom(3 * LARGE)
    with without_maintenance(DiskBackend(tmp_path / "s")) as backend:
        record = backend.write(record_for("k", 1), frame_for(body))
        view = backend.read_private(record)
        if view.readonly:
            pytest.skip("this system maps nothing for one reader")
        assert body == view
        view[0] ^= 255
        assert body == backend.read(record) == backend.read_private(record) != view
        backend.remove("k", 2)
        backend.sync()
        assert backend.usage().physical >= 3 * LARGE, "the mapped file is still held"
        assert body[1:] == view[1:]
        del view
        assert backend.usage().physical < LARGE


def test_a_private_frame_that_cannot_be_mapped_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller copies it then, like a small one; what is wrong is said as by `read`."""
    with DiskBackend(tmp_path / "s") as backend:
        small = backend.write(record_for("small", 1), frame_for(b"value"))
        large = backend.write(record_for("large", 2), frame_for(bytes(LARGE)))
        assert b"value" == backend.read_private(small) and backend.read_private(small).readonly
        monkeypatch.setattr(backend._files, "map_private", lambda *_: None)
        assert bytes(LARGE) == backend.read_private(large)
        assert backend.read_private(large).readonly
        backend.remove("large", 3)
        backend.sync()
        with pytest.raises(KeyNotFoundError, match="replaced"):
            backend.read_private(large)


def test_a_view_is_one_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it names stays readable through overwrites, deletes and compaction."""
    monkeypatch.setattr(size_limits, "SEGMENT_BYTES", 20_000)
    monkeypatch.setattr(size_limits, "SLACK_BYTES", 0)
    monkeypatch.setattr(size_limits, "LARGE_BYTES", 40_000)
    with without_maintenance(DiskBackend(tmp_path / "s")) as backend:
        bodies = {f"k{n:02}": os.urandom(41_000 if n % 5 == 0 else 900) for n in range(40)}
        for version, (key, body) in enumerate(bodies.items(), start=1):
            backend.write(record_for(key, version), frame_for(body))
        assert backend._writer is not None
        with backend.view() as view:
            assert (40, 40) == (view.keys, view.last_version)
            for version, key in enumerate(bodies, start=100):
                backend.remove(key, version)
            backend._writer.checkpoint()
            compaction.run_upkeep(backend._writer, lambda: None, quiet=True)
            assert [] == list(backend.scan())
            records = list(view)
            assert list(bodies) == [record.key for record in records]
            for record in records:
                assert bodies[record.key] == backend.read(record)
        compaction.run_upkeep(backend._writer, lambda: None, quiet=True)
        backend.sync()
        assert [] == list((tmp_path / "s" / "values").iterdir())
        with pytest.raises(KeyNotFoundError):
            backend.read(records[0])


def test_expired_keys_are_found_without_a_scan(tmp_path: Path) -> None:
    """In the recent rows and in a run; not those that were replaced or removed."""
    with without_maintenance(DiskBackend(tmp_path / "s")) as backend:
        for n in range(20):
            terms = Terms(expires_at=float(n)) if n % 2 else Terms()
            backend.write(record_for(f"k{n}", n + 1, terms=terms), frame_for(b"v"))
        assert {"k1", "k3", "k5"} == {record.key for record in backend.expired(5.0)}
        assert backend._writer is not None
        backend._writer.checkpoint()
        assert {"k1", "k3", "k5"} == {record.key for record in backend.expired(5.0)}
        backend.remove("k1", 50)
        backend.write(record_for("k3", 51, terms=Terms(expires_at=9.0)), frame_for(b"v"))
        assert ["k5"] == [record.key for record in backend.expired(5.0)]
        assert {"k5", "k7", "k9", "k3"} == {record.key for record in backend.expired(9.0)}


def test_small_values_share_files(tmp_path: Path) -> None:
    """A thousand small values take few files, and little more space than themselves."""
    with DiskBackend(tmp_path / "s") as backend:
        for n in range(1000):
            backend.write(record_for(f"tile/{n}", n + 1), frame_for(bytes(1024)))
    files = [path for path in (tmp_path / "s").rglob("*") if path.is_file()]
    assert len(files) < 8
    assert sum(path.stat().st_size for path in files) < 1.35 * 1000 * 1024


def test_an_upkeep_that_fails_is_shown(tmp_path: Path) -> None:
    """`check` shows it; reading a log is not needed."""
    with DiskBackend(tmp_path / "s") as backend:
        assert backend._maintenance is not None
        backend._maintenance.threads[0].failure = OSError("disk is tired")
        assert [Problem(None, "the last upkeep failed: disk is tired", False)] == backend.check()


def test_a_directory_that_is_no_store_is_refused_for_reading(tmp_path: Path) -> None:
    """A reader makes nothing."""
    with pytest.raises(StorageError, match="holds no store"):
        DiskBackend(tmp_path, read_only=True)
    assert [] == list(tmp_path.iterdir())


def test_room_is_what_the_file_system_has(tmp_path: Path) -> None:
    """The tier's effective capacity is made of it."""
    with DiskBackend(tmp_path / "s") as backend:
        status = os.statvfs(tmp_path)
        assert backend.room() == pytest.approx(status.f_bavail * status.f_frsize, rel=0.2)


def test_the_background_starts_once_however_many_write_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two threads doing upkeep at once would merge the same runs, and unlink files twice."""
    began, start = list[str](), threading.Thread.start

    def slowly(thread: threading.Thread) -> None:
        if thread.name.startswith("memories-"):
            began.append(thread.name)
            time.sleep(0.02)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", slowly)
    with DiskBackend(tmp_path / "s") as backend:
        together = threading.Barrier(4)

        def write(number: int) -> None:
            together.wait()
            backend.write(record_for(f"k{number}", number), frame_for(b"value"))

        threads = [threading.Thread(target=write, args=(number,)) for number in range(1, 5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert ["memories-sync", "memories-unlink", "memories-upkeep"] == sorted(began)
