"""Why a key is where it is, in facts and in a sentence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from memories.core.lifecycle import Engine
from memories.foundation.units import format_size
from memories.model.entry import Entry
from memories.model.events import Moved
from memories.model.record import Record
from memories.model.tiers import TierName
from memories.options.metadata import unpack

HALF_LIFE_SECONDS = 60.0  # Of heat.
_LENT = "It is volatile until the snapshot that it came from is copied into the store. "


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Where a key is and why; `str()` of it is one paragraph.

    Attributes:
        size: Bytes it takes in its tier.
        hits: Reads since it came into RAM; None for a key at rest, which is not counted.
        idle_seconds: Since the latest read; None for a key at rest.
        heat: Its reads, counting half for every minute since the latest; 0 for a key at rest.
        durable: Whether this version survives the process.
        metadata: What was said of it, as it was said; `Unknown` where a class is not imported.
        moves: Its latest moves, oldest first.
        next: What will move it next.
    """

    key: str
    tier: TierName
    version: int
    size: int
    hits: int | None
    idle_seconds: float | None
    heat: float
    durable: bool
    pinned: bool
    metadata: dict[str, Any]
    moves: list[Moved]
    next: str

    def __str__(self) -> str:
        came = "it was stored there"
        if self.moves:
            latest = self.moves[-1]
            came = f"it came from {latest.source} ({latest.cause})"
        reads = "" if self.hits is None else f", read {self.hits} times"
        idle = (
            ""
            if self.idle_seconds is None
            else f", idle for {self.idle_seconds:.1f} s, heat {self.heat:.1f}"
        )
        durable = "durable" if self.durable else "not durable yet"
        return (
            f"{self.key!r} is in {self.tier}: {came}. Version {self.version}, "
            f"{format_size(self.size)}{reads}{idle}, {durable}. {self.next}"
        )


def explain(engine: Engine, key: str) -> Explanation:
    """Return what is known of `key`; KeyNotFoundError if it is in no tier."""
    engine.hierarchy.catalog.credit()
    found = engine.hierarchy.find(key)
    hits = idle_seconds = None
    heat = 0.0
    if isinstance(found, Entry):
        accessed_at = engine.hierarchy.tiers[found.tier].hit_clock.time_of(found.stamp)
        hits, idle_seconds = found.hits, max(0.0, engine.clock.monotonic() - accessed_at)
        heat = hits * 0.5 ** (idle_seconds / HALF_LIFE_SECONDS)
    lent = engine.hierarchy.catalog.journal.is_lent(key)
    return Explanation(
        key=key,
        tier=found.tier,
        version=found.version,
        size=found.size,
        hits=hits,
        idle_seconds=idle_seconds,
        heat=heat,
        durable=not lent and (not isinstance(found, Entry) or found.backed is not None),
        pinned=found.terms.pinned,
        metadata=unpack(found.terms.metadata),
        moves=engine.history.moves(key),
        next=(_LENT if lent else "") + _next_move(engine, found),
    )


def _next_move(engine: Engine, found: Entry | Record) -> str:
    ends = found.terms.expires_at
    expiry = ""
    if ends is not None:
        expiry = f" It expires in {max(0.0, ends - engine.clock.wall()):.0f} s."
    return _next_tier(engine, found) + expiry


def _next_tier(engine: Engine, found: Entry | Record) -> str:
    if found.terms.pinned:
        return "It is pinned: nothing moves it but you."
    if engine.migrator is None:
        return "Migration is off: it moves when its tier needs room, or when you say so."
    if found.tier is TierName.HOT and isinstance(found, Entry):
        limit = engine.migrator.planner.limits.limit(found.hits, found.key)
        return f"It moves to warm after {limit:.0f} s without a read, or when hot needs room."
    if found.tier is TierName.WARM:
        return "A read moves it to hot if there is room; it moves to cold when warm needs room."
    up = "cold" if found.tier is TierName.GLACIER else "warm"
    return f"A read moves it to {up} if there is room, a second one even if there is none."
