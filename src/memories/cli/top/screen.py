"""The screen of `top`: tiers with bars and history, the hottest keys, the latest moves."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from memories.cli.output import escape, usage_bar
from memories.cli.telemetry_source import FileSource
from memories.cli.top.keys import HELP, Keyboard, TopView
from memories.foundation.optional_imports import require
from memories.foundation.units import format_size, limit_words

BAR_CELLS = 12
HISTORY_CELLS = 24
LEVELS = " ▁▂▃▄▅▆▇█"
ROWS_BESIDE = 16  # Rows of the screen that do not belong to a list.
KEY_SECONDS = 0.1
ONCE_SECONDS = 1.5  # A busy writer writes its file once a second.
KEY_CELLS = 10  # A key may be shortened to so many characters, a number never.
GAP = 2  # Between two columns.
# Readable on black and on white: plain blue is not on the one, plain yellow not on the other.
STYLES = {"hot": "bright_red", "warm": "dark_orange", "cold": "dodger_blue1", "glacier": "cyan3"}
COUNTED = ("reads", "stored", "moved")


class Column(NamedTuple):
    """A column of a table; those with the highest `rank` are left out where all do not fit."""

    head: str
    cells: Sequence[str]
    rank: int = 0
    right: bool = True
    shortens: bool = False  # A text, whose end may be cut.

    @property
    def width(self) -> int:
        """Return the least number of characters that it needs."""
        natural = max(map(len, (self.head, *self.cells)))
        return min(natural, max(KEY_CELLS, len(self.head))) if self.shortens else natural


class RecentBars:
    """Recent usage, hit rates and rates of calls, since this command was started."""

    def __init__(self) -> None:
        self.usage: dict[str, deque[float]] = {}
        self.rates: deque[float | None] = deque(maxlen=HISTORY_CELLS)
        self.per_second: dict[str, float] = {}  # By what is counted, and by tier for its hits.
        self._before: tuple[float, dict[str, int]] | None = None

    def add(self, document: Mapping[str, Any]) -> None:
        """Add the current state."""
        for name, tier in document["tiers"].items():
            cells = self.usage.setdefault(name, deque(maxlen=HISTORY_CELLS))
            cells.append(tier["usage_percent"])
        counts = {name: tier["hits"] for name, tier in document["tiers"].items()}
        moved = sum(one["count"] for one in document["moves"])
        counts.update(reads=document["reads"], stored=document["stored"], moved=moved)
        at = document["at"]
        if self._before is None:
            self._before = at, counts
            return
        began, before = self._before
        read = counts["reads"] - before["reads"]
        hits = sum(counts.get(name, 0) - before.get(name, 0) for name in ("hot", "warm"))
        self.rates.append(100 * hits / read if read > 0 else None)
        if at > began:  # Otherwise the writer has written no new file: the rates are still those.
            self.per_second = {
                name: max(0.0, (count - before.get(name, 0)) / (at - began))
                for name, count in counts.items()
            }
            self._before = at, counts


def show_once(source: FileSource, view: TopView) -> None:
    """Print one screen, of any height."""
    document, recent = source.document(), RecentBars()
    recent.add(document)
    until = time.monotonic() + ONCE_SECONDS
    while document["state"] == "open" and not recent.per_second and time.monotonic() < until:
        time.sleep(KEY_SECONDS)  # A rate needs a second file of the writer.
        document = source.document()
        recent.add(document)
    console = require("rich.console", extra="terminal").Console()
    console.print(screen(document, recent, view, rows=20, width=console.width))


def show_live(source: FileSource, view: TopView, interval: float) -> None:
    """Draw until the user quits, then restore the terminal."""
    console = require("rich.console", extra="terminal").Console()
    live_class = require("rich.live", extra="terminal").Live
    recent, document, due = RecentBars(), source.document(), 0.0
    with (
        Keyboard() as keyboard,
        live_class(console=console, screen=True, auto_refresh=False) as live,
    ):
        while not view.ended:
            now = time.monotonic()
            if now >= due and not view.paused:
                document, due = source.document(), now + interval
                recent.add(document)
            rows = max(3, console.size.height - ROWS_BESIDE) // 2
            shown = screen(document, recent, view, rows=rows, width=console.width)
            live.update(shown, refresh=True)
            for key in keyboard.read(min(KEY_SECONDS, interval)):
                view.press(key)


def screen(
    document: Mapping[str, Any], recent: RecentBars, view: TopView, *, rows: int, width: int
) -> Any:
    """Return the whole screen, for rich to draw."""
    group = require("rich.console", extra="terminal").Group
    text = require("rich.text", extra="terminal").Text
    foot = HELP if view.helping else "? help"
    if view.typing or view.pattern:
        foot = f"filter: {escape(view.pattern)}{'_' if view.typing else ''}   {foot}"
    return group(
        text(head(document), style="bold", no_wrap=True, overflow="ellipsis"),
        text(activity(document, recent) + "\n"),
        _table(tier_columns(document, recent), width, [
            STYLES.get(name, "") for name in document["tiers"]
        ]),
        "",
        _table(key_columns(document, view, rows), width),
        "",
        _table(move_columns(document, view, rows), width),
        text(("paused   " if view.paused else "") + foot, style="dim"),
    )  # fmt: skip


def head(document: Mapping[str, Any]) -> str:
    """Return the line that names the store: its name, its state and the time."""
    when = time.strftime("%H:%M:%S", time.localtime(document["at"]))
    state = escape(document["state"]) + (
        f" pid {document['pid']}" if document["state"] == "open" else ""
    )
    return f"{escape(document.get('store') or 'memories')}  {state}  {when}"


def activity(document: Mapping[str, Any], recent: RecentBars) -> str:
    """Return the line of counts and rates; it may take two rows."""
    rate = document["hit_rate_percent"]
    words = "no reads" if rate is None else f"hit rate {rate:.1f} % of {document['reads']:,} reads"
    bars = "".join(" " if one is None else level(one) for one in recent.rates)
    parts = [f"{words} {bars}".rstrip(), f"{document['misses']:,} misses"]
    parts += [f"{name} {recent.per_second[name]:,.1f}/s" for name in COUNTED if recent.per_second]
    if document["failures"]:
        parts.append(f"{document['failures']:,} failures")
    return "  ".join(parts)


def tier_columns(document: Mapping[str, Any], recent: RecentBars) -> list[Column]:
    """Return the tiers with their bars."""
    tiers = document["tiers"]
    every = list(tiers.values())
    rates = [recent.per_second.get(name) for name in tiers]
    columns = [
        Column("tier", list(tiers), right=False),
        Column("", [usage_bar(one["usage_percent"], BAR_CELLS) for one in every], 3, right=False),
        Column("usage", [f"{one['usage_percent']:.1f} %" for one in every]),
        Column("holds", [format_size(one["used_bytes"]) for one in every]),
        Column("of", [limit_words(one["configured_bytes"]) for one in every], 2),
        Column("keys", [f"{one['keys']:,}" for one in every], 1),
        Column("hits", [f"{one['hits']:,}" for one in every]),
        Column("hits/s", ["-" if one is None else f"{one:,.1f}" for one in rates], 1),
        Column("medium", [escape(one["medium"]) for one in every], 5, right=False, shortens=True),
    ]
    past = ["".join(map(level, recent.usage.get(name, ()))) for name in tiers]
    if len(recent.rates) > 1:
        columns.insert(-1, Column("history", past, 4, right=False))
    return columns


def key_columns(document: Mapping[str, Any], view: TopView, rows: int) -> list[Column]:
    """Return the hottest keys, in the chosen order."""
    marks = {name: f"{name} v" if name == view.sort else name for name in ("rate", "hits", "size")}
    keys = view.choose(document["hot_keys"])[:rows]
    return [
        Column("hot key", [escape(one["key"]) for one in keys], right=False, shortens=True),
        Column("tier", [one["tier"] for one in keys], right=False),
        Column(marks["size"], [format_size(one["size"]) for one in keys], 1),
        Column(marks["hits"], [f"{one['hits']:,}" for one in keys]),
        Column(marks["rate"], [f"{one['rate']:,.1f}/s" for one in keys]),
    ]


def move_columns(document: Mapping[str, Any], view: TopView, rows: int) -> list[Column]:
    """Return the latest moves, latest first."""
    moves = [move for move in document["latest_moves"] if view.pattern in move["key"]]
    moves = moves[: -rows - 1 : -1]
    times = [time.strftime("%H:%M:%S", time.localtime(one["at"])) for one in moves]
    return [
        Column("moved", times, right=False),
        Column("key", [escape(one["key"]) for one in moves], right=False, shortens=True),
        Column("from", [one["source"] for one in moves], right=False),
        Column("to", [one["target"] for one in moves], right=False),
        Column("cause", [escape(one["cause"]) for one in moves], 1, right=False),
        Column("size", [format_size(one["size"]) for one in moves], 2),
    ]


def level(percent: float) -> str:
    """Return one character as high as `percent`."""
    return LEVELS[max(0, min(len(LEVELS) - 1, round(percent / 100 * (len(LEVELS) - 1))))]


def fitting(columns: Sequence[Column], width: int) -> list[Column]:
    """Return the columns that fit into `width` characters without cutting a number."""
    chosen = list(columns)
    while sum(one.width + GAP for one in chosen) - GAP > width:
        last = max(chosen, key=lambda one: one.rank)
        if last.rank == 0:
            break
        chosen.remove(last)
    return chosen


def _table(columns: Sequence[Column], width: int, styles: Sequence[str] = ()) -> Any:
    text = require("rich.text", extra="terminal").Text
    table = require("rich.table", extra="terminal").Table(
        box=None, pad_edge=False, expand=False, padding=(0, GAP, 0, 0)
    )
    chosen = fitting(columns, width)
    rest = width - sum(one.width + GAP for one in chosen) + GAP
    for one in chosen:
        most = one.width + max(0, rest) if one.shortens else one.width
        table.add_column(
            one.head, justify="right" if one.right else "left", no_wrap=True, overflow="ellipsis",
            min_width=one.width, max_width=most,
        )  # fmt: skip
    for row, cells in enumerate(zip(*(one.cells for one in chosen), strict=True)):
        # A str would be read as markup: the key "[/x]" would be an error, "[red]" a colour.
        table.add_row(*map(text, cells), style=styles[row] if styles else "")
    return table
