"""Describes, in facts and in sentences, where a key is and why, and the state of a manager."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from memories.core.services import Services
from memories.engine.hierarchy import Hierarchy
from memories.engine.lifecycle_state import LifecycleState
from memories.foundation.units import format_size, limit_words
from memories.model.entry import Entry
from memories.model.events import Moved
from memories.model.record import Record
from memories.model.tiers import TierName
from memories.options.metadata import unpack

HALF_LIFE_SECONDS = 60.0  # Of heat.
_BORROWED = "It is volatile until the snapshot it came from has been copied into the store. "


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Where a key is and why; `str()` of it is one paragraph.

    Attributes:
        size: Bytes it takes in its tier.
        hits: Reads since it came into RAM; None for a key at rest, which is not counted.
        idle_seconds: Since the latest read; None for a key at rest.
        heat: Its reads, counting half for every minute since the latest; 0 for a key at rest.
        durable: Whether this version survives the process.
        metadata: The metadata it was stored with; `Unknown` for a value whose class is not
            imported.
        moves: Its latest moves, oldest first.
        came: How it came there, in words.
        next: What will move it next, in words.
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
    came: str
    next: str

    def __str__(self) -> str:
        reads = "" if self.hits is None else f", read {self.hits} times"
        idle = (
            ""
            if self.idle_seconds is None
            else f", idle for {self.idle_seconds:.1f} s, heat {self.heat:.1f}"
        )
        durable = "durable" if self.durable else "not durable yet"
        return (
            f"{self.key!r} is in {self.tier}: {self.came}. Version {self.version}, "
            f"{format_size(self.size)}{reads}{idle}, {durable}. {self.next}"
        )


def explanation_document(found: Explanation) -> dict[str, Any]:
    """Return an explanation as plain data, its sentence as `text`."""
    return {**asdict(found), "text": str(found)}


def describe(services: Services, name: str = "MemoryManager", cluster: str = "") -> str:
    """Return the state of a manager in one line: its class, tiers, and `cluster` in words."""
    hierarchy = services.hierarchy
    if hierarchy.state is LifecycleState.CLOSED:
        return f"<{name} closed>"
    hierarchy.settlement.settle()  # What was removed a moment ago is still charged.
    tiers = ", ".join(
        f"{tier_name} {format_size(tier.budget.used)} of {limit_words(tier.budget.configured)}"
        f" [{services.media[tier_name]}]"
        for tier_name, tier in hierarchy.tiers.items()
    )
    state = "" if hierarchy.state is LifecycleState.OPEN else f" {hierarchy.state.value}"
    stats, keys = services.telemetry.stats(), len(hierarchy)
    rate = (
        f"hit rate {stats.hit_rate_percent:.0f} % of {stats.reads} reads"
        if stats.reads
        else "no reads"
    )
    latest = services.move_log.latest
    move = f"; last move {latest[-1].key[:60]!r} to {latest[-1].target}" if latest else ""
    nodes = f"; {cluster}" if cluster else ""
    return f"<{name}{state}: {keys} keys; {tiers}{nodes}; {rate}{move}>"


def usage_percent(hierarchy: Hierarchy) -> dict[str, float]:
    """Return how full each tier is, in percent of its configured size; 0 for a disabled one."""
    hierarchy.settlement.settle()  # What was removed a moment ago is still charged.
    percent = {str(name): 0.0 for name in TierName}
    for name, tier in hierarchy.tiers.items():
        if tier.budget.configured:
            percent[name] = 100.0 * tier.budget.used / tier.budget.configured
    return percent


def explain(services: Services, key: str) -> Explanation:
    """Return what is known of `key`; KeyNotFoundError if it is in no tier."""
    services.hierarchy.catalog.credit_front_hits()
    found = services.hierarchy.lookup(key)
    hits = idle_seconds = None
    heat = 0.0
    if isinstance(found, Entry):
        accessed_at = services.hierarchy.tiers[found.tier].hit_clock.time_of(found.stamp)
        hits, idle_seconds = found.hits, max(0.0, services.clock.monotonic() - accessed_at)
        heat = hits * 0.5 ** (idle_seconds / HALF_LIFE_SECONDS)
    borrowed = services.hierarchy.catalog.journal.is_pending(key)
    moves = services.move_log.moves(key)
    return Explanation(
        key=key,
        tier=found.tier,
        version=found.version,
        size=found.size,
        hits=hits,
        idle_seconds=idle_seconds,
        heat=heat,
        durable=not borrowed and (not isinstance(found, Entry) or found.backed is not None),
        pinned=found.terms.pinned,
        metadata=unpack(found.terms.metadata),
        moves=moves,
        came=_came(services, found, moves),
        next=(_BORROWED if borrowed else "") + _next_move(services, found),
    )


def _came(services: Services, found: Entry | Record, moves: list[Moved]) -> str:
    """Return how a value came where it is; moves of earlier processes are not known."""
    if moves:
        return f"it came from {moves[-1].source} ({moves[-1].cause})"
    if services.settings.read_only:
        return "its moves are known to its writer only"
    if found.version <= services.opened_at or services.move_log.is_full:
        return "none of its moves is known"
    return "it was stored there"


def _next_move(services: Services, found: Entry | Record) -> str:
    ends = found.terms.expires_at
    expiry = ""
    if ends is not None:
        expiry = f" It expires in {max(0.0, ends - services.clock.wall()):.0f} s."
    return _next_tier(services, found) + expiry


def _next_tier(services: Services, found: Entry | Record) -> str:
    if found.terms.pinned:
        return "It is pinned: only you can move it."
    if services.settings.read_only:
        return "This manager only reads: the process that writes the store moves it."
    if services.migrator is None:
        return "Migration is off: it moves when its tier needs room, or when you say so."
    planner = services.migrator.planner
    up = found.terms.next_faster(found.tier) if planner.promotes else None
    if isinstance(found, Entry):
        lower = [name for name in services.hierarchy.tiers if name.rank > found.tier.rank]
        down = next((name for name in lower if found.terms.admits(name)), None)
        if found.terms.in_ram_only:
            return (
                "It is dropped when RAM needs room, as its terms say; a cached result, because it "
                "can be computed again in less time than it takes to write it to cold and read it."
            )
        if down is None:
            above = " or above" if found.terms.next_faster(found.tier) else ""
            return f"It stays in {found.tier}{above}: its terms allow no slower tier."
        if down is TierName.WARM and planner.demotes_idle:
            limit = planner.limits.limit(found.hits, found.key)
            return f"It moves to warm after {limit:.0f} s without a read, or when hot needs room."
        rise = f"A read moves it to {up} if there is room; it" if up else "It"
        return f"{rise} moves to {down} when {found.tier} needs room."
    if not planner.promotes:
        return "A read leaves it there: promotion is off."
    if up is None:
        return f"It stays in {found.tier} or below: its terms allow no faster tier."
    target = next((name for name in (TierName.WARM, TierName.HOT) if found.terms.admits(name)), up)
    return (
        f"A read moves it to {target} if there is room, or if it is worth more there than what "
        "would leave."
    )
