"""The plot: drawn without a display, into a file, an Axes or a figure of its own."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from memories.errors import InvalidOptionError, StorageError
from memories.observe.analytics import plot
from memories.observe.analytics.plot_panels import STYLES

matplotlib = pytest.importorskip("matplotlib")

SERIES = {
    "timestamps": [0.0, 1.0, 2.0, 3.0],
    "hot_usage": [0.0, 40.0, 80.0, 60.0],
    "warm_usage": [0.0, 0.0, 10.0, 30.0],
    "cold_usage": [0.0, 0.0, 0.0, 1.0],
    "glacier_usage": [0.0, 0.0, 0.0, 0.0],
    "hit_rate": [math.nan, 50.0, math.nan, 100.0],
}


def labels_of(axes: object) -> list[str]:
    """Return what the legend says."""
    return [text.get_text() for text in axes.get_legend().get_texts()]  # type: ignore[attr-defined]


def test_a_path_gets_a_picture_of_both(tmp_path: Path) -> None:
    """One call, one file to look at."""
    axes = plot(SERIES, tmp_path / "usage.png")
    assert (tmp_path / "usage.png").read_bytes().startswith(b"\x89PNG")
    assert 2 == len(axes.figure.axes)
    assert ["hot", "warm", "cold"] == labels_of(axes)


def test_a_path_may_be_a_str_and_its_suffix_chooses_the_format(tmp_path: Path) -> None:
    """As everywhere else in matplotlib."""
    plot(SERIES, str(tmp_path / "usage.svg"))
    assert "<svg" in (tmp_path / "usage.svg").read_text("utf-8")


def test_without_a_path_the_figure_is_the_callers(tmp_path: Path) -> None:
    """A user who wants another size or title changes the figure before saving it."""
    figure = plot(SERIES).figure
    figure.suptitle("mine")
    figure.savefig(tmp_path / "mine.pdf")
    assert [] == [one for one in tmp_path.iterdir() if one.name != "mine.pdf"]


def test_an_axes_of_the_callers_is_drawn_into_and_given_back() -> None:
    """The conventions of matplotlib: takes Axes, returns Axes."""
    from matplotlib.figure import Figure

    mine = Figure().subplots()
    assert mine is plot(SERIES, mine)
    assert ["hit rate", "hot", "warm", "cold"] == labels_of(mine)


def test_a_glacier_that_holds_something_is_drawn() -> None:
    """Only where it is off, or empty, does it leave the legend alone."""
    axes = plot(SERIES | {"glacier_usage": [0.0, 1.0, 1.0, 1.0]})
    assert "glacier" in labels_of(axes)


def test_a_rate_between_two_gaps_is_visible() -> None:
    """A line through one point draws nothing at all."""
    rate = plot(SERIES).figure.axes[1]
    lonely = [line for line in rate.lines if line.get_linestyle() == "None"]
    assert [1.0, 3.0] == [x for line in lonely for x in line.get_xdata()]


def test_lines_differ_by_more_than_colour() -> None:
    """One man in twelve cannot tell red from green, and printers cannot either."""
    assert len(STYLES) == len({style["color"] for style in STYLES.values()})
    assert len(STYLES) == len({style["linestyle"] for style in STYLES.values()})


def test_a_suffix_that_is_no_format_is_refused_with_the_formats(tmp_path: Path) -> None:
    """A file that came out as something else than it is called would be found out too late."""
    with pytest.raises(InvalidOptionError, match="png"):
        plot(SERIES, tmp_path / "usage.doc")
    assert [] == list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """The caller learns which path it was."""
    with pytest.raises(StorageError, match="missing"):
        plot(SERIES, tmp_path / "missing" / "usage.png")


def test_nothing_is_shown_and_pyplot_is_left_alone(tmp_path: Path) -> None:
    """A server has no display, and a notebook has figures of its own."""
    code = (
        "import sys\n"
        "from memories.observe.analytics import plot\n"
        f"plot({{**{ {name: [0.0, 1.0] for name in SERIES}!r} }}, {str(tmp_path / 'a.png')!r})\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "DISPLAY"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=240)


def test_analytics_can_be_imported_without_matplotlib() -> None:
    """It is an extra: only plots need it."""
    code = "import sys, memories.observe.analytics\nassert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=240)
