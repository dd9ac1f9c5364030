"""The bucket as a backend: versions, places, self-description, and what it costs in requests."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.buckets.kit import WatchedStore, frame, record
from tests.support.waiting import until

from memories.backends.bucket import BucketBackend, BucketLimits
from memories.backends.bucket.directory import DirectoryStore
from memories.errors import (
    ClosedError,
    CorruptDataError,
    StorageError,
    UnavailableError,
)

Open = Callable[..., BucketBackend]


@pytest.fixture
def store(tmp_path: Path) -> WatchedStore:
    return WatchedStore(DirectoryStore(tmp_path / "bucket"))


@pytest.fixture
def opened(store: WatchedStore, tmp_path: Path) -> Iterator[Open]:
    """Open a backend on the store; "home" is the state directory, None a private one."""
    backends: list[BucketBackend] = []

    def open_(home: str | None = "home", **options: object) -> BucketBackend:
        directory = tmp_path / home if home else None
        backends.append(BucketBackend(store, directory=directory, **options))  # type: ignore[arg-type]
        return backends[-1]

    yield open_
    for backend in backends:
        backend.close()


def content(backend: BucketBackend) -> dict[str, bytes]:
    return {found.key: bytes(backend.read(found)) for found in backend.records()}


@pytest.mark.parametrize("size", [1, 1000, 300_000, 20_000_000])
def test_a_frame_comes_back_from_the_stage_the_bucket_and_a_fresh_machine(
    opened: Open, size: int
) -> None:
    """One promise for small and large, whichever way they travel."""
    data = os.urandom(size)
    backend = opened()
    kept = backend.write(record("k", 1, size), frame(data))
    assert (len(data), data) == (kept.stored, bytes(backend.read(kept)))
    backend.sync()
    assert data == bytes(backend.read(kept))
    backend.close()
    fresh = opened("another home")
    assert fresh.lookup("k") == kept
    assert data == bytes(fresh.read(kept))


@pytest.mark.parametrize("synced", [True, False])
@pytest.mark.parametrize("size", [1000, 300_000])
def test_an_aborted_version_is_not_in_the_bucket_afterwards(
    opened: Open, monkeypatch: pytest.MonkeyPatch, size: int, synced: bool
) -> None:
    """A process was killed between the upload and its commit; the key was removed afterwards."""
    by_itself = "memories.backends.bucket.maintenance.BucketMaintenance.delete_failed_soon"
    monkeypatch.setattr(by_itself, lambda self: None)
    backend = opened()
    backend.write(record("k", 1), frame(b"first"))
    backend.prepare(record("k", 3), frame(os.urandom(size)))
    backend.abort("k", 3)
    backend.remove("k", 2)
    if synced:
        backend.sync()
    backend.close()
    assert {} == content(opened("another home"))


def test_an_aborted_version_leaves_the_bucket_by_itself(opened: Open, store: WatchedStore) -> None:
    """The process may be killed before it syncs or closes anything."""
    backend = opened(limits=BucketLimits(flush_seconds=3600.0))
    backend.prepare(record("k", 3), frame(os.urandom(300_000)))
    assert 1 == len(list(store.list("objects/")))
    backend.abort("k", 3)
    until(lambda: not list(store.list("objects/")))


def test_a_read_frame_is_read_only(opened: Open) -> None:
    """A caller who could write into it would change what others read."""
    backend = opened()
    for size in (100, 20_000_000):
        assert backend.read(backend.write(record(f"k{size}", size), frame(bytes(size)))).readonly


def test_a_region_is_read_by_transferring_only_that(opened: Open, store: WatchedStore) -> None:
    """A slice of a 1 GB array must not cost 1 GB of traffic."""
    data = os.urandom(5_000_000)
    backend = opened()
    kept = backend.write(record("k", 1), frame(data))
    store.bytes.clear()
    assert data[1_000_000:1_050_000] == bytes(backend.read_range(kept, 1_000_000, 50_000))
    assert 50_000 == store.bytes["get_range"]
    with pytest.raises(CorruptDataError, match="bytes 4999999 to 5000001 were asked for"):
        backend.read_range(kept, 4_999_999, 2)


def test_small_values_travel_together(opened: Open, store: WatchedStore) -> None:
    """Object stores bill and delay per request."""
    backend = opened(limits=BucketLimits(pack_bytes=100_000))
    store.count.clear()
    for n in range(1000):
        backend.write(record(f"k{n}", n + 1), frame(os.urandom(1000)))
    backend.sync()
    assert store.requests <= 12


@pytest.mark.parametrize("size", [1_000, 15_000, 80_000, 250_000])
def test_what_is_staged_takes_the_room_that_is_left_for_it(
    opened: Open, tmp_path: Path, size: int
) -> None:
    """A small disk is full but for that room, and what finds none is not archived."""

    def taken() -> int:
        return sum(path.stat().st_size for path in (tmp_path / "home").iterdir())

    room = 125_000
    backend = opened(limits=BucketLimits.within(room))
    before, most = taken(), 0
    for n in range(40):
        backend.write(record(f"k{n}", n + 1), frame(os.urandom(size)))
        most = max(most, taken())
    assert most - before <= room


def test_a_fresh_machine_lists_many_values_in_few_requests(
    opened: Open, store: WatchedStore
) -> None:
    """Listing by one request per value would take hours."""
    backend = opened()
    for n in range(3000):
        backend.write(record(f"k{n:04}", n + 1), frame(b"x" * 1000))
    backend.close()
    store.count.clear()
    fresh = opened("fresh")
    assert 3000 == sum(1 for _ in fresh.records())
    assert store.requests <= 12


def test_without_a_directory_a_write_returns_after_its_upload(
    opened: Open, store: WatchedStore
) -> None:
    """A machine without a disk of its own relies on the bucket alone."""
    backend = opened(None)
    backend.write(record("k", 1), frame(b"small"))
    backend.remove("gone", 2)
    reader = opened(None, read_only=True)
    assert {"k": b"small"} == content(reader)
    backend.remove("k", 3)
    reader.refresh()
    assert {} == content(reader)


def test_the_highest_version_wins_in_any_order(opened: Open) -> None:
    """A late move of an old version must never undo an overwrite."""
    backend = opened()
    backend.write(record("k", 5), frame(b"new"))
    backend.write(record("k", 3), frame(b"old"))
    backend.remove("k", 4)
    assert {"k": b"new"} == content(backend)
    backend.remove("k", 5)
    backend.write(record("k", 5), frame(b"again"))
    assert {} == content(backend)
    backend.close()
    assert {} == content(opened("fresh"))


def test_versions_survive_a_fresh_machine(opened: Open) -> None:
    """The next commit must get a higher number than any before it, removals included."""
    backend = opened()
    backend.write(record("k", 7), frame(b"x"))
    backend.write(record("j", 8), frame(b"x"))
    backend.remove("k", 11)
    backend.close()
    assert 11 == opened("fresh").last_version()


def test_scan_is_ordered_by_bytes_and_bounded_by_prefix_and_after(opened: Open) -> None:
    """The engine merges scans of several tiers."""
    backend = opened()
    keys = ["a", "b/1", "b/2", "b/é", "b/\U0001f600", "c", "b"]
    for n, key in enumerate(keys):
        backend.write(record(key, n + 1), frame(b"x"))
    ordered = sorted((key for key in keys if key.startswith("b/")), key=str.encode)
    assert ordered == [found.key for found in backend.scan("b/")]
    assert ordered[2:] == [found.key for found in backend.scan("b/", after=ordered[1])]


def test_usage_counts_live_frames_and_what_the_medium_holds(opened: Open) -> None:
    """Budgets are kept by it."""
    backend = opened()
    backend.write(record("a", 1), frame(bytes(1000)))
    backend.write(record("b", 2), frame(bytes(500_000)))
    backend.write(record("b", 3), frame(bytes(400_000)))
    usage = backend.usage()
    assert (401_000, 2) == (usage.live, usage.keys)
    assert usage.physical >= 901_000
    backend.close()
    fresh = opened("fresh").usage()
    assert (401_000, 2) == (fresh.live, fresh.keys)


def test_an_object_deleted_by_someone_else_is_corrupt_data_not_absence(
    opened: Open, store: WatchedStore
) -> None:
    """ "Absent" would let a caller store a default over a value that a backup still holds."""
    backend = opened()
    kept = backend.write(record("k", 1), frame(bytes(500_000)))
    for stat in list(store.inner.list("objects/")):
        store.inner.delete(stat.name)
    with pytest.raises(CorruptDataError, match=r"'k' is in the archive object objects/\w+ of"):
        backend.read(kept)
    problems = backend.check(repair=True)
    assert [("k", True)] == [(problem.key, problem.repaired) for problem in problems]
    assert None is backend.lookup("k")
    assert [] == backend.check()


def test_a_truncated_object_is_noticed(opened: Open, store: WatchedStore) -> None:
    """It must not come back shorter."""
    backend = opened()
    kept = backend.write(record("k", 1), frame(bytes(500_000)))
    [stat] = store.inner.list("objects/")
    store.inner.put(stat.name, [bytes(499_000)])
    with pytest.raises(CorruptDataError, match="1000 bytes too short"):
        backend.read(kept)


def test_a_failed_upload_leaves_the_old_version_and_no_orphan(
    opened: Open, store: WatchedStore
) -> None:
    """The engine keeps the copy it has when a write fails."""
    backend = opened()
    old = backend.write(record("k", 1), frame(b"o" * 300_000))

    def fail(action: str, name: str) -> None:
        if action == "put":
            store.inner.put(name, [b"arrived, but no answer came"])
            raise UnavailableError("The archive did not answer.")

    store.fault = fail
    with pytest.raises(UnavailableError, match=r"key 'k' \(300.0 KB\) was not archived"):
        backend.write(record("k", 2), frame(b"n" * 300_000))
    store.fault = lambda action, name: None
    assert b"o" * 300_000 == bytes(backend.read(backend.lookup("k") or old))
    backend.maintain()
    assert 1 == len(list(store.inner.list("objects/")))


def test_what_cannot_be_shipped_stays_staged_and_goes_later(
    opened: Open, store: WatchedStore
) -> None:
    """A small value is durable here; the bucket may be away for a while."""

    def fail(action: str, name: str) -> None:
        if action == "put":
            raise UnavailableError("The archive did not answer.")

    backend = opened(limits=BucketLimits(pack_bytes=10_000))
    store.fault = fail
    for n in range(50):
        backend.write(record(f"k{n}", n + 1), frame(b"x" * 1000))
    with pytest.raises(UnavailableError):
        backend.close()
    store.fault = lambda action, name: None
    again = opened()
    assert 50 == len(content(again))
    again.close()
    assert 50 == len(content(opened("fresh")))


def test_a_stage_that_is_never_emptied_refuses_more(opened: Open, store: WatchedStore) -> None:
    """A bucket that is away for a week must not fill the disk."""

    def fail(action: str, name: str) -> None:
        if action == "put":
            raise UnavailableError("The archive did not answer.")

    backend = opened(limits=BucketLimits(pack_bytes=2_000))
    store.fault = fail
    with pytest.raises(UnavailableError, match="packs of small values are staged"):
        for n in range(100):
            backend.write(record(f"k{n}", n + 1), frame(b"x" * 1000))
    store.fault = lambda action, name: None
    backend.sync()
    backend.write(record("z", 1000), frame(b"x"))


def test_neighbours_in_a_pack_are_read_by_one_request(opened: Open, store: WatchedStore) -> None:
    """With a second of delay per request, a thousand requests are a quarter of an hour."""
    backend = opened()
    kept = [backend.write(record(f"k{n}", n + 1), frame(str(n).encode() * 100)) for n in range(200)]
    kept.append(backend.write(record("large", 500), frame(b"L" * 300_000)))
    backend.sync()
    store.count.clear()
    asked = [kept[200], *kept[150:50:-1]]
    frames = backend.read_many(asked)
    assert [bytes(backend.read(one)) for one in asked] == [bytes(one) for one in frames]
    assert 2 == store.count["get_range"] - len(asked)


def test_a_closed_or_read_only_archive_says_so(opened: Open) -> None:
    """An error that names the reason beats one of SQLite's."""
    backend = opened()
    kept = backend.write(record("k", 1), frame(b"x"))
    backend.close()
    backend.close()
    with pytest.raises(ClosedError):
        backend.read(kept)
    reader = opened(None, read_only=True)
    with pytest.raises(StorageError, match="read-only"):
        reader.write(record("k", 2), frame(b"y"))


def test_a_reader_beside_the_writer_sees_what_is_staged(opened: Open, tmp_path: Path) -> None:
    """The catalog of the writer names places in packs that have not left yet."""
    backend = opened()
    kept = backend.write(record("k", 1), frame(b"staged"))
    reader = opened("home", read_only=True)
    assert b"staged" == bytes(reader.read(kept))


def test_progress_of_long_transfers_is_reported(opened: Open) -> None:
    """A minute without a word looks like a hang."""
    reported: list[tuple[str, int, int]] = []
    backend = opened(progress=lambda *news: reported.append(news))
    kept = backend.write(record("k", 1), frame(bytes(20_000_000)))
    key, done, total = reported.pop()
    assert "k" == key
    assert 20_000_000 < done == total
    reported.clear()
    backend.read(kept)
    assert ("k", 20_000_000, 20_000_000) == reported[-1]
    assert 3 == len(reported)


def test_an_opening_says_whether_it_learned_from_the_bucket(opened: Open) -> None:
    """The engine then tells its catalog of keys that this machine has never seen."""
    backend = opened()
    backend.write(record("k", 1), frame(b"x"))
    backend.close()
    again = opened()
    assert not again.adopted
    again.close()
    assert opened("another home").adopted
