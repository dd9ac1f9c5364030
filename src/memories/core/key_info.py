"""Says what is known of a key without reading its value: sizes, codec, terms, times."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from memories.core.services import Services
from memories.engine.payload import SIZED, Payload
from memories.foundation.host_limits import ENTRY_BYTES
from memories.model.entry import Entry
from memories.model.tiers import TierName
from memories.options.metadata import unpack


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyInfo:
    """What is known of a key without reading its value.

    All times are seconds since the epoch.

    Attributes:
        codec: The name of the codec of the value: `"bytes"`, `"ndarray"`, `"pandas.frame"`.
        version: Its version, for `if_version=`.
        nbytes: The length of bytes, of a text in UTF-8, or of an array; None for other values. It
            is the same in every tier.
        size: Bytes that the value takes in RAM, as the budgets count them.
        stored: Bytes that its durable copy takes on the disk or in the bucket; None if there is
            none.
        durable: Whether this version survives the process.
        stored_at: When it was stored.
        read_at: About when it was last read, as far as this process knows: reads of values in RAM
            are recorded, and forgotten when they leave it. None if no read is known.
        hits: Reads since it came into RAM; 0 for a key at rest.
        expires_at: When it expires; None for never.
        metadata: The metadata it was stored with.
        pinned: Whether it may neither be moved nor evicted.
        min_tier: The fastest tier that may hold it; None for any.
        max_tier: The slowest tier that may hold it; None for any.
        evictable: Whether it may be dropped for room.
    """

    key: str
    tier: TierName
    codec: str
    version: int
    nbytes: int | None
    size: int
    stored: int | None
    durable: bool
    stored_at: float
    read_at: float | None
    hits: int
    expires_at: float | None
    metadata: dict[str, Any]
    pinned: bool
    min_tier: TierName | None
    max_tier: TierName | None
    evictable: bool


def key_info(services: Services, key: str) -> KeyInfo:
    """Return what is known of `key`; KeyNotFoundError if it is in no tier."""
    hierarchy = services.hierarchy
    hierarchy.catalog.credit_front_hits()
    found = hierarchy.lookup(key)
    record = hierarchy.catalog.record_under(found)
    if record is not None and record.version != found.version:
        record = None  # It was stored anew in between.
    hits, read_at = 0, None
    if isinstance(found, Entry):
        payload = Payload.of_entry(found)
        codec, nbytes, hits = payload.codec, payload.content_bytes, found.hits
        if hits:
            at = hierarchy.tiers[found.tier].hit_clock.time_of(found.stamp)
            ago = max(0.0, services.clock.monotonic() - at)
            read_at = max(found.stored_at, services.clock.wall() - ago)
    else:
        codec = found.kind
        nbytes = found.size - ENTRY_BYTES if codec in SIZED else None
    terms = found.terms
    return KeyInfo(
        key=key,
        tier=found.tier,
        codec=codec,
        version=found.version,
        nbytes=nbytes,
        size=found.size,
        stored=None if record is None else record.stored,
        durable=record is not None and not hierarchy.catalog.journal.is_pending(key),
        stored_at=found.stored_at,
        read_at=read_at,
        hits=int(hits),
        expires_at=terms.expires_at,
        metadata=unpack(terms.metadata),
        pinned=terms.pinned,
        min_tier=terms.min_tier,
        max_tier=terms.max_tier,
        evictable=terms.evictable,
    )
