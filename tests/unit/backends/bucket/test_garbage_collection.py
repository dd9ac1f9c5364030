"""Dead space becomes free, not too early, and never while a reader uses it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.buckets.kit import WatchedStore, frame, record

from memories.backends.bucket import BucketBackend, BucketLimits
from memories.backends.bucket.directory import DirectoryStore
from memories.errors import CorruptDataError

DAY = 86400.0


class Bench:
    """A backend on a watched store, and a clock that the test turns."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.now = 1000.0
        self.store = WatchedStore(DirectoryStore(root / "bucket"))
        self.backend = self.open("home")

    def open(self, home: str, small_bytes: int = 256 * 1024) -> BucketBackend:
        return BucketBackend(
            self.store, directory=self.root / home, wall=lambda: self.now,
            limits=BucketLimits(
                pack_bytes=100_000, flush_seconds=10_000, small_bytes=small_bytes
            ),
        )  # fmt: skip

    def objects(self) -> list[str]:
        return [stat.name for stat in self.store.inner.list("objects/")]

    def elsewhere(self) -> dict[str, bytes]:
        reader = BucketBackend(self.store, read_only=True)
        found = {one.key: bytes(reader.read(one)) for one in reader.records()}
        reader.close()
        return found


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.backend.close()


def test_a_dead_object_goes_after_the_grace_time_and_not_before(bench: Bench) -> None:
    """A user who cleared by mistake has seven days to notice."""
    old = bench.backend.write(record("k", 1), frame(b"1" * 300_000))
    bench.backend.write(record("k", 2), frame(b"2" * 300_000))
    bench.now += 6.9 * DAY
    bench.backend.reclaim()
    assert 2 == len(bench.objects())
    assert b"1" * 300_000 == bytes(bench.backend.read(old))
    bench.now += 0.2 * DAY
    assert 1 == bench.backend.reclaim().unlinked
    assert 1 == len(bench.objects())
    assert {"k": b"2" * 300_000} == bench.elsewhere()


def test_clear_unlinks_at_once_only_with_purge(bench: Bench) -> None:
    """`clear()` cannot be undone, but the objects stay for a while."""
    for n in range(3):
        bench.backend.write(record(f"k{n}", n + 1), frame(bytes(300_000)))
    bench.backend.clear(3)
    assert {} == bench.elsewhere()
    assert 4 == len(bench.objects())
    bench.backend.write(record("after", 4), frame(b"kept"))
    bench.backend.clear(3, purge=True)
    assert 1 == len(bench.objects())
    assert {"after": b"kept"} == bench.elsewhere()


def test_a_protected_object_stays_whatever_happens(bench: Bench) -> None:
    """A snapshot refers to it; without it the snapshot could not be restored."""
    kept = bench.backend.write(record("k", 1), frame(b"1" * 300_000))
    bench.backend.protect(kept.place, holder="snapshot of Monday")
    bench.backend.clear(1, purge=True)
    bench.now += 100 * DAY
    bench.backend.reclaim()
    assert b"1" * 300_000 == bytes(bench.backend.read(kept))
    bench.backend.close()
    bench.backend = bench.open("another machine")
    bench.backend.clear(1, purge=True)
    assert b"1" * 300_000 == bytes(bench.backend.read(kept))
    bench.backend.unprotect(holder="snapshot of Monday")
    bench.backend.clear(1, purge=True)
    with pytest.raises(CorruptDataError):
        bench.backend.read(kept)
    with pytest.raises(CorruptDataError, match="snapshot of Monday refers to"):
        bench.backend.protect(kept.place, holder="snapshot of Monday")


def test_two_holders_protect_independently(bench: Bench) -> None:
    """Deleting one snapshot must not harm another."""
    kept = bench.backend.write(record("k", 1), frame(b"1" * 300_000))
    bench.backend.protect(kept.place, holder="one")
    bench.backend.protect(kept.place, holder="two")
    bench.backend.unprotect(kept.place, holder="one")
    bench.backend.clear(1, purge=True)
    assert 300_000 == len(bench.backend.read(kept))


def test_live_values_move_out_of_a_sparse_pack_and_their_old_records_still_read(
    bench: Bench,
) -> None:
    """Space comes back, and no catalog has to know at once."""
    kept = [bench.backend.write(record(f"k{n}", n + 1), frame(os.urandom(1000))) for n in range(90)]
    values = [bytes(bench.backend.read(one)) for one in kept]
    bench.backend.sync()
    for n in range(80):
        bench.backend.remove(f"k{n}", 100 + n)
    before = bench.backend.usage().physical
    assert 10 == bench.backend.reclaim().moved
    bench.backend.reclaim(grace_seconds=0)
    assert bench.backend.usage().physical < before / 3
    assert values[80:] == [bytes(bench.backend.read(one)) for one in kept[80:]]
    assert dict(zip([f"k{n}" for n in range(80, 90)], values[80:], strict=True)) == (
        bench.elsewhere()
    )


def test_a_manifest_does_not_hide_what_has_moved(bench: Bench) -> None:
    """The same version lies in two objects for a while; it is removed from neither."""
    for n in range(90):
        bench.backend.write(record(f"k{n}", n + 1), frame(b"x" * 1000))
    bench.backend.sync()
    for n in range(80):
        bench.backend.remove(f"k{n}", 100 + n)
    bench.backend.reclaim()
    bench.backend._maintenance.collector.write_manifests(least=1)
    assert {f"k{n}" for n in range(80, 90)} == set(bench.elsewhere())


def test_a_tombstone_outlives_its_pack_while_an_older_copy_exists(bench: Bench) -> None:
    """Else the next machine would find the deleted value again."""
    kept = bench.backend.write(record("k", 1), frame(b"1" * 300_000))
    bench.backend.protect(kept.place, holder="snapshot")
    bench.backend.remove("k", 2)
    for _ in range(3):
        bench.now += 8 * DAY
        bench.backend.reclaim()
        assert {} == bench.elsewhere()
    bench.backend.unprotect(holder="snapshot")
    for _ in range(3):
        bench.now += 8 * DAY
        bench.backend.reclaim()
    assert [] == bench.objects()


def test_many_large_values_are_listed_by_few_requests(bench: Bench) -> None:
    """A manifest sums up what would be one request per value."""
    bench.backend.close()
    bench.backend = bench.open("home", small_bytes=10)
    for n in range(300):
        bench.backend.write(record(f"k{n:03}", n + 1), frame(b"large, for this test"))
    bench.backend.close()
    bench.store.count.clear()
    fresh = bench.open("fresh")
    assert 300 == sum(1 for _ in fresh.records())
    assert bench.store.requests < 60
    fresh.clear(300, purge=True)
    assert [] == list(bench.store.inner.list("manifests/"))
    fresh.close()


def test_an_unlink_that_failed_is_done_later(bench: Bench) -> None:
    """A store that is away for a moment must not leave unknown objects."""
    bench.backend.write(record("k", 1), frame(bytes(300_000)))

    def fail(action: str, name: str) -> None:
        if action == "delete":
            raise ConnectionError("gone")

    bench.store.fault = fail
    with pytest.raises(ConnectionError):
        bench.backend.clear(1, purge=True)
    bench.store.fault = lambda action, name: None
    bench.backend.reclaim()
    bench.backend.reclaim(grace_seconds=0)
    assert [] == bench.objects()
    assert 0 == bench.backend.usage().physical
