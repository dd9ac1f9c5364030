"""How a manager shows itself: in a line, in a notebook, in a picture and in a file."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from memories import MemoryManager, StorageError
from memories.foundation import system
from memories.observe.analytics.svg import line_chart, sparkline

HOSTILE = "<script>alert(1)</script>"


class Tags(HTMLParser):
    """Collects tags, and fails where one is closed that is not open."""

    VOID = frozenset({"meta", "line", "circle", "polyline"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.feed(page)
        assert [] == self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember a tag."""
        self.seen.add(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember a tag that closes itself."""
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        """Close the tag that was opened last."""
        assert tag == self.open.pop()


def used() -> MemoryManager:
    """Return a manager in which something has happened."""
    manager = MemoryManager("1MB", "1MB", 1, True, migration=False)
    manager.enable_analytics(interval=3600)
    manager.store(HOSTILE, np.arange(100.0), tier="warm")
    manager.retrieve(HOSTILE)
    manager.migrate(HOSTILE, "cold")
    manager.retrieve(HOSTILE)
    return manager


def test_line_and_notebook_say_the_same() -> None:
    """Tiers, keys, hit rate, the last move; a key is text in both."""
    with used() as manager:
        line, page = repr(manager), manager._repr_html_()
        assert "1 keys" in line
        assert "hit rate 50 % of 2 reads" in line
        assert "to cold" in line
        assert "no limit" in line
        for words in ("1 keys", "50.0 %", "warm → cold", "no limit", "host RAM"):
            assert words in page
        assert HOSTILE not in page
        assert "script" not in Tags(page).seen
        assert "svg" in Tags(page).seen
    assert "closed" in repr(manager)
    assert "closed" in manager._repr_html_()


def test_a_report_is_one_whole_file(tmp_path: Path) -> None:
    """Well-formed, self-contained, with charts while there are series."""
    with used() as manager:
        manager.report(tmp_path / "report.html")
        page = (tmp_path / "report.html").read_text("utf-8")
        with pytest.raises(StorageError, match="none"):
            manager.report(tmp_path / "none" / "report.html")
    assert {"main", "svg", "table"} <= Tags(page).seen
    assert not {"script", "img", "link", "iframe"} & Tags(page).seen
    assert HOSTILE not in page
    assert "src=" not in page


def test_charts_have_gaps_where_there_is_no_number() -> None:
    """A line through the time without reads would be a lie."""
    nan = float("nan")
    times = [0.0, 1.0, 2.0, 3.0, 4.0]
    chart = line_chart(times, {"rate": [1.0, 2.0, nan, 3.0, 4.0]}, title="t")
    assert 2 == chart.count("<polyline")
    lonely = line_chart(times, {"rate": [nan, 2.0, nan, nan, nan]}, title="t")
    assert (0, 1) == (lonely.count("<polyline"), lonely.count("<circle"))
    assert "nan" not in chart + lonely + sparkline([nan, 50.0, nan], title="t")
    assert "<svg" in line_chart([], {"rate": []}, title="t")


def test_the_picture_has_a_panel_for_whatever_there_is() -> None:
    """Moves, latency, heat and the curve join usage and hit rate; none is empty."""
    pytest.importorskip("matplotlib")
    with used() as manager:
        for number in range(40):
            manager.store(f"tile/{number}", np.arange(100.0), tier="warm")
        for _ in range(5):
            for number in range(40):
                manager.retrieve(f"tile/{number}")
        figure = manager.plot_analytics().figure
    titles = {axes.get_title(loc="left") for axes in figure.axes}
    expected = {
        "Usage", "Hit rate", "Bytes held", "Reads", "Moves", "Latency of retrieve",
        "Latency of move", "Reads of keys in RAM, by prefix",
    }  # fmt: skip
    if system.PROC.is_dir():
        expected.add("RAM of the process")
    assert expected <= titles
    assert all(axes.lines or axes.patches for axes in figure.axes)
    for axes in figure.axes:
        styles = {
            (line.get_color(), line.get_linestyle(), line.get_marker()) for line in axes.lines
        }
        assert len(styles) == len(axes.lines)
