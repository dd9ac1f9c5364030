"""Writes a report of a manager as one HTML file, without scripts and external resources."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from memories._version import __version__
from memories.errors import StorageError
from memories.foundation.units import format_size
from memories.model.tiers import TierName
from memories.observe.analytics.html import (
    HOT_HEADS,
    LATENCY_HEADS,
    MOVE_HEADS,
    hot_rows,
    keys_of,
    latency_rows,
    move_rows,
    percent,
    table,
    tier_table,
)
from memories.observe.analytics.svg import line_chart

STYLE = (
    ":root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;"
    "margin:2rem auto;padding:0 1rem}table{border-collapse:collapse;margin:.5rem 0}"
    "td,th{border-bottom:1px solid #8888}svg{max-width:100%;height:auto}"
)


def write_report(
    path: str | os.PathLike[str],
    document: Mapping[str, Any],
    series: Mapping[str, Sequence[float]] | None,
) -> None:
    """Write the report of `document`, with charts if there are series.

    Raises:
        StorageError: the file cannot be written.
    """
    try:
        Path(path).write_text(report(document, series), "utf-8")
    except OSError as error:
        raise StorageError(f"the report could not be written to {path}: {error}") from error


def report(document: Mapping[str, Any], series: Mapping[str, Sequence[float]] | None) -> str:
    """Return the report as HTML."""
    when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(document["at"]))
    rate = percent(document["hit_rate_percent"])
    parts = [
        f"<h1>memories</h1><p>{escape(document['state'])}, as of {when}: {keys_of(document):,} keys"
        f", hit rate {rate} of {document['reads']:,} reads, {document['misses']:,} misses, "
        f"{document['failures']:,} failures.</p>",
        f"<h2>Tiers</h2>{tier_table(document)}",
        _charts(series),
        _section("Hot keys", table(HOT_HEADS, hot_rows(document["hot_keys"][:20]))),
        _section("Moves", table(("from", "to", "cause", "count", "size"), _routes(document))),
        _section("Latest moves", table(MOVE_HEADS, move_rows(document["latest_moves"][-20:]))),
        _section("Latency", table(LATENCY_HEADS, latency_rows(document["latencies"]))),
        _section("Compression", table(("tier", "values", "frames", "ratio"), _ratios(document))),
        f"<footer><p>Written by memories {__version__}.</p></footer>",
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>memories, {when}</title><style>{STYLE}</style></head>"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


def _section(title: str, body: str) -> str:
    return f"<h2>{title}</h2>{body}" if body else ""


def _charts(series: Mapping[str, Sequence[float]] | None) -> str:
    if series is None or not series["timestamps"]:
        return ""
    times = series["timestamps"]
    usage = {
        str(tier): series[f"{tier}_usage"] for tier in TierName if any(series[f"{tier}_usage"])
    }
    return (
        f"<h2>Usage, % of configured</h2>{line_chart(times, usage, title='usage over time')}"
        "<h2>Hit rate, %</h2>"
        + line_chart(times, {"hit rate": series["hit_rate"]}, title="hit rate over time", top=100.0)
    )


def _routes(document: Mapping[str, Any]) -> list[list[str]]:
    return [
        [
            move["source"], move["target"], move["cause"], f"{move['count']:,}",
            format_size(move["bytes"]),
        ]
        for move in document["moves"]
    ]  # fmt: skip


def _ratios(document: Mapping[str, Any]) -> list[list[str]]:
    return [
        [
            tier, format_size(one["raw_bytes"]), format_size(one["stored_bytes"]),
            "n/a" if one["compression"] is None else f"{one['compression']:.1f}",
        ]
        for tier, one in document["written"].items()
    ]  # fmt: skip
