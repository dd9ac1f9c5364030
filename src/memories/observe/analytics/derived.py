"""Derives the metrics of one sample from the counters: counts, bytes, latencies, ratios, memory.

Counts begin at zero when the analytics are enabled. Latencies are quantiles over the last two
seconds, NaN when nothing happened. The names are stable and documented in docs/analytics.md.
"""

from __future__ import annotations

import math
from array import array
from collections import deque
from collections.abc import Iterator, Mapping

from memories.foundation.histogram import Latency
from memories.foundation.resident import resident_bytes
from memories.model.tiers import Cause, TierName
from memories.observe.analytics.sample import Sample
from memories.observe.analytics.series import WINDOW_SECONDS
from memories.observe.counters import Stats, Timed

QUANTILES = {"p50": 0.5, "p99": 0.99}
PREFETCH = ("issued", "used", "wasted", "late")


class DerivedMetrics:
    """Turns counters into samples; keeps the counters at the start, and recent latencies."""

    def __init__(self, stats: Stats) -> None:
        self._began = dict(_counters(stats))
        self._recent: deque[tuple[float, dict[Timed, Latency]]] = deque()
        self._names: tuple[str, ...] = ()

    def sample(self, stats: Stats, now: float) -> Sample:
        """Return the sample of `stats` at `now`, in seconds of a monotonic clock."""
        figures = {name: value - self._began.get(name, 0.0) for name, value in _counters(stats)}
        figures.update(_gauges(stats))
        figures.update(self._quantiles(stats, now))
        names = tuple(figures)
        if names != self._names:
            self._names = names
        return Sample(
            usage={str(name): tier.usage_percent for name, tier in stats.tiers.items()},
            hits=stats.memory_hits,
            reads=stats.reads,
            names=self._names,
            figures=array("d", figures.values()),
        )

    def _quantiles(self, stats: Stats, now: float) -> Iterator[tuple[str, float]]:
        earlier = self._recent[0][1] if self._recent else {}
        for (operation, tier), latency in sorted(stats.latencies.items()):
            late = latency.since(earlier.get((operation, tier)))
            for name, share in QUANTILES.items():
                yield f"{tier}_{operation}_{name}_seconds", late.quantile(share)
        self._recent.append((now, stats.latencies))
        while len(self._recent) > 1 and now - self._recent[1][0] >= WINDOW_SECONDS:
            self._recent.popleft()


def _counters(stats: Stats) -> Iterator[tuple[str, float]]:
    """Yield the metrics that only grow."""
    for name in TierName:
        yield f"{name}_hits", stats.tiers[name].hits if name in stats.tiers else 0
    yield "misses", stats.misses
    yield "stored_bytes", stats.stored_bytes
    moved = dict.fromkeys(Cause, 0)
    for (_, _, cause), size in stats.moved_bytes.items():
        moved[cause] += size
    for cause, size in moved.items():
        yield f"moved_bytes_{cause}", size
    for tier, volume in sorted(stats.written.items()):
        yield f"{tier}_written_bytes", volume.stored_bytes
    for outcome in PREFETCH:
        yield f"prefetch_{outcome}", getattr(stats.prefetch, outcome)
    yield "idle_demoted", stats.idle.demoted
    yield "idle_regretted", stats.idle.regretted


def _gauges(stats: Stats) -> Iterator[tuple[str, float]]:
    """Yield the bytes held by each tier and by the process, and the compression of each tier."""
    for name in TierName:
        yield f"{name}_used_bytes", stats.tiers[name].used_bytes if name in stats.tiers else 0
    resident = resident_bytes()
    yield "rss_bytes", math.nan if resident is None else resident
    for tier, volume in sorted(stats.written.items()):
        yield f"{tier}_compression", volume.compression


def prefetch_of(stats: Stats) -> Mapping[str, float]:
    """Return the outcomes of prefetched values; empty without any."""
    if not any(stats.prefetch):
        return {}
    return {name: getattr(stats.prefetch, name) for name in PREFETCH}
