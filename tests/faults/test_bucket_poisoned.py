"""A bucket that someone has tampered with, or that a disk has rotted under.

Nothing in it may choose a file name, an allocation or a place outside its own object, and no damage
may pass for absence.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.servers.bucket_kit import frame, record

from memories.backends.bucket import BucketBackend
from memories.backends.bucket.directory import DirectoryStore
from memories.backends.bucket.pack import Contents, Index, Stored, finish
from memories.backends.bucket.place import new_token, object_name
from memories.errors import CorruptDataError, StoreLockedError


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DirectoryStore]:
    """A bucket with a large value and a pack of small ones."""
    store = DirectoryStore(tmp_path / "bucket")
    backend = BucketBackend(store, directory=tmp_path / "home")
    backend.write(record("large", 1), frame(bytes(300_000)))
    for n in range(500):
        backend.write(record(f"small{n}", n + 2), frame(b"x" * 200))
    backend.close()
    return store


def opened(store: DirectoryStore) -> BucketBackend:
    return BucketBackend(store, read_only=True)


def test_a_damaged_index_is_named_and_never_taken_for_absence(store: DirectoryStore) -> None:
    """A fresh machine that silently missed a pack would store defaults over it."""
    for stat in list(store.list("objects/")):
        data, _ = store.get(stat.name)
        for at in (stat.size - 10, stat.size - 70):
            damaged = bytearray(data)
            damaged[at] ^= 1
            store.put(stat.name, [damaged])
            with pytest.raises(CorruptDataError, match=stat.name):
                opened(store)
        store.put(stat.name, [data[:-1]])
        with pytest.raises(CorruptDataError, match=stat.name):
            opened(store)
        store.put(stat.name, [b""])
        with pytest.raises(CorruptDataError, match="cut short"):
            opened(store)
        store.put(stat.name, [data])
    opened(store).close()


@pytest.mark.parametrize(("offset", "length"), [(0, 10**15), (10**15, 1), (-5, 10), (0, -1)])
def test_an_index_cannot_name_a_place_outside_of_its_object(
    store: DirectoryStore, offset: int, length: int
) -> None:
    """A declared petabyte would be allocated by whoever reads it."""
    contents = Contents([Stored(offset, length, record("evil", 9999))])
    store.put(object_name(new_token()), [finish(Index("s", 1, 99, 0.0, contents), 0)])
    with pytest.raises(CorruptDataError, match="key 'evil' lies outside of it"):
        opened(store)


def test_an_index_of_another_shape_is_refused(store: DirectoryStore) -> None:
    """Checksums say that it is what was written, not that it was written by us."""
    import zlib

    import xxhash

    honest = finish(Index("s", 1, 99, 0.0), 0)
    raw = b"\x93\x01\x02\x03"
    body = zlib.compress(raw)
    trailer = bytearray(honest[-64:])
    trailer[16:24] = len(body).to_bytes(8, "little")
    trailer[24:32] = len(raw).to_bytes(8, "little")
    trailer[32:48] = xxhash.xxh3_128_digest(body)
    trailer[-8:] = xxhash.xxh3_64_intdigest(bytes(trailer[:-8])).to_bytes(8, "little")
    store.put(object_name(new_token()), [body, trailer])
    with pytest.raises(CorruptDataError, match="malformed"):
        opened(store)


def test_foreign_objects_under_the_prefix_are_left_alone(store: DirectoryStore) -> None:
    """Somebody's readme is no archive object, and is none of our business."""
    store.put("objects/README", [b"hello"])
    reader = opened(store)
    assert 501 == reader.usage().keys
    reader.close()
    assert b"hello" == store.get("objects/README")[0]


def test_a_lock_that_cannot_be_read_is_said_so(store: DirectoryStore, tmp_path: Path) -> None:
    """It is no reason to write beside another writer."""
    store.put("lock/writer", [b"garbage"])
    with pytest.raises(StoreLockedError, match="cannot be read"):
        BucketBackend(store, directory=tmp_path / "home")
    opened_error = pytest.raises(StoreLockedError, match="cannot be read")
    with opened_error:
        opened(store)
