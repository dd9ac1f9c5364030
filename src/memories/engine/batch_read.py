"""Reads many keys at once from tiers that are so far away that one request for all is faster.

Each value is the one that its key had at some moment of the call. When a batch fails, its keys are
read one by one, which finds keys that have moved and names the fault.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from memories.engine.hierarchy import Hierarchy
from memories.errors import UNREADABLE, StorageError, about_key
from memories.model.events import Retrieved
from memories.model.record import Record
from memories.model.tiers import TierName


def read_together(hierarchy: Hierarchy, keys: Iterable[str]) -> dict[str, Any]:
    """Return the values of `keys`, by key and in their order.

    Raises:
        KeyNotFoundError: one is in no tier.
        ArchivedError: one must be restored from its archive class first.
    """
    values: dict[str, Any] = dict.fromkeys(keys)
    far: dict[TierName, list[Record]] = {}
    for key in values:
        record = _far_record(hierarchy, key)
        if record is None:
            values[key] = _read_near(hierarchy, key)
        else:
            far.setdefault(record.tier, []).append(record)
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


def _far_record(hierarchy: Hierarchy, key: str) -> Record | None:
    found = None if key in hierarchy.catalog.entries else hierarchy.lookup(key)
    if isinstance(found, Record) and hierarchy.durable(found.tier).remote:
        return found
    return None


def _read_near(hierarchy: Hierarchy, key: str) -> Any:
    try:
        return hierarchy.catalog.entries[key].read()
    except UNREADABLE as error:
        raise about_key(error, key) from error.__cause__
    except KeyError:
        return hierarchy.read(key)


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
        hierarchy.events.emit_read(
            Retrieved(record.key, now, name, record.size, now - started, record)
        )
    return values
