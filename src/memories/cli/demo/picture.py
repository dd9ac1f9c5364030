"""The picture of a session: the plot of the analytics, with the scenes marked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from memories.errors import StorageError
from memories.observe.analytics.plot_panels import Series
from memories.observe.analytics.plots import plot

SHADES = ("#00000000", "#0000000d")


def draw(series: Series, scenes: list[tuple[str, float]], path: Path) -> None:
    """Write the picture.

    Args:
        series: The series of the analytics.
        scenes: The names of the scenes, with their begin in seconds.
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
    usage.figure.suptitle("Panning, zooming and clicking over a raster that is larger than the RAM")
    try:
        usage.figure.savefig(path)
    except OSError as error:
        raise StorageError(f"the picture could not be written to {path}: {error}") from error


def _name(axes: Any, name: str, began: float) -> None:
    """Write the name of a scene upwards, where it begins: a panel is too narrow for all of them."""
    axes.annotate(
        name, (began, 3), xytext=(3, 0), textcoords="offset points", fontsize="x-small", rotation=90
    )
