"""Shows the tiers while the demo runs: a live table in a terminal, otherwise some lines."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

import click

from memories.cli.demo.watch import NEIGHBOURS, DemoWatch, Pair
from memories.cli.output import usage_bar
from memories.foundation.optional_imports import MissingPackageError, require
from memories.foundation.units import format_size, limit_words

if TYPE_CHECKING:
    from memories.observe.counters import Stats

REFRESH_SECONDS = 0.2
LINE_SECONDS = 4.0
BAR_CELLS = 24


class DemoDisplay(Protocol):
    """Shows the state of the tiers; called after every frame, and limits its own rate."""

    def __call__(self, scene: str) -> None:
        """Show the state during `scene`."""


@contextmanager
def shown(watch: DemoWatch) -> Iterator[DemoDisplay]:
    """Yield a display that suits the standard error."""
    if sys.stderr.isatty():
        try:
            rich_live = require("rich.live", extra="terminal")
        except MissingPackageError:
            yield _Lines(watch)
            return
        console = require("rich.console", extra="terminal").Console(stderr=True)
        with rich_live.Live(console=console, auto_refresh=False) as live:
            yield _Table(watch, live)
    else:
        yield _Lines(watch)


class _Lines:
    """One line every few seconds."""

    def __init__(self, watch: DemoWatch) -> None:
        self._watch = watch
        self._started_at = monotonic()
        self._next_at = 0.0

    def __call__(self, scene: str) -> None:
        stats = self._watch.read()
        at = monotonic() - self._started_at
        if at < self._next_at:
            return
        self._next_at = at + LINE_SECONDS
        tiers = "  ".join(
            f"{name} {tier.keys:>3} keys {format_size(tier.used_bytes):>8}"
            for name, tier in stats.tiers.items()
        )
        click.echo(f"{at:5.1f} s  {scene:<15} {tiers}  {rate(stats)}", err=True)


class _Table:
    """A table that is redrawn in place."""

    def __init__(self, watch: DemoWatch, live: Any) -> None:
        self._watch = watch
        self._live = live
        self._started_at = monotonic()
        self._next_at = 0.0

    def __call__(self, scene: str) -> None:
        stats = self._watch.read()
        now = monotonic()
        if now < self._next_at:
            return
        self._next_at = now + REFRESH_SECONDS
        self._live.update(self._draw(scene, stats), refresh=True)

    def _draw(self, scene: str, stats: Stats) -> Any:
        table = require("rich.table", extra="terminal").Table(
            title=f"{monotonic() - self._started_at:4.1f} s  {scene:<17} {rate(stats)}",
            title_justify="left",
        )
        for heading in ("tier", "usage"):
            table.add_column(heading)
        for heading in ("holds", "of", "keys", "answered", "down", "up"):
            table.add_column(heading, justify="right")
        for (name, tier), moves in zip(stats.tiers.items(), self._moves(), strict=True):
            size = format_size(tier.used_bytes)
            row = (
                str(name),
                usage_bar(tier.usage_percent, BAR_CELLS),
                size,
                limit_words(tier.configured_bytes),
            )
            table.add_row(*row, f"{tier.keys:,}", f"{tier.hits:,}", *moves)
        return table

    def _moves(self) -> Iterator[tuple[str, str]]:
        """Yield, for each tier, the moves to the next slower tier and back."""
        for down in NEIGHBOURS:
            up: Pair = (down[1], down[0])
            yield f"{self._watch.moves[down]:,}", f"{self._watch.moves[up]:,}"
        yield "", ""


def rate(stats: Stats) -> str:
    """Return the hit rate so far as text."""
    return f"hit rate {stats.hit_rate_percent:.0f} %" if stats.reads else ""
