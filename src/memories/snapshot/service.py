"""Snapshots of a hierarchy: everything as of one instant into a file, and back from it.

Knows the container as a list of records and frames, and the hierarchy as tiers and a catalog.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from heapq import merge

import msgspec

from memories.catalog import Instant
from memories.entry import Cause, Entry, Record, TierName
from memories.errors import TierFullError
from memories.hierarchy import Hierarchy
from memories.parcel import Parcel
from memories.snapshot.container import Item, create
from memories.snapshot.reader import SnapshotFile, open_snapshot
from memories.tier import version_of

RESIDENT_BYTES = 10**9  # What a restore brings back into RAM before it returns.
ARRAY = "ndarray"


def create_snapshot(hierarchy: Hierarchy, path: str | os.PathLike[str]) -> None:
    """Write every key of every tier, as of one instant, into one file at `path`.

    Raises:
        StorageError: the file cannot be written; what was at `path` stays.
    """
    with hierarchy.catalog.instant() as instant:
        create(path, _items(hierarchy, instant), sequence=instant.version)


def restore_snapshot(hierarchy: Hierarchy, path: str | os.PathLike[str]) -> None:
    """Replace everything by what the file holds; each value returns to the tier it had.

    Up to 1 GB is back in RAM when this returns, the rest is read from the adopted file when it is
    used. The caller may delete the file afterwards.

    Raises:
        StorageError: there is no such file.
        CorruptDataError: it is damaged or no snapshot; nothing has changed.
    """
    with open_snapshot(path) as file:
        file.verify()
        hierarchy.clear()
        homes = _adopt(hierarchy, file)
    _return_home(hierarchy, homes)


def _items(hierarchy: Hierarchy, instant: Instant) -> Iterator[Item]:
    """Yield every key once, in key order; an entry stands for its backing copy."""
    entries = sorted(instant.entries, key=_key)
    latest = None
    for found in merge(entries, instant.records, key=_key):
        if found.key == latest:
            continue
        latest = found.key
        parcel = hierarchy.tiers[found.tier].load(found)
        record = _record_of(found, parcel) if isinstance(found, Entry) else found
        yield Item(record, _segments(hierarchy, parcel, found), _is_npy(parcel))


def _key(found: Entry | Record) -> bytes:
    return found.key.encode()


def _segments(
    hierarchy: Hierarchy, parcel: Parcel, found: Entry | Record
) -> Callable[[], list[memoryview]]:
    """Return what packs the frame when its turn comes; frames at rest are copied as they are."""

    def segments() -> list[memoryview]:
        frame = parcel.framed(
            key=found.key, version=found.version, compression="none", trust=hierarchy.trust
        )
        return list(frame.payload.segments)

    return segments


def _record_of(entry: Entry, parcel: Parcel) -> Record:
    return Record(
        key=entry.key,
        version=entry.version,
        tier=entry.tier,
        size=entry.size,
        stored_at=entry.stored_at,
        kind=parcel.codec,
        terms=entry.terms,
    )


def _adopt(hierarchy: Hierarchy, file: SnapshotFile) -> list[tuple[Record, TierName]]:
    items, homes = [], []
    for record, offset, length in file.items():
        version = hierarchy.catalog.next_version()
        adopted = msgspec.structs.replace(
            record, version=version, tier=TierName.COLD, place=b"", archived=b"", stored=length
        )
        items.append((adopted, offset, length))
        homes.append((adopted, record.tier))
    hierarchy.catalog.journal.adopt(file.path, items)
    return homes


def _return_home(hierarchy: Hierarchy, homes: list[tuple[Record, TierName]]) -> None:
    resident = 0
    for record, home in homes:
        if home.durable or resident + record.size > RESIDENT_BYTES:
            continue
        found = hierarchy.catalog.find(record.key)
        if found is None or version_of(found).number != record.version:
            continue
        try:
            if hierarchy.try_move(found, home, Cause.RESTORED):
                resident += record.size
        except TierFullError:
            # Smaller tiers than the snapshot's: the value stays a tier below, where it is safe.
            continue
