"""Counters of the engine's operations, and the sizes of its tiers.

Hits in RAM are counted by the tiers themselves; everything else is counted from events. Readers
derive rates from the counters, so that no rate can disagree with them.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from weakref import ref

from memories.engine.catalog import Catalog
from memories.engine.hierarchy import Hierarchy
from memories.foundation.fork_lock import new_lock
from memories.foundation.histogram import Histogram, Latency
from memories.foundation.table import text_table
from memories.foundation.units import format_seconds, format_size, limit_words
from memories.frames.compression_history import SmallFrames
from memories.model.events import (
    Event,
    EventBatch,
    Failed,
    Missed,
    Moved,
    Prefetched,
    ReadBatch,
    Removed,
    Retrieved,
    Stored,
    ValueEvent,
    Written,
)
from memories.model.tiers import Cause, TierName
from memories.policies.idle_limits import IdleOutcome
from memories.policies.predictors import PrefetchCounters

Route = tuple[TierName, TierName, Cause]
NO_PREFETCH = PrefetchCounters(issued=0, used=0, late=0, wasted=0)
NO_IDLE = IdleOutcome()
Timed = tuple[str, TierName]  # An operation, and the tier that answered it or took the value.


@dataclass(frozen=True, slots=True, kw_only=True)
class TierStats:
    """One tier at one moment.

    Attributes:
        medium: Where the tier keeps values: `"host RAM (stand-in)"` for hot without a GPU.
        configured_bytes: The size that the caller configured.
        effective_bytes: The same, or less where the medium has less space.
        used_bytes: The bytes in use on the medium.
        keys: Keys whose authoritative copy is in this tier.
        hits: Retrieves that this tier answered.
    """

    medium: str
    configured_bytes: int
    effective_bytes: int
    used_bytes: int
    keys: int
    hits: int

    @property
    def usage_percent(self) -> float:
        """Return `used_bytes` in percent of `configured_bytes`."""
        if self.configured_bytes == 0:
            return 0.0
        return 100.0 * self.used_bytes / self.configured_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """The frames that were written to a durable tier.

    Attributes:
        frames: Their number.
        raw_bytes: The bytes of their values in RAM.
        stored_bytes: The bytes of the frames on the medium.
    """

    frames: int
    raw_bytes: int
    stored_bytes: int

    @property
    def compression(self) -> float:
        """Return the size of the values divided by that of their frames, NaN without frames."""
        return self.raw_bytes / self.stored_bytes if self.stored_bytes else float("nan")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """All counters at one moment; what is counted by name is in the order of the names.

    `print(stats)` shows them as tables.

    Attributes:
        tiers: The enabled tiers, fastest first.
        misses: Retrieves of keys that were absent.
        stored: Versions stored, and their bytes.
        moves: Moves and their bytes, by source, target and cause.
        removed: Versions removed, by cause, and their bytes.
        prefetch: The outcomes of prefetched values.
        idle: How many values were demoted for being idle, and how many of these demotions were
            regretted: the value was read again before its idle limit had passed once more.
        failures: Background actions that failed.
        written: The frames written to each durable tier.
        small_frames: What compression did with values below 4 KB, in each durable tier.
        latencies: Of stores, moves and writes by the tier that took the value, and of retrieves by
            the durable tier that answered. A hit in RAM reads no clock and is not included.
    """

    tiers: dict[TierName, TierStats]
    misses: int
    stored: int
    stored_bytes: int
    moves: dict[Route, int]
    moved_bytes: dict[Route, int]
    removed: dict[Cause, int]
    failures: int
    latest_failure: str | None
    removed_bytes: dict[Cause, int] = field(default_factory=dict)
    written: dict[TierName, Volume] = field(default_factory=dict)
    small_frames: dict[TierName, SmallFrames] = field(default_factory=dict)
    latencies: dict[Timed, Latency] = field(default_factory=dict)
    prefetch: PrefetchCounters = NO_PREFETCH
    idle: IdleOutcome = NO_IDLE

    @property
    def memory_hits(self) -> int:
        """Return the retrieves answered by hot or warm: the hits of the hit rate."""
        return sum(tier.hits for name, tier in self.tiers.items() if not name.durable)

    @property
    def reads(self) -> int:
        """Return all retrieves."""
        return sum(tier.hits for tier in self.tiers.values()) + self.misses

    @property
    def hit_rate_percent(self) -> float:
        """Return the share of retrieves answered by hot or warm, NaN without retrieves."""
        return 100.0 * self.memory_hits / self.reads if self.reads else float("nan")

    def __str__(self) -> str:
        """Return tables: the tiers, the moves, the latencies; and the other counts in words."""
        parts = [self._tier_table(), self._words()]
        if self.moves:
            rows = [
                (f"{source} to {target}", str(cause), f"{count:,}",
                 format_size(self.moved_bytes.get((source, target, cause), 0)))
                for (source, target, cause), count in self.moves.items()
            ]  # fmt: skip
            parts.append(text_table(("moved", "because of", ">values", ">bytes"), rows))
        times = [
            (f"{operation} {tier}", f"{one.samples:,}",
             *(format_seconds(one.quantile(share)) for share in (0.5, 0.9, 0.99)))
            for (operation, tier), one in self.latencies.items()
            if one.samples
        ]  # fmt: skip
        if times:
            parts.append(text_table(("took", ">calls", ">median", ">90 %", ">99 %"), times))
        return "\n\n".join(parts)

    def _tier_table(self) -> str:
        rows = []
        for name in TierName:
            tier = self.tiers.get(name)
            if tier is None:
                rows.append((str(name), *[""] * 6, "off"))
                continue
            less = tier.effective_bytes < tier.configured_bytes
            rows.append(
                (
                    str(name),
                    format_size(tier.used_bytes),
                    limit_words(tier.configured_bytes),
                    format_size(tier.effective_bytes) if less else "",
                    f"{tier.keys:,}",
                    f"{tier.hits:,}",
                    f"{100 * tier.hits / self.reads:.1f} %" if self.reads else "",
                    tier.medium,
                )
            )
        head = ("tier", ">holds", ">of", ">can hold", ">keys", ">hits", ">of reads", "medium")
        return text_table(head, rows)

    def _words(self) -> str:
        reads = f"{self.reads:,} reads"
        if self.reads:
            reads += (
                f", {self.hit_rate_percent:.1f} % of them answered by hot or warm, "
                f"{self.misses:,} of absent keys"
            )
        lines = [reads, f"{self.stored:,} stored, {format_size(self.stored_bytes)}"]
        if self.removed:
            each = (f"{count:,} {cause}" for cause, count in self.removed.items())
            lines.append(f"gone: {', '.join(each)}")
        if any(self.prefetch):
            each = (f"{count:,} {name}" for name, count in self.prefetch._asdict().items())
            lines.append(f"prefetched: {', '.join(each)}")
        if self.idle.demoted:
            lines.append(
                f"demoted for being idle: {self.idle.demoted:,}, of which "
                f"{self.idle.regretted_percent:.0f} % were read again too soon"
            )
        if self.failures:
            lines.append(f"{self.failures:,} background actions failed: {self.latest_failure}")
        return "\n".join(lines)


class Tally(NamedTuple):
    """How many, and how many bytes; replaced as a whole, so an exception leaves both or neither."""

    times: int = 0
    nbytes: int = 0

    def plus(self, nbytes: int, times: int = 1) -> Tally:
        """Return the tally with some more, of `nbytes` together."""
        return Tally(self.times + times, self.nbytes + nbytes)


NOTHING = Tally()


def _nothing() -> None:
    """Return None: nothing is delivered again."""


@dataclass(slots=True)
class EventCounters:
    """Counts events exactly: they are rare enough for a lock.

    What a settlement delivers again after an interrupt is the same object, and counts once.
    """

    misses: int = 0
    stored: Tally = NOTHING
    failures: int = 0
    latest_failure: str | None = None
    hits: Counter[TierName] = field(default_factory=Counter)
    moves: dict[Route, Tally] = field(default_factory=dict)
    removed: dict[Cause, Tally] = field(default_factory=dict)
    written: dict[TierName, tuple[int, int, int]] = field(default_factory=dict)  # As a `Volume`.
    latencies: defaultdict[Timed, Histogram] = field(default_factory=lambda: defaultdict(Histogram))
    prefetched: Counter[str] = field(default_factory=Counter)
    lock: threading.RLock = field(default_factory=new_lock)
    # Returns what a settlement delivered last and was counted, for as long as it may come again.
    _latest: Callable[[], object] = _nothing

    def observe(self, event: Event) -> None:
        """Count one event."""
        with self.lock:
            match event:
                case Stored():
                    times, nbytes = self.stored
                    self.stored = Tally(times + 1, nbytes + event.size)
                    self.latencies["store", event.tier].add(event.seconds)
                case Written():
                    self._count_frames(event.tier, [event.seconds], event.size, event.stored)
                case Missed():
                    if event is not self._latest():
                        self.misses, self._latest = self.misses + 1, ref(event)
                case Moved():
                    route = (event.source, event.target, event.cause)
                    self.moves[route] = self.moves.get(route, NOTHING).plus(event.size)
                    self.latencies["move", event.target].add(event.seconds)
                    self.prefetched["issued"] += event.cause is Cause.PREFETCH
                case Prefetched():
                    self.prefetched[event.outcome] += 1
                case Removed():
                    left = self.removed.get(event.cause, NOTHING)
                    self.removed[event.cause] = left.plus(event.size)
                case Failed():
                    self.failures += 1
                    self.latest_failure = f"{event.action}: {event.error}"
                case _:
                    pass

    def observe_batch(self, events: Sequence[ValueEvent]) -> None:
        """Count the events of a batch, which differ in key, size and times only."""
        first, times = events[0], len(events)
        nbytes = sum([event.size for event in events])
        with self.lock:
            if events is self._latest():
                return
            again = ref(events) if isinstance(events, EventBatch) else _nothing
            # Each is counted in one line: an interrupt leaves all of it or nothing.
            match first:
                case Stored():
                    of = ("store", first.tier)
                    timed = self.latencies[of].with_all(
                        [event.seconds for event in events if isinstance(event, Stored)]
                    )
                    stored = self.stored.plus(nbytes, times)
                    self.stored, self.latencies[of], self._latest = stored, timed, again
                case Moved():
                    route, to = (first.source, first.target, first.cause), ("move", first.target)
                    moved = self.moves.get(route, NOTHING).plus(nbytes, times)
                    timed = self.latencies[to].with_all(
                        [event.seconds for event in events if isinstance(event, Moved)]
                    )
                    counted = self.prefetched
                    issued = counted["issued"] + times * (first.cause is Cause.PREFETCH)
                    self.moves[route], self.latencies[to], counted["issued"], self._latest = (
                        moved, timed, issued, again
                    )  # fmt: skip
                case Written():
                    writes = [event for event in events if isinstance(event, Written)]
                    frames = sum([event.stored for event in writes])
                    self._count_frames(
                        first.tier, [event.seconds for event in writes], nbytes, frames
                    )
                case Removed():
                    gone = self.removed.get(first.cause, NOTHING).plus(nbytes, times)
                    self.removed[first.cause], self._latest = gone, again

    def _count_frames(
        self, tier: TierName, seconds: Sequence[float], nbytes: int, stored: int
    ) -> None:
        frames, raw_bytes, stored_bytes = self.written.get(tier, (0, 0, 0))
        count = frames + len(seconds)
        self.written[tier] = (count, raw_bytes + nbytes, stored_bytes + stored)
        self.latencies["write", tier].extend(seconds)

    def count_reads(self, reads: Sequence[Retrieved]) -> None:
        """Count reads that durable tiers answered."""
        with self.lock:
            if isinstance(reads, ReadBatch):
                self.hits[reads.tier] += len(reads)
                self.latencies["retrieve", reads.tier].add(reads.seconds, len(reads))
                return
            for tier in {read.tier for read in reads}:
                taken = [read.seconds for read in reads if read.tier is tier]
                self.hits[tier] += len(taken)
                self.latencies["retrieve", tier].extend(taken)

    def read(self, hierarchy: Hierarchy, media: dict[TierName, str]) -> Stats:
        """Return the counters and the sizes of `hierarchy`'s tiers; ClosedError if it is closed."""
        hierarchy.require_readable()
        hierarchy.settlement.settle()
        hierarchy.catalog.credit_front_hits()
        hierarchy.events.flush()
        at_front = hierarchy.catalog.front.credits
        keys = _count_keys(hierarchy.catalog)
        # Before the lock: what a disk holds may have to wait for a commit.
        budgets = {
            name: (tier.budget.configured, tier.budget.effective, tier.budget.used)
            for name, tier in hierarchy.tiers.items()
        }
        with self.lock:
            tiers = {
                name: TierStats(
                    medium=media[name],
                    configured_bytes=budgets[name][0],
                    effective_bytes=budgets[name][1],
                    used_bytes=budgets[name][2],
                    keys=keys[name],
                    hits=self.hits[name] if name.durable else tier.counter.hits + at_front[name],
                )
                for name, tier in hierarchy.tiers.items()
            }
            return Stats(
                tiers=tiers,
                misses=self.misses,
                stored=self.stored.times,
                stored_bytes=self.stored.nbytes,
                moves={route: tally.times for route, tally in sorted(self.moves.items())},
                moved_bytes={route: tally.nbytes for route, tally in sorted(self.moves.items())},
                removed={cause: tally.times for cause, tally in sorted(self.removed.items())},
                failures=self.failures,
                latest_failure=self.latest_failure,
                removed_bytes={
                    cause: tally.nbytes for cause, tally in sorted(self.removed.items())
                },
                written={
                    name: Volume(frames=frames, raw_bytes=raw, stored_bytes=stored)
                    for name, (frames, raw, stored) in sorted(self.written.items())
                },
                small_frames={
                    name: tier.compression_history.counts()
                    for name, tier in hierarchy.tiers.durable.items()
                },
                latencies={timed: one.read() for timed, one in sorted(self.latencies.items())},
                prefetch=PrefetchCounters(
                    *(self.prefetched[name] for name in PrefetchCounters._fields)
                ),
                idle=hierarchy.idle_outcome(),
            )


def _count_keys(catalog: Catalog) -> Counter[TierName]:
    """Count the keys of each tier; a key with an entry counts where the entry is."""
    keys = Counter(catalog.counts)
    elsewhere = catalog.journal.keys_elsewhere()
    at_rest = {
        TierName.COLD: catalog.journal.usage().keys - elsewhere,
        TierName.GLACIER: elsewhere,
    }
    for name, count in at_rest.items():
        keys[name] += count - catalog.backing[name]
    return keys
