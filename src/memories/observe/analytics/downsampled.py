"""A bounded series of samples over the whole time of sampling.

When the series is full every other point is removed and the minimum distance of points doubles. The
latest point is kept in addition, whatever its distance.
"""

from __future__ import annotations

from typing import NamedTuple

from memories.observe.analytics.sample import Sample

MIN_POINTS = 4


class Point(NamedTuple):
    """A sample and its time, in seconds since the start."""

    at: float
    sample: Sample


class DownsampledSeries:
    """At most `max_points` points, at least `spacing_seconds` apart except the latest."""

    def __init__(self, max_points: int, spacing_seconds: float) -> None:
        self.spacing_seconds = spacing_seconds
        self._max_points = max_points
        self._kept: list[Point] = []
        self._latest: Point | None = None

    def add(self, point: Point) -> None:
        """Add a point that is later than all others."""
        if self._is_due(point):
            self._kept.append(point)
            self._latest = None
        else:
            self._latest = point
        if len(self._kept) >= self._max_points:
            self._thin()

    def points(self) -> list[Point]:
        """Return the points, earliest first."""
        return self._kept + ([] if self._latest is None else [self._latest])

    def _is_due(self, point: Point) -> bool:
        # A sampler that wakes up slightly early must not lose every other sample.
        return not self._kept or point.at - self._kept[-1].at >= 0.75 * self.spacing_seconds

    def _thin(self) -> None:
        """Remove every other point, but keep the last one as the latest."""
        last = self._kept[-1]
        self._kept = self._kept[::2]
        self.spacing_seconds *= 2
        if self._kept[-1] is not last:
            self._latest = last
