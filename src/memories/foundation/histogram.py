"""Latency histograms: counts in fixed logarithmic buckets, and quantiles of them.

The size is fixed, whatever the number of samples. A quantile is exact to within a tenth, and the
difference of two readings of a histogram is the exact histogram of the time between them.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

LEAST_SECONDS = 1e-6
PER_OCTAVE = 4
BUCKETS = 128  # From a microsecond to more than an hour.


def bound(index: int) -> float:
    """Return the upper bound of a bucket, in seconds."""
    return float(LEAST_SECONDS * 2.0 ** (index / PER_OCTAVE))


_INNER_BOUNDS = tuple(
    bound(index) for index in range(BUCKETS - 1)
)  # The last bucket has no upper bound.


class Latency(NamedTuple):
    """The counts of a histogram at one moment."""

    counts: tuple[int, ...]
    seconds: float  # The sum of all samples.

    @property
    def samples(self) -> int:
        """Return the number of samples."""
        return sum(self.counts)

    def quantile(self, share: float) -> float:
        """Return the seconds that `share` of the samples did not exceed, NaN without samples."""
        wanted = share * self.samples
        seen = 0
        for index, count in enumerate(self.counts):
            seen += count
            if count and seen >= wanted:
                return bound(index) / 2 ** (0.5 / PER_OCTAVE)
        return math.nan

    def since(self, earlier: Latency | None) -> Latency:
        """Return the samples after `earlier`, an older reading of the same histogram."""
        if earlier is None:
            return self
        pairs = zip(self.counts, earlier.counts, strict=True)
        return Latency(tuple(now - then for now, then in pairs), self.seconds - earlier.seconds)

    def cumulative(self, bounds: Sequence[float]) -> Iterator[int]:
        """Yield, for each of ascending `bounds` in seconds, how many samples lie below it."""
        index = seen = 0
        for limit in bounds:
            while index < BUCKETS and bound(index) <= limit * 1.0001:
                seen += self.counts[index]
                index += 1
            yield seen


class Histogram:
    """Counts samples; the caller serialises `add`."""

    __slots__ = ("counts", "seconds")

    def __init__(self) -> None:
        self.counts = [0] * BUCKETS
        self.seconds = 0.0

    def add(self, seconds: float, times: int = 1) -> None:
        """Count equal samples; those beyond the last bucket count in it."""
        self.counts[bisect_left(_INNER_BOUNDS, seconds)] += times
        self.seconds += times * seconds

    def extend(self, samples: Iterable[float]) -> None:
        """Count many samples."""
        counts, find, bounds = self.counts, bisect_left, _INNER_BOUNDS
        total = self.seconds
        for seconds in samples:
            counts[find(bounds, seconds)] += 1
            total += seconds
        self.seconds = total

    def with_all(self, samples: Iterable[float]) -> Histogram:
        """Return a histogram that has counted many more samples."""
        more = Histogram()
        more.counts, more.seconds = self.counts.copy(), self.seconds
        more.extend(samples)
        return more

    def read(self) -> Latency:
        """Return the counts so far."""
        return Latency(tuple(self.counts), self.seconds)
