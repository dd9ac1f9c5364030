"""The screen of `top`: tiers with bars and history, the hottest keys, the latest moves."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from memories.cli.output import escape, usage_bar
from memories.cli.telemetry_source import FileSource
from memories.cli.top.keys import HELP, Keyboard, TopView
from memories.foundation.optional_imports import require
from memories.foundation.units import format_size, limit_words

BAR_CELLS = 12
WIDE_COLUMNS = 120  # Wide enough for the history and the media.
HISTORY_CELLS = 24
LEVELS = " ▁▂▃▄▅▆▇█"
ROWS_BESIDE = 14  # Rows of the screen that do not belong to a list.
KEY_SECONDS = 0.1
STYLES = {"hot": "red", "warm": "yellow", "cold": "blue", "glacier": "cyan"}


class RecentBars:
    """Recent usage and hit rates, since this command was started."""

    def __init__(self) -> None:
        self.usage: dict[str, deque[float]] = {}
        self.rates: deque[float | None] = deque(maxlen=HISTORY_CELLS)
        self._before: tuple[int, int] | None = None

    def add(self, document: Mapping[str, Any]) -> None:
        """Add the current state."""
        hits = sum(document["tiers"].get(name, {}).get("hits", 0) for name in ("hot", "warm"))
        reads = document["reads"]
        for name, tier in document["tiers"].items():
            cells = self.usage.setdefault(name, deque(maxlen=HISTORY_CELLS))
            cells.append(tier["usage_percent"])
        if self._before is not None:
            read = reads - self._before[1]
            self.rates.append(100 * (hits - self._before[0]) / read if read > 0 else None)
        self._before = (hits, reads)


def show_once(source: FileSource, view: TopView) -> None:
    """Print one screen, of any height."""
    document, recent = source.document(), RecentBars()
    recent.add(document)
    console = require("rich.console", extra="terminal").Console()
    console.print(screen(document, recent, view, rows=20, wide=console.width >= WIDE_COLUMNS))


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
            wide = console.width >= WIDE_COLUMNS
            live.update(screen(document, recent, view, rows=rows, wide=wide), refresh=True)
            for key in keyboard.read(min(KEY_SECONDS, interval)):
                view.press(key)


def screen(
    document: Mapping[str, Any], recent: RecentBars, view: TopView, *, rows: int, wide: bool
) -> Any:
    """Return the whole screen, for rich to draw."""
    group = require("rich.console", extra="terminal").Group
    text = require("rich.text", extra="terminal").Text
    foot = HELP if view.helping else "? help"
    if view.typing or view.pattern:
        foot = f"filter: {escape(view.pattern)}{'_' if view.typing else ''}   {foot}"
    return group(
        text(head(document, recent), style="bold", no_wrap=True, overflow="ellipsis"),
        tier_table(document, recent, wide=wide),
        hot_table(document, view, rows),
        move_table(document, view, rows),
        text(("paused   " if view.paused else "") + foot, style="dim"),
    )


def head(document: Mapping[str, Any], recent: RecentBars) -> str:
    """Return the line above the tables."""
    rate = document["hit_rate_percent"]
    words = "no reads" if rate is None else f"hit rate {rate:.1f} % of {document['reads']:,} reads"
    line = "".join(" " if one is None else level(one) for one in recent.rates)
    when = time.strftime("%H:%M:%S", time.localtime(document["at"]))
    failures = f"  {document['failures']} failures" if document["failures"] else ""
    state = document["state"] + (f" pid {document['pid']}" if document["state"] == "open" else "")
    return f"{when}  {state}  {words} {line}  {document['misses']:,} misses{failures}"


def tier_table(document: Mapping[str, Any], recent: RecentBars, *, wide: bool) -> Any:
    """Return the tiers with their bars."""
    more = ("history", "medium") if wide else ()
    table = _table("tier", "usage", ">holds", ">of", ">keys", ">hits", *more)
    for name, tier in document["tiers"].items():
        table.add_row(
            name,
            f"{usage_bar(tier['usage_percent'], BAR_CELLS)} {tier['usage_percent']:5.1f} %",
            format_size(tier["used_bytes"]),
            limit_words(tier["configured_bytes"]),
            f"{tier['keys']:,}",
            f"{tier['hits']:,}",
            *(("".join(map(level, recent.usage.get(name, ()))), tier["medium"]) if wide else ()),
            style=STYLES.get(name, ""),
        )
    return table


def hot_table(document: Mapping[str, Any], view: TopView, rows: int) -> Any:
    """Return the hottest keys, in the chosen order."""
    marks = {name: f"{name} v" if name == view.sort else name for name in ("rate", "hits", "size")}
    table = _table("hot key", "tier", *(f">{marks[name]}" for name in ("size", "hits", "rate")))
    for one in view.choose(document["hot_keys"])[:rows]:
        size = format_size(one["size"])
        table.add_row(
            escape(one["key"]), one["tier"], size, f"{one['hits']:,}", f"{one['rate']:.1f}/s"
        )
    return table


def move_table(document: Mapping[str, Any], view: TopView, rows: int) -> Any:
    """Return the latest moves, latest first."""
    table = _table("moved", "key", "from", "to", "cause", ">size")
    moves = [move for move in document["latest_moves"] if view.pattern in move["key"]]
    for move in moves[: -rows - 1 : -1]:
        when = time.strftime("%H:%M:%S", time.localtime(move["at"]))
        size = format_size(move["size"])
        table.add_row(
            when, escape(move["key"]), move["source"], move["target"], move["cause"], size
        )
    return table


def level(percent: float) -> str:
    """Return one character as high as `percent`."""
    return LEVELS[max(0, min(len(LEVELS) - 1, round(percent / 100 * (len(LEVELS) - 1))))]


def _table(*heads: str) -> Any:
    table = require("rich.table", extra="terminal").Table(box=None, pad_edge=False, expand=False)
    for name in heads:
        right = name.startswith(">")
        table.add_column(
            name.removeprefix(">"), justify="right" if right else "left", no_wrap=True,
            overflow="ellipsis",
        )  # fmt: skip
    return table
