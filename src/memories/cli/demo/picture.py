"""The picture of a session: the plot of the analytics, with the scenes marked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from memories.errors import StorageError
from memories.model.tiers import TierName
from memories.observe.analytics.plot_panels import STYLES, Series
from memories.observe.analytics.plots import plot

SHADES = ("#00000000", "#0000000d")


def draw(
    series: Series,
    scenes: list[tuple[str, float]],
    glacier: list[tuple[float, int]],
    path: Path,
) -> None:
    """Write the picture.

    Args:
        series: The series of the analytics.
        scenes: The names of the scenes, with their begin in seconds.
        glacier: Times in seconds, with the bytes in glacier: it has no limit for a percentage.
        path: The file to write.

    Raises:
        StorageError: the file cannot be written.
    """
    usage = plot(series)
    ends = [began for _, began in scenes[1:]] + [series["timestamps"][-1]]
    for number, ((name, began), end) in enumerate(zip(scenes, ends, strict=True)):
        for axes in usage.figure.axes:
            axes.axvspan(began, end, color=SHADES[number % 2], linewidth=0)
        _name(usage, name, began)
    _draw_glacier(usage, glacier)
    usage.set_ylim(0, 118)
    usage.figure.suptitle("Panning, zooming and clicking over a raster that is larger than the RAM")
    try:
        usage.figure.savefig(path)
    except OSError as error:
        raise StorageError(f"the picture could not be written to {path}: {error}") from error


def _draw_glacier(usage: Any, glacier: list[tuple[float, int]]) -> None:
    style = STYLES[TierName.GLACIER]
    axes = usage.twinx()
    axes.plot([at for at, _ in glacier], [held / 1e6 for _, held in glacier], **style)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("glacier (MB, dotted)")


def _name(axes: Any, name: str, began: float) -> None:
    axes.annotate(name, (began, 101), xytext=(3, 0), textcoords="offset points", fontsize="x-small")
