"""Plots of the time series: one panel for each question, the usage of the tiers first.

A plot is never shown and never uses pyplot, so it works without a display and does not interfere
with a program's own figures. The colours are those of Okabe and Ito; each line has its own dashes.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from memories.errors import InvalidOptionError, StorageError
from memories.foundation.optional_imports import require
from memories.model.tiers import TierName
from memories.observe.analytics.plot_panels import STYLES, finish, panels_of

Series = Mapping[str, Sequence[float]]

RATE_STYLE: dict[str, Any] = {"color": "#000000", "linestyle": "-"}
INCHES = (9.0, 5.5)
PANEL_INCHES = (4.6, 2.6)
COLUMNS = 3
DOTS_PER_INCH = 120
LEAST_PERCENT = 1e-6


def plot(
    series: Series,
    path_or_ax: Any = None,
    *,
    heat: Mapping[str, int] | None = None,
    curve: Any = None,
) -> Any:
    """Draw `series` and return the Axes that shows the usage.

    A new figure also shows bytes held, reads, moves, the latency of each operation, the RAM of the
    process, reads by prefix and the miss-ratio curve: each that has something to show.

    Args:
        series: The result of `get_analytics()`.
        path_or_ax: A file to write, whose suffix chooses the format; an Axes, which takes usage and
            hit rate together; or None for a new figure, reached by `axes.figure`.
        heat: Reads by key prefix.
        curve: Miss ratio by capacity.

    Raises:
        MissingPackageError: matplotlib is not installed.
        InvalidOptionError: the suffix is not a format that matplotlib can write.
        StorageError: the file cannot be written.
    """
    if path_or_ax is not None and not isinstance(path_or_ax, (str, os.PathLike)):
        return _draw_together(series, path_or_ax)
    panels: list[Callable[[Any], None]] = [
        partial(draw_usage, series),
        partial(draw_hit_rate, series),
        *panels_of(series, heat, curve),
    ]
    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    figure = require("matplotlib.figure", extra="plot").Figure(
        figsize=(PANEL_INCHES[0] * columns, PANEL_INCHES[1] * rows),
        dpi=DOTS_PER_INCH,
        layout="constrained",
    )
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for draw, axes in zip(panels, grid, strict=False):
        draw(axes)
    for unused in grid[len(panels) :]:
        unused.remove()
    if path_or_ax is not None:
        _write(figure, Path(path_or_ax))
    return grid[0]


def draw_usage(series: Series, axes: Any) -> None:
    """Draw the usage of each tier; a glacier that is off or unlimited is left out."""
    for tier, style in STYLES.items():
        usage = series.get(f"{tier}_usage", ())
        if tier is not TierName.GLACIER or max(usage, default=0.0) > LEAST_PERCENT:
            axes.plot(series["timestamps"], usage, label=str(tier), **style)
    finish(axes, "Usage", "% of configured")
    axes.set_ylim(bottom=0)


def draw_hit_rate(series: Series, axes: Any) -> None:
    """Draw the share of reads answered by hot or warm, with gaps where nothing was read."""
    axes.plot(series["timestamps"], series["hit_rate"], label="hit rate", **RATE_STYLE)
    _mark_single_points(series["timestamps"], series["hit_rate"], axes)
    finish(axes, "Hit rate", "% of the reads of two seconds", legend=False)
    axes.set_ylim(-2, 102)


def plot_ratios(
    lines: Mapping[str, Sequence[tuple[int, float]]], path: str | os.PathLike[str]
) -> None:
    """Draw one line of (capacity in bytes, miss ratio) for each policy into a file.

    Raises:
        MissingPackageError: matplotlib is not installed.
        InvalidOptionError: the suffix is not a format that matplotlib can write.
        StorageError: the file cannot be written.
    """
    figure = require("matplotlib.figure", extra="plot").Figure(
        figsize=INCHES, dpi=DOTS_PER_INCH, layout="constrained"
    )
    axes = figure.subplots()
    for name, points in lines.items():
        axes.plot(*zip(*points, strict=True), marker=".", label=name)
    axes.set_xscale("log")
    axes.set_xlabel("capacity (bytes)")
    axes.set_ylabel("misses of repeated accesses")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    _write(figure, Path(path))


def _mark_single_points(times: Sequence[float], rates: Sequence[float], axes: Any) -> None:
    """Mark each rate between two gaps, since a line of one point is invisible."""
    padded = [math.nan, *rates, math.nan]
    single = [
        index
        for index, rate in enumerate(rates)
        if rate == rate and math.isnan(padded[index]) and math.isnan(padded[index + 2])
    ]
    axes.plot(
        [times[index] for index in single],
        [rates[index] for index in single],
        marker=".",
        linestyle="none",
        color=RATE_STYLE["color"],
    )


def _draw_together(series: Series, axes: Any) -> Any:
    draw_hit_rate(series, axes)
    draw_usage(series, axes)
    axes.set_title("Usage and hit rate", loc="left")
    axes.set_ylabel("%")
    axes.set_ylim(-2, 102)
    return axes


def _write(figure: Any, path: Path) -> None:
    formats = figure.canvas.get_supported_filetypes()
    suffix = path.suffix.removeprefix(".").lower()
    if suffix not in formats:
        raise InvalidOptionError(
            f"{path.name!r} does not name a format; end it in one of {', '.join(sorted(formats))}"
        )
    try:
        figure.savefig(path)
    except OSError as error:
        raise StorageError(f"the plot could not be written to {path}: {error}") from error
