"""From points to the equal-length lists that a plot wants.

Pure. A hit rate belongs to a stretch of time, not to a moment: each one looks back over a window,
and where nobody read during the window there is no rate, which is NaN and not 100 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from memories.analytics.history import Point
from memories.entry import TierName

WINDOW_SECONDS = 2.0


def series_of(points: Sequence[Point]) -> dict[str, list[float]]:
    """Return `timestamps`, one `..._usage` for each tier, and `hit_rate`, all of one length."""
    series = {"timestamps": [point.at for point in points]}
    for tier in TierName:
        series[f"{tier}_usage"] = [point.sample.usage.get(tier, 0.0) for point in points]
    series["hit_rate"] = hit_rates(points)
    return series


def hit_rates(points: Sequence[Point], window_seconds: float = WINDOW_SECONDS) -> list[float]:
    """Return, for each point, the percentage of hits among the reads of the window before it.

    The window reaches back to the nearest point that is at least `window_seconds` away, or to the
    first one: thinned points lie further apart, and the figures between two of them stay exact.
    """
    rates = []
    start = 0
    for index, point in enumerate(points):
        while start + 1 < index and point.at - points[start + 1].at >= window_seconds:
            start += 1
        rates.append(_hit_rate(points[start], point))
    return rates


def _hit_rate(before: Point, after: Point) -> float:
    hits = after.sample.hits - before.sample.hits
    reads = after.sample.reads - before.sample.reads
    return 100.0 * hits / reads if reads > 0 else math.nan
