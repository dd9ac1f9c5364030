"""Time series as lists of equal length, computed from sampled points.

A hit rate is that of the window of time before a point. It is NaN, not 100 %, if there was no read
during the window.
"""

from __future__ import annotations

import io
import math
import os
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from memories.errors import InvalidOptionError, StorageError
from memories.foundation.optional_imports import require
from memories.model.tiers import TierName
from memories.observe.analytics.downsampled import Point

WINDOW_SECONDS = 2.0


class Series(dict[str, list[float]]):
    """Lists of equal length by name: a dict with conversions to pandas, Arrow and CSV."""

    def window(self, seconds: float | None) -> Series:
        """Return the points of the last `seconds`, all points if it is None.

        Raises:
            InvalidOptionError: `seconds` is not above 0.
        """
        if seconds is None:
            return self
        if not seconds > 0:
            raise InvalidOptionError(f"window={seconds!r} must be a number of seconds above 0")
        times = self["timestamps"]
        start = bisect_left(times, times[-1] - seconds) if times else 0
        return Series({name: column[start:] for name, column in self.items()})

    def thinned(self, points: int) -> Series:
        """Return at most `points` of the points, evenly spaced and including the last."""
        length = len(self["timestamps"])
        step = max(1, math.ceil(length / points))
        first = (length - 1) % step if length else 0
        return Series({name: column[first::step] for name, column in self.items()})

    def to_pandas(self) -> Any:
        """Return a pandas DataFrame with one row for each point, indexed by `timestamps`."""
        return require("pandas", extra="tables").DataFrame(self).set_index("timestamps")

    def to_arrow(self) -> Any:
        """Return a pyarrow Table with one column for each name."""
        return require("pyarrow", extra="tables").table(dict(self))

    def to_csv(self, path: str | os.PathLike[str] | None = None) -> str:
        """Return the series as CSV with a header, and write it to `path` if that is given.

        Raises:
            StorageError: the file cannot be written.
        """
        import csv  # Imported at use: every manager has series, few write them.

        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(self)
        writer.writerows(zip(*self.values(), strict=True))
        if path is not None:
            try:
                Path(path).write_text(file.getvalue(), "utf-8")
            except OSError as error:
                raise StorageError(f"the series could not be written to {path}: {error}") from error
        return file.getvalue()


def series_of(points: Sequence[Point]) -> Series:
    """Return `timestamps`, one `..._usage` for each tier, `hit_rate` and all figures."""
    series = Series({"timestamps": [point.at for point in points]})
    for tier in TierName:
        series[f"{tier}_usage"] = [point.sample.usage.get(tier, 0.0) for point in points]
    series["hit_rate"] = hit_rates(points)
    places: Mapping[str, int] = {}
    names: tuple[str, ...] = ()
    for index, point in enumerate(points):
        if point.sample.names != names:
            names = point.sample.names
            places = {name: place for place, name in enumerate(names)}
            for name in names:
                # NaN before its first value, as for latencies before the first retrieve.
                series.setdefault(name, [math.nan] * len(points))
        for name, place in places.items():
            series[name][index] = point.sample.figures[place]
    return series


def hit_rates(points: Sequence[Point], window_seconds: float = WINDOW_SECONDS) -> list[float]:
    """Return, for each point, the percentage of hits among the reads of the window before it.

    The window reaches back to the nearest point that is at least `window_seconds` away, or to the
    first point. It may be longer, because removed points leave larger distances.
    """
    rates = []
    start = 0
    for index, point in enumerate(points):
        while start + 1 < index and point.at - points[start + 1].at >= window_seconds:
            start += 1
        rates.append(_hit_rate(points[start], point))
    return rates


def rates(
    times: Sequence[float], counts: Sequence[float], window_seconds: float = WINDOW_SECONDS
) -> list[float]:
    """Return, for each point, how fast a count grew in the window before it, per second.

    NaN for the first point. Over less than the window a rate is mostly noise.
    """
    grown = []
    start = 0
    for index, at in enumerate(times):
        while start + 1 < index and at - times[start + 1] >= window_seconds:
            start += 1
        over = at - times[start]
        grown.append((counts[index] - counts[start]) / over if over > 0 else math.nan)
    return grown


def _hit_rate(before: Point, after: Point) -> float:
    hits = after.sample.hits - before.sample.hits
    reads = after.sample.reads - before.sample.reads
    return 100.0 * hits / reads if reads > 0 else math.nan
