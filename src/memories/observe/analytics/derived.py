"""From the counters of now to the figures of one sample: counts, bytes, latencies, ratios.

Counts begin where the analytics did; latencies are quantiles over the last two seconds, NaN when
nothing happened; names are stable, and documented in docs/analytics.md.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterator, Mapping

from memories.foundation.histogram import Latency
from memories.model.tiers import Cause, TierName
from memories.observe.analytics.sample import Sample
from memories.observe.analytics.series import WINDOW_SECONDS
from memories.observe.counters import Stats, Timed

QUANTILES = {"p50": 0.5, "p99": 0.99}
PREFETCH = ("issued", "used", "wasted", "late")


class DerivedMetrics:
    """Turns counters into samples; remembers where they began, and the latencies of late."""

    def __init__(self, stats: Stats) -> None:
        self._began = dict(_counters(stats))
        self._recent: deque[tuple[float, dict[Timed, Latency]]] = deque()
        self._names: tuple[str, ...] = ()

    def sample(self, stats: Stats, now: float) -> Sample:
        """Return the sample that `stats` make at `now`, in seconds of any steady clock."""
        figures = {name: value - self._began.get(name, 0.0) for name, value in _counters(stats)}
        figures.update(_ratios(stats))
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
    """Yield what only grows."""
    for name in TierName:
        yield f"{name}_hits", stats.tiers[name].hits if name in stats.tiers else 0
    yield "misses", stats.misses
    moved = dict.fromkeys(Cause, 0)
    for (_, _, cause), size in stats.moved_bytes.items():
        moved[cause] += size
    for cause, size in moved.items():
        yield f"moved_bytes_{cause}", size
    for tier, volume in sorted(stats.written.items()):
        yield f"{tier}_written_bytes", volume.stored_bytes
    for outcome in PREFETCH:
        yield f"prefetch_{outcome}", getattr(stats.prefetch, outcome)


def _ratios(stats: Stats) -> Iterator[tuple[str, float]]:
    """Yield how many times smaller frames are than values, over all that was written."""
    for tier, volume in sorted(stats.written.items()):
        yield f"{tier}_compression", volume.compression


def prefetch_of(stats: Stats) -> Mapping[str, float]:
    """Return what became of what was fetched ahead; empty where nothing is."""
    if not any(stats.prefetch):
        return {}
    return {name: getattr(stats.prefetch, name) for name in PREFETCH}
