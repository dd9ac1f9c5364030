"""The content of a snapshot: every key once, in key order, as of one instant.

Nothing is changed. Stored values are immutable versions, so those of the instant can be read later,
while writers go on.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from operator import attrgetter

import msgspec

from memories.engine.catalog import Instant
from memories.engine.hierarchy import Hierarchy
from memories.engine.payload import Payload
from memories.frames.fast_path import is_intact
from memories.frames.head import read_head
from memories.frames.reader import OpenFrame
from memories.frames.writer import pack, pack_whole
from memories.model.entry import Entry
from memories.model.record import Record
from memories.model.tiers import TierName
from memories.snapshot.manifest import Linked, Reference, SnapshotRow
from memories.snapshot.writer import SMALL_BYTES, Item, Segments, SmallItems

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


def newest(instant: Instant, prefix: str) -> Iterator[list[EntryOrRecord]]:
    """Yield what stood for each key, in key order and in batches.

    While a key moves or is overwritten it has both an entry and a record; the newest one counts,
    and of two with one version the entry, which lies in RAM.
    """
    entries = sorted((e for e in instant.entries if e.key.startswith(prefix)), key=_key_of)
    records, at = instant.records.scan(prefix), 0
    while batch := list(islice(records, _BATCH)):
        end = bisect_right(entries, batch[-1].key, at, key=_key_of)
        if end == at:
            yield [*batch]
        else:
            yield from _slices(_newest_of(batch, entries[at:end]))
            at = end
    yield from _slices(entries[at:])


def _newest_of(records: list[Record], entries: list[Entry]) -> list[EntryOrRecord]:
    found: list[EntryOrRecord] = []
    both: list[EntryOrRecord] = [*records, *entries]
    both.sort(key=_key_of)  # Of two with one key the entry stays the second.
    for one in both:
        if not found or found[-1].key != one.key:
            found.append(one)
        elif one.version >= found[-1].version:
            found[-1] = one
    return found


def _slices(found: Sequence[EntryOrRecord]) -> Iterator[list[EntryOrRecord]]:
    for start in range(0, len(found), _BATCH):
        yield [*found[start : start + _BATCH]]


def capture(
    hierarchy: Hierarchy,
    instant: Instant,
    selection: Selection,
    unchanged: Callable[[EntryOrRecord], Linked | None] | None,
    refer: Callable[[Record], bytes],
) -> Iterator[Item | SmallItems]:
    """Yield the items of a snapshot, small values many at once.

    `unchanged` says where an earlier snapshot holds the very same version; it is None if there is
    none. `refer` is called with each record of glacier that is referred to, and returns the place
    of its frame.

    Raises:
        CorruptDataError: a value at rest is damaged; the message names its key.
    """
    now = hierarchy.clock.wall()
    for batch in newest(instant, selection.prefix):
        chosen = [found for found in batch if selection.takes(found, now)]
        links = dict[str, Linked]()
        if unchanged is not None:
            links = {f.key: link for f in chosen if (link := unchanged(f)) is not None}
        at_rest = {} if selection.portable else _small_frames(hierarchy, chosen, links)
        small = SmallItems([], [])
        for found in chosen:
            frame = at_rest.get(found.key)
            if frame is not None and isinstance(found, Record):
                small.records.append(found)
                small.frames.append(frame)
                continue
            if isinstance(found, Entry) and found.key not in links:
                item = _in_ram(hierarchy, found, small)
                if item is None:
                    continue
            else:
                item = _large_item(hierarchy, found, links.get(found.key), selection, refer)
            if small.records:
                yield small
                small = SmallItems([], [])
            yield item
        if small.records:
            yield small


def _in_ram(hierarchy: Hierarchy, entry: Entry, small: SmallItems) -> Item | None:
    """Add a small value in RAM to `small`; return the item of a larger one."""
    parts = Payload.of_entry(entry).parts(hierarchy.trust)
    record = _record(entry, parts.codec)
    whole = pack_whole(parts, key=entry.key, version=entry.version)
    if whole is None:
        frame = pack(parts, key=entry.key, version=entry.version, signer=hierarchy.trust)
        if frame.nbytes >= SMALL_BYTES:
            return Item(record, frame.segments)
        whole = frame.join()
    elif len(whole) >= SMALL_BYTES:
        return Item(record, _split(whole))
    small.records.append(record)
    small.frames.append(whole)
    return None


def _split(frame: bytes) -> Segments:
    """Return a frame as its head and its body."""
    head_bytes = read_head(memoryview(frame)).nbytes
    return [memoryview(frame)[:head_bytes], memoryview(frame)[head_bytes:]]


def _large_item(
    hierarchy: Hierarchy,
    found: EntryOrRecord,
    link: Linked | None,
    selection: Selection,
    refer: Callable[[Record], bytes],
) -> Item:
    """Return the item of what is linked, in the archive, or not known to be a small frame."""
    if link is not None:
        return Item(_record_of(hierarchy, found), link)
    assert isinstance(found, Record), "an entry in RAM is packed"
    if selection.reference_glacier and found.tier is TierName.GLACIER:
        return Item(found, Reference(refer(found), found.stored))
    frame = hierarchy.durable(found.tier).read(found).whole
    return Item(found, _at_rest(hierarchy, frame, selection))


def _small_frames(
    hierarchy: Hierarchy, batch: list[EntryOrRecord], links: Mapping[str, Linked]
) -> dict[str, memoryview]:
    """Return the frames of small values at rest in cold, by key: read together, and all sound."""
    records = [
        found
        for found in batch
        if isinstance(found, Record)
        and found.stored < SMALL_BYTES
        and found.tier is TierName.COLD
        and found.key not in links
    ]
    if not records:
        return {}
    frames = zip(records, hierarchy.catalog.journal.read_many(records), strict=True)
    return {record.key: frame for record, frame in frames if is_intact(frame, record.key)}


def same(row: SnapshotRow, found: EntryOrRecord) -> bool:
    """Return whether `row` holds the very version that `found` stands for.

    Versions alone do not tell: two stores number independently, and numbers that never became
    durable are given again after a crash. The moment of the commit tells them apart.
    """
    return (row.version, row.stored_at) == (found.version, found.stored_at)


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
