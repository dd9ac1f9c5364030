"""One writer, any number of readers, and children by fork."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest
from tests.support.forking import in_child

from memories.backends.disk import DiskBackend, compaction, follower, size_limits
from memories.errors import ForkedError, StorageError, StoreLockedError
from memories.testing.backends import frame_for, record_for
from memories.testing.faults import FailingFiles


def listing(path: Path) -> dict[str, tuple[int, int]]:
    found = {}
    for file in path.rglob("*"):
        status = file.stat()
        found[str(file)] = (status.st_ino, status.st_mtime_ns)
    return found


def versions(backend: DiskBackend) -> dict[str, int]:
    return {record.key: record.version for record in backend.scan()}


def test_a_reader_sees_the_writer_within_100_ms_and_writes_nothing(tmp_path: Path) -> None:
    """Also what is neither synced nor in a run yet."""
    with DiskBackend(tmp_path / "s") as backend:
        backend.write(record_for("a", 1), frame_for(b"1"))
        with DiskBackend(tmp_path / "s", read_only=True) as reader:
            assert {"a": 1} == versions(reader)
            backend.write(record_for("a", 2), frame_for(b"2"))
            backend.write(record_for("b", 3), frame_for(bytes(2 << 20)))
            time.sleep(follower.REFRESH_SECONDS)
            assert b"2" == reader.read(reader.lookup("a"))
            assert bytes(2 << 20) == reader.read(reader.lookup("b"))
            assert (3, 2) == (reader.last_version(), reader.usage().keys)
            backend.remove("a", 4)
            time.sleep(follower.REFRESH_SECONDS)
            assert reader.lookup("a") is None
            with pytest.raises(StorageError, match="read_only"):
                reader.write(record_for("c", 5), frame_for(b"c"))
            with pytest.raises(StorageError, match="read_only"):
                reader.remove("b", 6)
            with pytest.raises(StorageError, match="reading only"):
                reader.check(repair=True)
            assert [] == reader.check()
    before = listing(tmp_path / "s")
    with DiskBackend(tmp_path / "s", read_only=True) as reader:
        assert {"b": 3} == versions(reader)
        reader.sync()
    assert before == listing(tmp_path / "s")


def test_a_reader_follows_rotation_checkpoints_and_compaction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever files come and go, it sees a state the writer was in, and each value whole."""
    monkeypatch.setattr(size_limits, "SEGMENT_BYTES", 8_000)
    monkeypatch.setattr(size_limits, "SLACK_BYTES", 10_000)
    monkeypatch.setattr(compaction, "RECENT_ROWS", 40)
    monkeypatch.setattr(size_limits, "LARGE_BYTES", 5_000)
    monkeypatch.setattr(follower, "REFRESH_SECONDS", 0.0)
    backend = DiskBackend(tmp_path / "s", files=FailingFiles())
    assert backend._maintenance is not None
    backend._maintenance.stop()
    backend.write(record_for("clock", 1), frame_for(b"1"))
    readers = [DiskBackend(tmp_path / "s", read_only=True) for _ in range(2)]
    for version in range(2, 3000):
        if version % 3 == 0:
            backend.remove(f"k{version % 17}", version)
        else:
            size = 6_000 if version % 40 == 1 else 30
            body = f"{version} ".encode() * size
            backend.write(record_for(f"k{version % 17}", version), frame_for(body[:size]))
        if version % 50 == 0:
            assert backend._writer is not None
            compaction.run_upkeep(backend._writer, lambda: None)
        for reader in readers[: 1 + (version % 60 == 0)]:
            assert versions(backend) == versions(reader)
            for record in reader.scan():
                data = bytes(reader.read(record))
                assert data == (f"{record.version} ".encode() * len(data))[: len(data)]
    assert not (tmp_path / "s" / "log" / "00000001.seg").exists()
    for each in (*readers, backend):
        each.close()


def test_readers_while_a_writer_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values are whole and versions never go back, with the background threads at work."""
    monkeypatch.setattr(size_limits, "SEGMENT_BYTES", 50_000)
    monkeypatch.setattr(size_limits, "SLACK_BYTES", 50_000)
    monkeypatch.setattr(compaction, "RECENT_ROWS", 500)
    monkeypatch.setattr(follower, "REFRESH_SECONDS", 0.005)
    with DiskBackend(tmp_path / "s") as backend:
        backend.write(record_for("k0", 1), frame_for(b"1"))
        stop = threading.Event()
        failures: list[BaseException] = []
        passes: list[int] = []

        def follow_along() -> None:
            newest: dict[str, int] = {}
            try:
                with DiskBackend(tmp_path / "s", read_only=True) as reader:
                    while not stop.is_set():
                        passes.append(1)
                        for key in [f"k{n}" for n in range(20)]:
                            found = reader.lookup(key)
                            if found is not None:
                                assert found.version >= newest.get(key, 0)
                                newest[key] = found.version
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=follow_along)
        thread.start()
        version = 1
        while (version < 5000 or len(passes) < 50) and not failures:
            version += 1
            backend.write(record_for(f"k{version % 20}", version), frame_for(bytes(700)))
        stop.set()
        thread.join()
        assert [] == failures


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_reads_and_may_not_write(tmp_path: Path) -> None:
    """It touches no inherited lock or thread, and its end does not unlock the parent's store."""
    with DiskBackend(tmp_path / "s") as backend:
        backend.write(record_for("k", 1), frame_for(b"value"))
        backend.write(record_for("big", 2), frame_for(bytes(2 << 20)))

        def reads() -> None:
            assert b"value" == backend.read(backend.lookup("k"))
            assert bytes(2 << 20) == backend.read(backend.lookup("big"))
            assert ["big", "k"] == [record.key for record in backend.scan()]
            assert 2 == backend.last_version()
            with backend.view() as view:
                assert 2 == len(list(view))

        assert backend._writer is not None
        with backend._writer.lock:
            assert "None" == in_child(reads)
            assert "ForkedError" in in_child(lambda: backend.remove("k", 3))
            assert "ForkedError" in in_child(
                lambda: backend.write(record_for("k", 3), frame_for(b""))
            )
            assert "None" == in_child(backend.close)
        with pytest.raises(StoreLockedError):
            DiskBackend(tmp_path / "s")
        backend.write(record_for("k", 3), frame_for(b"parent"))
        assert b"parent" == backend.read(backend.lookup("k"))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_that_outlives_its_parent_does_not_hold_the_lock(tmp_path: Path) -> None:
    """Else a store stays locked by a process that cannot even write it."""
    backend = DiskBackend(tmp_path / "s")
    inlet, outlet = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(outlet)
        os.read(inlet, 1)
        os._exit(0)
    backend.close()
    DiskBackend(tmp_path / "s").close()
    os.close(outlet)
    os.waitpid(pid, 0)
    os.close(inlet)


def test_a_read_only_directory_can_be_read(tmp_path: Path) -> None:
    """A backup on a read-only mount is still a store."""
    with DiskBackend(tmp_path / "s") as backend:
        backend.write(record_for("k", 1), frame_for(b"value"))

    class Refusing(FailingFiles):
        pass

    files = Refusing(1, count=10**9)
    with DiskBackend(tmp_path / "s", read_only=True, files=files) as reader:
        assert b"value" == reader.read(reader.lookup("k"))
        assert [] == reader.check()
    assert [] == files.failed


def test_forked_error_is_no_storage_error() -> None:
    """Code that catches a failing disk must not catch a programming mistake."""
    assert not issubclass(ForkedError, StorageError)
