"""A bucket that someone has tampered with, or that a disk has rotted under.

Nothing in it may choose a file name, an allocation or a place outside its own object, and no damage
may pass for absence.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.buckets.kit import frame, record

from memories.backends.bucket import BucketBackend
from memories.backends.bucket.directory import DirectoryStore
from memories.backends.bucket.location import new_token, object_name
from memories.backends.bucket.pack import PackContents, PackEntry, PackIndex, finish
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


def damaged_forms(data: bytes) -> Iterator[bytes]:
    """An object whose trailer or index has a flipped bit, or that was cut short."""
    for at in (len(data) - 10, len(data) - 70):
        damaged = bytearray(data)
        damaged[at] ^= 1
        yield bytes(damaged)
    yield data[:-1]
    yield b""


def test_a_damaged_index_costs_nothing_where_a_manifest_says_the_same(
    store: DirectoryStore,
) -> None:
    """A writer that closed has summed up what it wrote: another machine gets every key back."""
    for stat in list(store.list("objects/")):
        data, _ = store.get(stat.name)
        for form in damaged_forms(data):
            store.put(stat.name, [form])
            reader = opened(store)
            assert 501 == reader.usage().keys
            assert [] == reader.damage
            reader.close()
        store.put(stat.name, [data])


def test_a_damaged_index_is_named_and_the_rest_is_adopted(store: DirectoryStore) -> None:
    """One object of thousands must not make a bucket unadoptable, and must not go unsaid."""
    for stat in list(store.list("manifests/")):
        store.delete(stat.name)
    for stat in list(store.list("objects/")):
        data, _ = store.get(stat.name)
        for form in damaged_forms(data):
            store.put(stat.name, [form])
            reader = opened(store)
            assert reader.usage().keys in (1, 500)
            assert [stat.name] == [damage.name for damage in reader.damage]
            [problem] = reader.check()
            assert stat.name in problem.what
            reader.close()
        store.put(stat.name, [data])
    opened(store).close()


def test_a_damaged_manifest_is_named_and_its_objects_are_read_one_by_one(
    store: DirectoryStore,
) -> None:
    """It only sums up what the objects say themselves."""
    [manifest] = store.list("manifests/")
    store.put(manifest.name, [b"garbage"])
    reader = opened(store)
    assert 501 == reader.usage().keys
    assert [manifest.name] == [damage.name for damage in reader.damage]
    reader.close()


def test_a_damaged_list_of_pins_keeps_everything(store: DirectoryStore, tmp_path: Path) -> None:
    """Which objects a snapshot protects is unknown then, so that none may be unlinked."""
    backend = BucketBackend(store, directory=tmp_path / "home")
    found = backend.lookup("large")
    assert found is not None
    backend.protect(found.place, holder="snapshot")
    backend.close()
    [pins] = store.list("pins/")
    store.put(pins.name, [b"garbage"])
    fresh = BucketBackend(store, directory=tmp_path / "fresh")
    fresh.clear(10_000, purge=True)
    assert bytes(300_000) == bytes(fresh.read(found))
    assert [pins.name] == [damage.name for damage in fresh.damage]
    fresh.check(repair=True)
    assert [] == fresh.damage
    fresh.reclaim(grace_seconds=0)
    with pytest.raises(CorruptDataError, match="there is none"):
        fresh.read(found)
    fresh.close()


@pytest.mark.parametrize(("offset", "length"), [(0, 10**15), (10**15, 1), (-5, 10), (0, -1)])
def test_an_index_cannot_name_a_place_outside_of_its_object(
    store: DirectoryStore, offset: int, length: int
) -> None:
    """A reader would allocate a declared petabyte."""
    contents = PackContents([PackEntry(offset, length, record("evil", 9999))])
    store.put(object_name(new_token()), [finish(PackIndex("s", 1, 99, 0.0, contents), 0)])
    reader = opened(store)
    [damage] = reader.damage
    assert "key 'evil' is outside of it" in damage.what
    assert (501, None) == (reader.usage().keys, reader.lookup("evil"))
    reader.close()


def test_an_index_of_another_shape_is_refused(store: DirectoryStore) -> None:
    """Checksums say that it is what was written, not that it was written by us."""
    import zlib

    import xxhash

    honest = finish(PackIndex("s", 1, 99, 0.0), 0)
    raw = b"\x93\x01\x02\x03"
    body = zlib.compress(raw)
    trailer = bytearray(honest[-64:])
    trailer[16:24] = len(body).to_bytes(8, "little")
    trailer[24:32] = len(raw).to_bytes(8, "little")
    trailer[32:48] = xxhash.xxh3_128_digest(body)
    trailer[-8:] = xxhash.xxh3_64_intdigest(bytes(trailer[:-8])).to_bytes(8, "little")
    store.put(object_name(new_token()), [body, trailer])
    reader = opened(store)
    [damage] = reader.damage
    assert "malformed" in damage.what
    assert 501 == reader.usage().keys
    reader.close()


def test_foreign_objects_under_the_prefix_are_left_alone(store: DirectoryStore) -> None:
    """A readme of the user is not an archive object, and is left alone."""
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
    reader = opened(store)
    assert 501 == reader.usage().keys
    assert ["lock/writer"] == [damage.name for damage in reader.damage]
    reader.close()
    heir = BucketBackend(store, directory=tmp_path / "home", takeover=True)
    heir.write(record("more", 1000), frame(b"x"))
    heir.close()
    assert [] == opened(store).damage
