"""Estimates the gain of more room in each tier, from the accesses of a sample of the keys.

The estimate treats all tiers as one LRU list that is cut into slices. The curve of reuse distances
describes such a list for every size (SHARDS, Waldspurger et al., FAST 2015).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

from memories.foundation.units import MAX_BYTES, format_size, limit_words
from memories.model.tiers import TierName
from memories.observe.counters import Stats
from memories.policies.miss_ratio_curve import MissRatioCurve, miss_ratio_curve
from memories.simulate.traces import Trace

ENOUGH_READS = 100
MANY_REGRETS_PERCENT = 10.0
APART_PERCENT = 10.0  # Where model and measurement differ by more, the advice says why.
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
        measured_percent: Reads that this tier or a faster one has answered, as `stats()` counts
            them; None for a recorded trace, and before the first read.
        answered_percent: The same in the model.
        gain_percent: How many more it would answer in the model with `more_bytes` more room.
        saved_seconds: Seconds that this saves per thousand reads.
    """

    capacity_bytes: int
    read_seconds: float
    measured_percent: float | None
    answered_percent: float
    gain_percent: float
    saved_seconds: float

    @property
    def apart(self) -> float:
        """Return by how many percent model and measurement differ; 0 without a measurement."""
        measured = self.measured_percent
        return 0.0 if measured is None else abs(measured - self.answered_percent)


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """The gain of more room in each tier; `str()` of it is a paragraph.

    Attributes:
        reads: The number of reads so far; the estimate is poor while they are few.
        more_bytes: The additional room.
        tiers: By tier, fastest first.
        curve: Miss ratio of repeated reads by capacity.
        regretted_percent: Demotions of idle values that were regretted: the value was read again
            before its idle limit had passed once more. 0 for a recorded trace.
    """

    reads: int
    more_bytes: int
    tiers: dict[TierName, TierAdvice]
    curve: MissRatioCurve
    regretted_percent: float = 0.0

    @property
    def best(self) -> TierName | None:
        """Return the tier where more room saves most time; None if no tier saves any."""
        name = max(self.tiers, key=lambda tier: self.tiers[tier].saved_seconds)
        return name if self.tiers[name].saved_seconds > 0 else None

    def __str__(self) -> str:
        more = format_size(self.more_bytes)
        lines = [
            "reads that a tier or a faster one answers, measured and in a model (one LRU list over "
            "all tiers, from a sample of the keys):"
            if any(tier.measured_percent is not None for tier in self.tiers.values())
            else "reads that a tier or a faster one answers, in a model (one LRU list over all "
            "tiers, from a sample of the keys):",
            *(
                f"{name}: {limit_words(tier.capacity_bytes)}, "
                f"{_measured(tier)}{tier.answered_percent:.1f} % in the model; {more} more: "
                f"{tier.gain_percent:+.1f} %, {tier.saved_seconds:.3g} s saved per 1,000 reads."
                for name, tier in self.tiers.items()
            ),
        ]
        apart = max(self.tiers, key=lambda name: self.tiers[name].apart)
        if self.tiers[apart].apart > APART_PERCENT:
            lines.append(
                f"Model and measurement differ in {apart}: trust the measurement for what is, and "
                "the model for what more room changes. Values are not always where an LRU list "
                "would have them (they were stored in a tier by name, they wait for promotion, or "
                "the policy chose others)."
            )
        if self.regretted_percent > MANY_REGRETS_PERCENT:
            lines.append(
                f"{self.regretted_percent:.0f} % of the values that left hot for being idle were "
                "read again soon: hot is given up too early, or its idle limits are still learnt."
            )
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
    hits = accumulate(tier.hits for tier in stats.tiers.values())
    measured = {
        name: 100 * count / stats.reads if stats.reads else None
        for name, count in zip(stats.tiers, hits, strict=True)
    }
    found = _advice(curve, stats.reads, capacities, seconds, measured, more_bytes)
    return replace(found, regretted_percent=stats.idle.regretted_percent)


def advise_on(trace: Trace, capacities: dict[TierName, int], more_bytes: int) -> Advice:
    """Return the gain for a recorded trace, with tiers of these sizes and glacier below them."""
    curve = miss_ratio_curve(trace.keys, trace.sizes)
    tiers = {**capacities, TierName.GLACIER: MAX_BYTES}
    measured = dict.fromkeys(tiers)
    return _advice(curve, len(trace.keys), tiers, TYPICAL_SECONDS, measured, more_bytes)


def _advice(
    curve: MissRatioCurve,
    reads: int,
    capacities: dict[TierName, int],
    seconds: dict[TierName, float],
    measured: Mapping[TierName, float | None],
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
            measured_percent=measured[name],
            answered_percent=100 * (1 - curve.miss_ratio(boundaries[at])),
            gain_percent=100 * gains[at],
            saved_seconds=1000 * sum(worth[at:]),
        )
        for at, name in enumerate(names)
    }
    return Advice(reads=reads, more_bytes=more_bytes, tiers=tiers, curve=curve)


def _measured(tier: TierAdvice) -> str:
    measured = tier.measured_percent
    return "" if measured is None else f"{measured:.1f} % measured, "


def _seconds(stats: Stats, name: TierName) -> float:
    measured = stats.latencies.get(("retrieve", name))
    if measured is None or not measured.samples:
        return TYPICAL_SECONDS[name]
    return measured.seconds / measured.samples
