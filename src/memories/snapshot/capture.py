"""The content of a snapshot: every key once, in key order, as of one instant.

Nothing is changed. Stored values are immutable versions, so those of the instant can be read later,
while writers go on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from operator import attrgetter

import msgspec

from memories.engine.catalog import Instant
from memories.engine.hierarchy import Hierarchy
from memories.engine.payload import Payload
from memories.frames.fast_path import is_intact
from memories.frames.reader import OpenFrame
from memories.frames.writer import pack
from memories.model.entry import Entry
from memories.model.record import Record
from memories.model.tiers import TierName
from memories.snapshot.manifest import Linked, Reference, SnapshotRow
from memories.snapshot.writer import SMALL_BYTES, Item, Segments

EntryOrRecord = Entry | Record
_key_of = attrgetter("key")
_BATCH = 1024  # So many keys are looked up and read together.


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Which keys a snapshot takes, and how it takes them."""

    prefix: str = ""
    tiers: frozenset[TierName] = frozenset(TierName)
    reference_glacier: bool = False
    portable: bool = False

    def takes(self, found: EntryOrRecord, now: float) -> bool:
        """Return whether `found` belongs into the snapshot."""
        ends = found.terms.expires_at
        return found.tier in self.tiers and (ends is None or ends > now)


def newest(instant: Instant, prefix: str) -> Iterator[EntryOrRecord]:
    """Yield what stood for each key, in key order.

    While a key moves or is overwritten it has both an entry and a record; the newest one counts,
    and of two with one version the entry, which lies in RAM.
    """
    entries = sorted((e for e in instant.entries if e.key.startswith(prefix)), key=_key_of)
    records = instant.records.scan(prefix)
    waiting = iter(entries)
    entry = next(waiting, None)
    for record in records:
        while entry is not None and entry.key < record.key:
            yield entry
            entry = next(waiting, None)
        if entry is not None and entry.key == record.key:
            yield entry if entry.version >= record.version else record
            entry = next(waiting, None)
        else:
            yield record
    if entry is not None:
        yield entry
        yield from waiting


def capture(
    hierarchy: Hierarchy,
    instant: Instant,
    selection: Selection,
    unchanged: Callable[[EntryOrRecord], Linked | None],
    refer: Callable[[Record], bytes],
) -> Iterator[Item]:
    """Yield the items of a snapshot.

    `unchanged` says where an earlier snapshot holds the very same version. `refer` is called with
    each record of glacier that is referred to, and returns the place of its frame.

    Raises:
        CorruptDataError: a value at rest is damaged; the message names its key.
    """
    now = hierarchy.clock.wall()
    chosen = (f for f in newest(instant, selection.prefix) if selection.takes(f, now))
    while batch := list(islice(chosen, _BATCH)):
        links = [unchanged(found) for found in batch]
        whole = [found for found, link in zip(batch, links, strict=True) if link is None]
        small = {} if selection.portable else _small_frames(hierarchy, whole)
        for found, link in zip(batch, links, strict=True):
            if link is not None:
                yield Item(_record_of(hierarchy, found), link)
            elif isinstance(found, Entry):
                yield _in_ram(hierarchy, found)
            elif found.key in small:
                yield Item(found, [small[found.key]])
            elif selection.reference_glacier and found.tier is TierName.GLACIER:
                yield Item(found, Reference(refer(found), found.stored))
            else:
                frame = hierarchy.durable(found.tier).read(found).whole
                yield Item(found, _at_rest(hierarchy, frame, selection))


def _small_frames(hierarchy: Hierarchy, batch: list[EntryOrRecord]) -> dict[str, memoryview]:
    """Return the frames of small values at rest in cold, by key: read together, and all sound."""
    records = [
        found
        for found in batch
        if isinstance(found, Record) and found.tier is TierName.COLD and found.stored < SMALL_BYTES
    ]
    frames = zip(records, hierarchy.catalog.journal.read_many(records), strict=True)
    return {record.key: frame for record, frame in frames if is_intact(frame, record.key)}


def same(row: SnapshotRow, found: EntryOrRecord) -> bool:
    """Return whether `row` holds the very version that `found` stands for.

    Versions alone do not tell: two stores number independently, and numbers that never became
    durable are given again after a crash. The moment of the commit tells them apart.
    """
    return (row.version, row.stored_at) == (found.version, found.stored_at)


def _in_ram(hierarchy: Hierarchy, entry: Entry) -> Item:
    parts = Payload.of_entry(entry).parts(hierarchy.trust)
    frame = pack(parts, key=entry.key, version=entry.version, signer=hierarchy.trust)
    return Item(_record(entry, parts.codec), frame.segments)


def _at_rest(hierarchy: Hierarchy, frame: OpenFrame, selection: Selection) -> Segments:
    """Return a verified frame as it lies, or decompressed if it is to be portable."""
    if not selection.portable or frame.signed_by:
        frame.verify()
        return frame.segments
    parts = frame.parts(verifier=hierarchy.trust)
    return pack(parts, key=frame.key, version=frame.version).segments


def _record_of(hierarchy: Hierarchy, found: EntryOrRecord) -> Record:
    if isinstance(found, Record):
        return found
    return _record(found, Payload.of_entry(found).codec)


def _record(entry: Entry, codec: str) -> Record:
    return Record(
        key=entry.key,
        version=entry.version,
        tier=entry.tier,
        size=entry.size,
        stored_at=entry.stored_at,
        kind=codec,
        terms=entry.terms,
    )
