"""The samples kept: bounded in number, and thinned evenly as time goes on.

Not a thread and no clock. When the history is full every other point goes and the spacing doubles,
so that it always spans the whole time; the latest point is there besides, whatever its distance.
"""

from __future__ import annotations

from typing import NamedTuple

from memories.observe.analytics.sample import Sample

MIN_POINTS = 4


class Point(NamedTuple):
    """A sample and when it was taken, in seconds since the first one."""

    at: float
    sample: Sample


class DownsampledSeries:
    """At most `max_points` points, at least `spacing_seconds` apart but for the latest."""

    def __init__(self, max_points: int, spacing_seconds: float) -> None:
        self.spacing_seconds = spacing_seconds
        self._max_points = max_points
        self._kept: list[Point] = []
        self._latest: Point | None = None

    def add(self, point: Point) -> None:
        """Take in a point later than all before it."""
        if self._is_due(point):
            self._kept.append(point)
            self._latest = None
        else:
            self._latest = point
        if len(self._kept) >= self._max_points:
            self._thin()

    def points(self) -> list[Point]:
        """Return the points in the order of time."""
        return self._kept + ([] if self._latest is None else [self._latest])

    def _is_due(self, point: Point) -> bool:
        # A sampler that wakes a little early must not lose every other of its samples.
        return not self._kept or point.at - self._kept[-1].at >= 0.75 * self.spacing_seconds

    def _thin(self) -> None:
        """Keep the first, the third, the fifth point and so on, and the last as the latest."""
        last = self._kept[-1]
        self._kept = self._kept[::2]
        self.spacing_seconds *= 2
        if self._kept[-1] is not last:
            self._latest = last
