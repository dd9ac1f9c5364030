"""HTML of a manager: the fragment that a notebook shows, and the tables of a report.

Every text is escaped where it becomes HTML, in `cell`; only what is `Markup` is HTML already. The
HTML has no scripts, loads nothing, and takes the colours of the page around it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from memories.foundation.printable import printable
from memories.foundation.units import format_seconds, format_size, limit_words
from memories.observe.analytics.svg import COLOURS, sparkline

LAST_MOVES = 5


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def cell(text: str) -> str:
    """Return `text` as HTML."""
    return text if isinstance(text, Markup) else escape(text)


def fragment(document: Mapping[str, Any], series: Mapping[str, Sequence[float]] | None) -> str:
    """Return the fragment for a notebook: a bar for each tier, the hit rate, the last moves."""
    moves = move_rows(document["latest_moves"][-LAST_MOVES:])
    line = ""
    if series is not None:
        line = sparkline(series["hit_rate"], title="hit rate over time")
    rate = percent(document["hit_rate_percent"])
    return (
        '<div style="font: 13px system-ui, sans-serif">'
        f"<strong>MemoryManager</strong> ({escape(document['state'])}) · {keys_of(document):,} keys"
        f" · hit rate {rate} of {document['reads']:,} reads {line}"
        f"{tier_table(document)}"
        f"<details><summary>last moves and hot keys</summary>"
        f"{table(MOVE_HEADS, moves)}{table(HOT_HEADS, hot_rows(document['hot_keys'][:10]))}"
        "</details></div>"
    )


def tier_table(document: Mapping[str, Any]) -> str:
    """Return a table of the tiers, with bars."""
    rows = [
        [
            name,
            _bar(tier["usage_percent"], COLOURS[index % len(COLOURS)]),
            format_size(tier["used_bytes"]),
            limit_words(tier["configured_bytes"]),
            f"{tier['keys']:,}",
            f"{tier['hits']:,}",
            tier["medium"],
        ]
        for index, (name, tier) in enumerate(document["tiers"].items())
    ]
    return table(("tier", "usage", "holds", "of", "keys", "hits", "medium"), rows)


MOVE_HEADS = ("time (UTC)", "key", "move", "cause", "size")
HOT_HEADS = ("hot key", "tier", "size", "hits", "reads/s")
LATENCY_HEADS = ("operation", "tier", "count", "p50", "p90", "p99")


def move_rows(moves: Iterable[Mapping[str, Any]]) -> list[list[str]]:
    """Return rows for `MOVE_HEADS`, latest first."""
    rows = [
        [
            time.strftime("%H:%M:%S", time.gmtime(move["at"])),
            printable(move["key"]),
            f"{move['source']} → {move['target']}",
            move["cause"],
            format_size(move["size"]),
        ]
        for move in moves
    ]
    return rows[::-1]


def hot_rows(keys: Iterable[Mapping[str, Any]]) -> list[list[str]]:
    """Return rows for `HOT_HEADS`."""
    return [
        [
            printable(one["key"]),
            one["tier"],
            format_size(one["size"]),
            f"{one['hits']:,}",
            f"{one['rate']:.1f}",
        ]
        for one in keys
    ]


def latency_rows(latencies: Iterable[Mapping[str, Any]]) -> list[list[str]]:
    """Return rows for `LATENCY_HEADS`."""
    return [
        [
            one["operation"],
            one["tier"],
            f"{one['count']:,}",
            *(format_seconds(one[name]) for name in ("p50", "p90", "p99")),
        ]
        for one in latencies
    ]


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; an empty string without rows."""
    if not rows:
        return ""
    style = 'style="text-align: left; padding: 1px 12px 1px 0"'
    head = "".join(f'<th scope="col" {style}>{cell(one)}</th>' for one in heads)
    body = "".join(
        "<tr>" + "".join(f"<td {style}>{cell(one)}</td>" for one in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def keys_of(document: Mapping[str, Any]) -> int:
    """Return the number of keys in all tiers."""
    return sum(int(tier["keys"]) for tier in document["tiers"].values())


def percent(value: float | None) -> str:
    """Return a percentage as text, "n/a" for None or NaN."""
    return "n/a" if value is None or math.isnan(value) else f"{value:.1f} %"


def _bar(share: float, colour: str) -> Markup:
    width = max(0.0, min(100.0, share))
    return Markup(
        '<span style="display: inline-block; width: 120px; height: 10px; border: 1px solid '
        f'currentColor"><span style="display: block; width: {width:.1f}%; height: 100%; '
        f'background: {colour}"></span></span> {share:.1f} %'
    )
