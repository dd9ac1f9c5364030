"""Reads the map from the bucket, which describes itself.

What cannot be read is recorded as damage, by name, and the rest goes on. A value whose object is
missing stays in the map, so that a read of it raises an error instead of finding no key. A few
requests suffice for many values: one listing per thousand objects, one read per manifest or pack.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from memories.backends.bucket.damage import aside, read_aside, record_damage, unread
from memories.backends.bucket.local_db import LocalDb
from memories.backends.bucket.location import is_manifest, token_of
from memories.backends.bucket.object_index import ObjectIndex
from memories.backends.bucket.objectstore import Absent, ObjectStore, Stat
from memories.backends.bucket.pack import (
    TRAILER_BYTES,
    PackContents,
    PackIndex,
    read_index,
    read_trailer,
)
from memories.backends.bucket.parallel_download import ParallelDownload
from memories.backends.bucket.retention import load_pins
from memories.backends.bucket.seal import ArchiveSeal
from memories.errors import CorruptDataError

_TAIL_BYTES = 16 * 1024  # Holds the whole index of an object with few values.
_ATTEMPTS = 4  # Readings of a bucket whose writer moves values meanwhile.
_MOST_NUMBER = (1 << 63) - 1
_MANY = 1000  # New objects from which on reading everything, by manifests, is quicker.


class FoundObject(NamedTuple):
    """An object of the bucket and what it says."""

    token: bytes
    epoch: int
    sequence: int
    size: int
    contents: PackContents
    manifest: bytes | None


class IndexResult(NamedTuple):
    """An object, and its index or why there is none."""

    stat: Stat
    content: PackIndex | None
    what: str


class _GoneError(Exception):
    """An object went between the listing and its reading."""


@dataclass(frozen=True, slots=True)
class BucketParts:
    """The parts of an open bucket: its downloads, its store, and the local map of its objects."""

    downloads: ParallelDownload
    store: ObjectStore
    db: LocalDb
    index: ObjectIndex


def adopt(bucket: BucketParts, begins: Mapping[int, int], now: float) -> list[str]:
    """Replace the map by everything that the bucket holds; what is staged stays staged.

    Damage is noted in the map (`damage.py`). Returned are the keys whose objects are missing.

    Raises:
        UnavailableError: the store did not answer.
    """
    for attempt in range(_ATTEMPTS):
        try:
            with bucket.db.transaction():
                _forget(bucket.db)
                missing = _read_bucket(bucket, begins, now, patient=attempt + 1 < _ATTEMPTS)
                bucket.db.set("adopted", 1)
            return missing
        except _GoneError:
            continue
    raise AssertionError("the last attempt returns or raises")


def catch_up(bucket: BucketParts, begins: Mapping[int, int], now: float) -> bool:
    """Take in what was added to the bucket since, and return whether the map has changed."""
    sizes = {stat.name: stat.size for stat in bucket.store.list("objects/")}
    known = {t for (t,) in bucket.db.rows("SELECT token FROM object WHERE status = 'there'")}
    listed = {token: name for name in sizes if (token := token_of(name)) is not None}
    fresh, gone = listed.keys() - known - unread(bucket.db), known - listed.keys()
    if len(fresh) > _MANY:
        adopt(bucket, begins, now)
        return True
    if not fresh and not gone:
        return False
    stats = [Stat(listed[token], sizes[listed[token]], 0.0) for token in fresh]
    try:
        looked = list(fetch_indexes(bucket, stats, patient=True))
    except _GoneError:
        adopt(bucket, begins, now)
        return True
    with bucket.db.transaction() as db:
        _add_objects(bucket, looked, begins, now)
        bucket.index.recompute(now)
        for token in gone:
            # What is still live there was not moved by the writer: it is missing, not gone.
            if db.row("SELECT 1 FROM object WHERE token = ? AND live = 0", token):
                db.run("DELETE FROM entry WHERE token = ?", token)
                db.run("DELETE FROM object WHERE token = ?", token)
        bucket.index.recompute(now)
    return True


def _forget(db: LocalDb) -> None:
    there = "SELECT token FROM object WHERE status IN ('there', 'leaving')"
    db.run(f"DELETE FROM entry WHERE token IN ({there})")
    db.run("DELETE FROM object WHERE status IN ('there', 'leaving')")
    db.run("DELETE FROM pin")
    db.run("DELETE FROM damage WHERE name NOT LIKE 'lock/%'")  # That one is not read here.


def _read_bucket(
    bucket: BucketParts, begins: Mapping[int, int], now: float, *, patient: bool
) -> list[str]:
    store, db = bucket.store, bucket.db
    read_aside(store, db)
    ignored = unread(db)
    covered: set[bytes] = set()
    sizes = {stat.name: stat.size for stat in store.list("objects/")}
    passed = aside(db)
    manifests = [
        stat
        for stat in store.list("manifests/")
        if stat.name not in passed and is_manifest(stat.name)
    ]
    for manifest, index, what in fetch_indexes(bucket, manifests, patient=patient):
        name = bytes.fromhex(manifest.name.rpartition("/")[2])
        if index is None:
            record_damage(db, manifest.name, f"{what}; its objects were read one by one")
            continue
        for token, (epoch, sequence, size, contents) in index.covers.items():
            object_ = f"objects/{token.hex()}"
            if object_ in sizes or index.exact:
                covered.add(token)
                found = FoundObject(token, epoch, sequence, size, contents, name)
                _add_object(bucket, begins, now, found)
    rest = [
        Stat(name, size, 0.0)
        for name, size in sizes.items()
        if (ours := token_of(name)) is not None and ours not in covered and ours not in ignored
    ]
    _add_objects(bucket, fetch_indexes(bucket, rest, patient=patient), begins, now)
    load_pins(store, db)
    bucket.index.recompute(now)
    missing = []
    for token, live in db.rows("SELECT token, live FROM object WHERE status = 'there'"):
        if f"objects/{token.hex()}" in sizes:
            continue
        missing += [item.record.key for item in bucket.index.contents(token).stored]
        if live == 0:
            db.run("DELETE FROM entry WHERE token = ?", token)
            db.run("DELETE FROM object WHERE token = ?", token)
    bucket.index.recompute(now)
    return sorted(missing)


def _add_objects(
    bucket: BucketParts, looked: Iterable[IndexResult], begins: Mapping[int, int], now: float
) -> None:
    for stat, index, what in looked:
        if index is None:
            record_damage(bucket.db, stat.name, what)
            continue
        token = bytes.fromhex(stat.name.rpartition("/")[2])
        found = FoundObject(token, index.epoch, index.sequence, stat.size, index.contents, None)
        _add_object(bucket, begins, now, found)


def _add_object(
    bucket: BucketParts, begins: Mapping[int, int], now: float, found: FoundObject
) -> None:
    if any(e > found.epoch and found.sequence >= first for e, first in begins.items()):
        return  # Written by a store that was the writer no more.
    if not _is_storable(found):
        what = "it has numbers that no object of ours has"
        record_damage(bucket.db, f"objects/{found.token.hex()}", what)
        return
    for item in found.contents.stored:
        if item.offset < 0 or item.length < 0 or item.offset + item.length > found.size:
            what = f"it says that key {item.record.key!r} is outside of it"
            record_damage(bucket.db, f"objects/{found.token.hex()}", what)
            return
    db = bucket.db
    db.run(
        "INSERT OR IGNORE INTO object VALUES (?, ?, ?, ?, 0, 'there', ?, ?, ?)",
        found.token, found.epoch, found.sequence, found.size, now, now, found.manifest,
    )  # fmt: skip
    db.set("sequence", max(found.sequence, db.number("sequence")))
    bucket.index.load(found.token, found.contents)


def _is_storable(found: FoundObject) -> bool:
    """Return whether all numbers of an object are such as the map can hold."""
    contents = found.contents
    versions = [item.record.version for item in contents.stored]
    versions += [version for _, version in contents.removed]
    versions += [record.version for record in contents.linked]
    numbers = (found.epoch, found.sequence, found.size, *versions)
    return all(0 <= number <= _MOST_NUMBER for number in numbers)


def fetch_indexes(
    bucket: BucketParts, stats: Iterable[Stat], *, patient: bool
) -> Iterable[IndexResult]:
    """Read the index of each object; with `patient`, raise _GoneError if one is there no more."""

    def look(stat: Stat) -> IndexResult:
        try:
            return IndexResult(stat, fetch_index(bucket.store, stat, bucket.db.seal), "")
        except CorruptDataError as error:
            return IndexResult(stat, None, str(error))
        except Absent:
            if patient:
                raise _GoneError from None
            return IndexResult(stat, None, "it was deleted while the archive was being read")

    return bucket.downloads.map(look, stats)


def fetch_index(store: ObjectStore, stat: Stat, seal: ArchiveSeal | None) -> PackIndex:
    """Return the index of one object, by one ranged request, or two where it is long.

    Raises:
        CorruptDataError: it is damaged, or is not ours.
    """
    begin = max(0, stat.size - _TAIL_BYTES)
    tail = bytes(store.get_range(stat.name, begin, stat.size - begin))
    trailer = read_trailer(tail, stat.size, stat.name)
    if trailer.offset >= begin:
        stored = tail[trailer.offset - begin : -TRAILER_BYTES]
    else:
        stored = bytes(store.get_range(stat.name, trailer.offset, trailer.stored))
    return read_index(stored, trailer, stat.name, seal)
