"""One writer per prefix: which store is refused, which takes over, and what a lost one may do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from tests.support.buckets.fixtures import s3, s3_url  # noqa: F401
from tests.support.buckets.kit import WatchedStore, frame, record

from memories.backends.bucket import BucketBackend, BucketLimits
from memories.backends.bucket.directory import DirectoryStore
from memories.backends.bucket.lease import WriterLease
from memories.errors import StoreLockedError


@pytest.fixture
def store(tmp_path: Path) -> WatchedStore:
    return WatchedStore(DirectoryStore(tmp_path / "bucket"))


def forget_host(writer: WriterLease) -> None:
    """Make a writer look as if it ran on another machine."""
    writer.lease = msgspec.structs.replace(writer.lease, boot="another")


def test_a_second_writer_is_refused_and_the_first_is_named(
    store: WatchedStore, tmp_path: Path
) -> None:
    """Two writers would each believe in their own map."""
    first = BucketBackend(store, directory=tmp_path / "one")
    with pytest.raises(StoreLockedError, match=f"written by process {os.getpid()} on"):
        BucketBackend(store, directory=tmp_path / "two")
    reader = BucketBackend(store, read_only=True)
    reader.close()
    first.close()
    BucketBackend(store, directory=tmp_path / "two").close()


@pytest.mark.server
def test_a_real_bucket_refuses_a_second_writer(s3_url: str, s3, tmp_path: Path) -> None:  # noqa: F811
    """The conditional write is the server's, not ours."""
    options = s3.storage_options()
    first = BucketBackend(s3_url, storage_options=options, directory=tmp_path / "one")
    with pytest.raises(StoreLockedError, match="whose lease is"):
        BucketBackend(s3_url, storage_options=options, directory=tmp_path / "two")
    first.close()
    BucketBackend(s3_url, storage_options=options, directory=tmp_path / "two").close()


def test_the_same_directory_cannot_be_opened_twice(store: WatchedStore, tmp_path: Path) -> None:
    """A store may take its own lease over, so something else keeps two openings apart."""
    first = BucketBackend(store, directory=tmp_path / "one")
    with pytest.raises(StoreLockedError, match=r"has .*one open"):
        BucketBackend(store, directory=tmp_path / "one")
    first.close()


def test_the_same_store_takes_over_after_a_crash(store: WatchedStore) -> None:
    """A restart must not wait for its own dead lease."""
    crashed = WriterLease(store, "me")
    forget_host(crashed)
    crashed.acquire()
    again = WriterLease(store, "me")
    again.acquire()
    again.renew()
    assert crashed.lease.epoch == again.lease.epoch
    with pytest.raises(StoreLockedError, match="another store has become the writer"):
        crashed.renew()


def test_another_store_waits_until_the_lease_has_run_out(store: WatchedStore) -> None:
    """By the store's own times: no machine's clock need be right."""
    gone = WriterLease(store, "gone", seconds=1000)
    forget_host(gone)
    gone.acquire()
    heir = WriterLease(store, "heir")
    with pytest.raises(StoreLockedError, match="lease ends after 1000 s"):
        heir.acquire()
    lock = Path(store.url) / "lock" / "writer"
    long_ago = time.time() - 1100
    os.utime(lock, (long_ago, long_ago))
    before = heir.acquire()
    assert before is not None
    assert (before.store, before.epoch + 1) == ("gone", heir.lease.epoch)
    assert {"lock/now", "lock/writer"} == {stat.name for stat in store.list("lock/")}


def test_takeover_needs_no_wait(store: WatchedStore) -> None:
    """A user who knows that the other machine is lost says so."""
    gone = WriterLease(store, "gone")
    forget_host(gone)
    gone.acquire()
    WriterLease(store, "heir").acquire(takeover=True)


def test_a_lost_conditional_answer_is_not_a_lost_lease(store: WatchedStore) -> None:
    """A write that timed out may have succeeded: the conflict is then with oneself."""
    writer = WriterLease(store, "me")
    writer.acquire()
    real = store.inner.put_if

    def twice(name: str, data: bytes, tag: str | None) -> str:
        real(name, data, tag)
        return real(name, data, tag)

    store.inner.put_if = twice  # type: ignore[method-assign]
    writer.renew()
    store.inner.put_if = real  # type: ignore[method-assign]
    writer.renew()
    writer.release()
    WriterLease(store, "next").acquire()


def test_what_a_lost_writer_still_uploads_does_not_count(
    store: WatchedStore, tmp_path: Path
) -> None:
    """A laptop that wakes up after a week must not undo a week of work."""
    sleeper = BucketBackend(
        store, directory=tmp_path / "one", limits=BucketLimits(lease_seconds=1000)
    )
    sleeper.write(record("k", 1), frame(b"1" * 300_000))
    heir = BucketBackend(store, directory=tmp_path / "two", takeover=True)
    heir.write(record("k", 2), frame(b"2" * 300_000))
    sleeper.write(record("k", 9), frame(b"9" * 300_000))
    reader = BucketBackend(store, read_only=True)
    assert 2 == (reader.lookup("k") or record("none", 0)).version
    sleeper._session.lease._renewed = 0.0
    with pytest.raises(StoreLockedError):
        sleeper.write(record("k", 10), frame(b"x" * 300_000))
    with pytest.raises(StoreLockedError):
        sleeper.close()
    heir.close()
    reader.close()


CHILD = """
import sys, time
from pathlib import Path
from memories.backends.bucket import BucketBackend
from tests.support.buckets.kit import frame, record
backend = BucketBackend(sys.argv[1], directory=Path(sys.argv[2]))
for version in range(1, 100_000):
    size = 300_000 if version % 10 == 0 else 500
    backend.write(record(f"k{version % 50}", version), frame(str(version).encode() * size))
    print(version, flush=True)
"""


def test_what_was_acknowledged_survives_kill_9_and_a_fresh_store_may_follow(
    tmp_path: Path,
) -> None:
    """The process is gone in the middle of anything."""
    url, home = str(tmp_path / "bucket"), str(tmp_path / "home")
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, url, home], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    for line in child.stdout:
        if int(line) >= 75:
            break
    child.send_signal(signal.SIGKILL)
    acked = int((child.stdout.read().split() or [line])[-1])
    child.wait()
    child.stdout.close()
    again = BucketBackend(url, directory=Path(home))
    found = {one.version: bytes(again.read(one)) for one in again.records()}
    expected = set(range(acked - 49, acked + 1))
    assert expected <= set(found) | {min(expected)}, "the next write may have replaced the oldest"
    assert all(data.startswith(str(version).encode()) for version, data in found.items())
    again.sync()
    again._maintenance.stop()
    again._closed = True  # It never gives its lease back; but its process lives.
    with pytest.raises(StoreLockedError):
        BucketBackend(url, directory=tmp_path / "fresh")
    again._release()


def test_a_dead_process_of_this_machine_is_known_to_be_dead(tmp_path: Path) -> None:
    """After a crash and the loss of its directory one need not wait for the lease."""
    url = str(tmp_path / "bucket")
    code = CHILD.replace("100_000", "12") + "\nimport os; os._exit(1)"
    subprocess.run(
        [sys.executable, "-c", code, url, str(tmp_path / "lost")], capture_output=True, check=False
    )
    fresh = BucketBackend(url, directory=tmp_path / "fresh")
    assert 10 == (fresh.lookup("k10") or record("none", 0)).version
    fresh.close()
