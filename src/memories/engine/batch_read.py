"""Reads many keys at once from durable tiers: neighbours on the disk, or objects in a bucket.

Each value is the one that its key had at some moment of the call. When a batch fails, its keys are
read one by one, which finds keys that have moved and names the fault.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from memories.engine.cold_reader import ManyReads
from memories.errors import UNREADABLE, StorageError, about_key
from memories.model.events import ReadBatch, Retrieved
from memories.model.record import Record
from memories.model.tiers import TierName

if TYPE_CHECKING:
    from memories.engine.hierarchy import Hierarchy

LOCAL_RECORDS = 8192  # Read together from the disk ...
MAX_LOCAL = 64 << 10  # ... if each takes less than this; larger ones gain nothing.
_COLD = TierName.COLD  # To look a member up in its class takes longer.


def read_together(hierarchy: Hierarchy, keys: Iterable[str]) -> dict[str, Any]:
    """Return the values of `keys`, by key and in their order.

    Raises:
        KeyNotFoundError: one is in no tier.
        ArchivedError: one must be restored from its archive class first.
    """
    hierarchy.require_readable()
    values: dict[str, Any] = dict.fromkeys(keys)
    entries, journal = hierarchy.catalog.entries, hierarchy.catalog.journal
    lookup = journal.lookup
    near, others = journal.small_reads.records(values, entries)
    far: dict[TierName, list[Record]] = {}
    for key in others:
        record = lookup(key) if key not in entries else None
        if record is None or (
            record.terms.expires_at is not None and hierarchy.expiry.has_expired(record)
        ):
            values[key] = _read_alone(hierarchy, key)
        elif record.tier is _COLD and record.stored < MAX_LOCAL:
            near.append(record)
        elif hierarchy.durable(record.tier).remote:
            far.setdefault(record.tier, []).append(record)
        else:
            values[key] = _read_alone(hierarchy, key)
    for start in range(0, len(near), LOCAL_RECORDS):
        _read_local(hierarchy, near[start : start + LOCAL_RECORDS], values)
    for name, records in far.items():
        values.update(_read_far(hierarchy, name, records))
    return values


def restore(hierarchy: Hierarchy, keys: Iterable[str], timeout: float) -> None:
    """Make those of `keys` readable that lie in an archive class.

    Raises:
        ArchivedError: they were not all there after `timeout` seconds; the restore goes on.
    """
    asked: dict[TierName, list[Record]] = {}
    for key in keys:
        found = hierarchy.lookup(key)
        if isinstance(found, Record):
            asked.setdefault(found.tier, []).append(found)
    for name, records in asked.items():
        hierarchy.durable(name).backend.restore(records, timeout=timeout)


def _read_alone(hierarchy: Hierarchy, key: str) -> Any:
    try:
        return hierarchy.catalog.entries[key].read()
    except UNREADABLE as error:
        raise about_key(error, key) from error.__cause__
    except KeyError:
        return hierarchy.read(key)


def _read_local(hierarchy: Hierarchy, records: Sequence[Record], values: dict[str, Any]) -> None:
    """Read the values of small records on the disk, in the order in which they lie there."""
    started = hierarchy.clock.monotonic()
    reads = ManyReads(hierarchy.cold_reader, values)
    try:
        done = hierarchy.catalog.journal.use_neighbours(records, reads.use, False)
    except OSError:
        done = [False] * len(records)
        reads.done.clear()
    if len(reads.done) < len(records):
        for record, entered in zip(records, done, strict=True):
            if not entered:
                values[record.key] = hierarchy.read(record.key)
    if not reads.done:
        return
    now = hierarchy.clock.monotonic()
    hierarchy.events.emit_reads(ReadBatch(reads.done, now, _COLD, (now - started) / len(records)))


def _read_far(hierarchy: Hierarchy, name: TierName, records: Sequence[Record]) -> dict[str, Any]:
    started = hierarchy.clock.monotonic()
    try:
        payloads = hierarchy.durable(name).read_many(records)
        values = {
            record.key: payload.open(hierarchy.trust, verify=not hierarchy.verified.knows(record))
            for record, payload in zip(records, payloads, strict=True)
        }
    except (*UNREADABLE, StorageError):  # Read one by one, the damaged one names itself.
        return {record.key: hierarchy.read(record.key) for record in records}
    now = hierarchy.clock.monotonic()
    for record in records:
        hierarchy.verified.add(record)
        hierarchy.events.emit_soon(
            Retrieved(record.key, now, name, record.size, now - started, record)
        )
    return values
