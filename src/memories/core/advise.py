"""Estimates the gain of more room in each tier, from the accesses of a sample of the keys.

The estimate treats all tiers as one LRU list that is cut into slices. The curve of reuse distances
describes such a list for every size (SHARDS, Waldspurger et al., FAST 2015).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, pairwise

from memories.foundation.units import MAX_BYTES, format_size
from memories.model.tiers import TierName
from memories.observe.counters import Stats
from memories.policies.miss_ratio_curve import MissRatioCurve, miss_ratio_curve
from memories.simulate.traces import Trace

ENOUGH_READS = 100
# Seconds of a read where none was measured: a hit in RAM, a small value on disk, a request.
TYPICAL_SECONDS = {
    TierName.HOT: 1e-6,
    TierName.WARM: 1e-6,
    TierName.COLD: 1e-3,
    TierName.GLACIER: 0.1,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TierAdvice:
    """The estimate for one tier.

    Attributes:
        capacity_bytes: The capacity of the tier.
        read_seconds: Seconds of a read: measured, or typical where none was measured.
        answered_percent: Reads that this tier or a faster one answers.
        gain_percent: How many more it would answer with `more_bytes` more room.
        saved_seconds: Seconds that this saves per thousand reads.
    """

    capacity_bytes: int
    read_seconds: float
    answered_percent: float
    gain_percent: float
    saved_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """The gain of more room in each tier; `str()` of it is a paragraph.

    Attributes:
        reads: The number of reads so far; the estimate is poor while they are few.
        more_bytes: The additional room.
        tiers: By tier, fastest first.
        curve: Miss ratio of repeated reads by capacity.
    """

    reads: int
    more_bytes: int
    tiers: dict[TierName, TierAdvice]
    curve: MissRatioCurve

    @property
    def best(self) -> TierName | None:
        """Return the tier where more room saves most time; None if no tier saves any."""
        name = max(self.tiers, key=lambda tier: self.tiers[tier].saved_seconds)
        return name if self.tiers[name].saved_seconds > 0 else None

    def __str__(self) -> str:
        more = format_size(self.more_bytes)
        lines = [
            f"{name}: {format_size(tier.capacity_bytes)}, answers {tier.answered_percent:.1f} % "
            f"of reads with the tiers above it; {more} more: {tier.gain_percent:+.1f} %, "
            f"{tier.saved_seconds:.3g} s saved per 1,000 reads."
            for name, tier in self.tiers.items()
        ]
        if self.reads < ENOUGH_READS:
            lines.append(f"There were only {self.reads} reads so far: do not rely on this yet.")
        elif self.best is None:
            lines.append("More room would save nothing.")
        else:
            lines.append(f"Best give it to {self.best}.")
        return "\n".join(lines)


def advise(curve: MissRatioCurve, stats: Stats, more_bytes: int) -> Advice:
    """Return the gain of `more_bytes` in each tier for the reads so far."""
    capacities = {name: tier.effective_bytes for name, tier in stats.tiers.items()}
    seconds = {name: _seconds(stats, name) for name in capacities}
    return _advice(curve, stats.reads, capacities, seconds, more_bytes)


def advise_on(trace: Trace, capacities: dict[TierName, int], more_bytes: int) -> Advice:
    """Return the gain for a recorded trace, with tiers of these sizes and glacier below them."""
    curve = miss_ratio_curve(trace.keys, trace.sizes)
    tiers = {**capacities, TierName.GLACIER: MAX_BYTES}
    return _advice(curve, len(trace.keys), tiers, TYPICAL_SECONDS, more_bytes)


def _advice(
    curve: MissRatioCurve,
    reads: int,
    capacities: dict[TierName, int],
    seconds: dict[TierName, float],
    more_bytes: int,
) -> Advice:
    """Return the estimate; more room in a tier also moves the boundaries of all slower tiers."""
    names = list(capacities)
    boundaries = list(accumulate(capacities[name] for name in names))
    gains = [curve.gain(boundary, more_bytes) for boundary in boundaries]
    worth = [
        gain * max(0.0, seconds[lower] - seconds[upper])
        for gain, (upper, lower) in zip(gains, pairwise(names), strict=False)
    ]
    tiers = {
        name: TierAdvice(
            capacity_bytes=capacities[name],
            read_seconds=seconds[name],
            answered_percent=100 * (1 - curve.miss_ratio(boundaries[at])),
            gain_percent=100 * gains[at],
            saved_seconds=1000 * sum(worth[at:]),
        )
        for at, name in enumerate(names)
    }
    return Advice(reads=reads, more_bytes=more_bytes, tiers=tiers, curve=curve)


def _seconds(stats: Stats, name: TierName) -> float:
    measured = stats.latencies.get(("retrieve", name))
    if measured is None or not measured.samples:
        return TYPICAL_SECONDS[name]
    return measured.seconds / measured.samples
