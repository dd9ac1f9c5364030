"""Writes a report of a manager as one HTML file, without scripts and external resources.

It has the design of the dashboard: the same style sheet, the same sections, the same colours.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from memories._version import __version__
from memories.errors import StorageError
from memories.foundation.printable import printable
from memories.foundation.units import format_seconds, format_size, limit_words
from memories.model.tiers import Cause, TierName
from memories.observe.analytics.html import (
    HOT_HEADS,
    LATENCY_HEADS,
    MOVE_HEADS,
    Markup,
    cell,
    hot_rows,
    keys_of,
    latency_rows,
    move_rows,
    percent,
)
from memories.observe.analytics.series import rates
from memories.observe.analytics.svg import line_chart

Series = Mapping[str, Sequence[float]]

# Columns whose cells are numbers, and stand to the right.
NUMBERS = {
    "holds", "of", "keys", "hits", "size", "reads/s", "count", "p50", "p90", "p99", "ratio",
    "values", "frames",
}  # fmt: skip
PLAIN = ("miss", "hit rate", "resident (RSS)")  # Lines in the colour of the text.
CHART_WIDTH, CHART_HEIGHT = 420, 170


def _count(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


class Chart(NamedTuple):
    """A chart over time.

    Attributes:
        lines: The names of the series by their labels.
        show: Returns a value of the axis as text.
        rate: Whether the growth per second is drawn, of counts.
        top: The end of the axis, None for the largest value.
        log: Whether the axis is logarithmic.
    """

    title: str
    lines: Mapping[str, str]
    show: Callable[[float], str] = _count
    rate: bool = False
    top: float | None = None
    log: bool = False


def _of_tiers(ending: str) -> dict[str, str]:
    return {str(name): f"{name}_{ending}" for name in TierName}


_MEMORY = {"resident (RSS)": "rss_bytes", "hot": "hot_used_bytes", "warm": "warm_used_bytes"}
_MOVED = {str(cause): f"moved_bytes_{cause}" for cause in Cause}
CHARTS = (
    Chart("Reads/s, by the tier that answered", {**_of_tiers("hits"), "miss": "misses"}, rate=True),
    Chart("Hit rate, % of the reads of two seconds", {"hit rate": "hit_rate"}, top=100.0),
    Chart("Bytes held", _of_tiers("used_bytes"), format_size, log=True),
    Chart("Usage, % of configured", _of_tiers("usage")),
    Chart("Moved, bytes/s, by cause", _MOVED, format_size, rate=True),
    Chart("RAM of the process", _MEMORY, format_size),
    *(
        Chart(
            f"Latency of {name}: {part}",
            _of_tiers(f"{name}_{part}_seconds"),
            format_seconds,
            log=True,
        )
        for name in ("retrieve", "store", "move", "write")
        for part in ("p50", "p99")
    ),
)


def write_report(
    path: str | os.PathLike[str], document: Mapping[str, Any], series: Series | None
) -> None:
    """Write the report of `document`, with charts if there are series.

    Raises:
        StorageError: the file cannot be written.
    """
    try:
        Path(path).write_text(report(document, series), "utf-8")
    except OSError as error:
        raise StorageError(f"the report could not be written to {path}: {error}") from error


def report(document: Mapping[str, Any], series: Series | None) -> str:
    """Return the report as HTML."""
    when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(document["at"]))
    name = escape(document.get("store") or "memories")
    style = files("memories.observe.dashboard").joinpath("static", "style.css").read_text("utf-8")
    sections = [
        _now(document),
        _section("Tiers", _tiers(document) + _facts(document)),
        _charts(series),
        _section("Hot keys", _table(HOT_HEADS, hot_rows(document["hot_keys"][:20])), "half"),
        _section(
            "Moves", _table(("from", "to", "cause", "count", "size"), _routes(document)), "half"
        ),
        _section(
            "Latest moves", _table(MOVE_HEADS, move_rows(document["latest_moves"][-20:])), "half"
        ),
        _section(
            "Latency, all in all",
            _table(LATENCY_HEADS, latency_rows(document["latencies"])),
            "half",
        ),
        _section(
            "Compression", _table(("tier", "values", "frames", "ratio"), _ratios(document)), "half"
        ),
        _section("Pinned in RAM", _table(("key", "tier", "size"), _pinned(document)), "half"),
        _section("Configuration", _configuration(document)),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{name}, {when}</title><style>{style}</style></head><body>"
        f'<header><h1>{name}</h1><p id="state">{escape(document["state"])}, as of {when}, '
        f"written by memories {__version__}</p></header>"
        f"<main>{''.join(sections)}</main></body></html>\n"
    )


def _section(title: str, body: str, kind: str = "") -> str:
    return f'<section class="{kind}"><h2>{title}</h2>{body}</section>' if body else ""


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; an empty string without rows."""
    if not rows:
        return ""
    kinds = [' class="n"' if head in NUMBERS else "" for head in heads]
    head = "".join(
        f'<th scope="col"{kind}>{cell(one)}</th>' for one, kind in zip(heads, kinds, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(f"<td{kind}>{cell(one)}</td>" for one, kind in zip(row, kinds, strict=True))
        + "</tr>"
        for row in rows
    )
    rows_of_all = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="scroll" tabindex="0"><table>{rows_of_all}</table></div>'


def _terms(kind: str, pairs: Iterable[tuple[str, str]]) -> str:
    terms = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in pairs
    )
    return f'<dl class="{kind}">{terms}</dl>'


def _now(document: Mapping[str, Any]) -> str:
    resident = document.get("rss_bytes")
    tiles = {
        "Keys": f"{keys_of(document):,}",
        "Hit rate": percent(document["hit_rate_percent"]),
        "Reads": f"{document['reads']:,}",
        "Misses": f"{document['misses']:,}",
        "Stored": format_size(document["stored_bytes"]),
        "RAM of the process": "n/a" if resident is None else format_size(resident),
        "Failures": f"{document['failures']:,}",
    }
    return f'<section class="plain">{_terms("now", tiles.items())}</section>'


def _tiers(document: Mapping[str, Any]) -> str:
    rows = [
        [
            name,
            _bar(name, tier["usage_percent"]),
            format_size(tier["used_bytes"]),
            limit_words(tier["configured_bytes"]),
            f"{tier['keys']:,}",
            f"{tier['hits']:,}",
            tier["medium"],
        ]
        for name, tier in document["tiers"].items()
    ]
    return _table(("tier", "usage", "holds", "of", "keys", "hits", "medium"), rows)


def _bar(name: str, share: float) -> Markup:
    return Markup(
        f'<span class="bar"><span style="width: {min(100.0, share):.1f}%; '
        f'background: var(--{escape(name)})"></span></span>{percent(share)}'
    )


def _facts(document: Mapping[str, Any]) -> str:
    prefetch = document["prefetch"] or {}
    facts = {
        "Stored": f"{document['stored']:,} versions",
        "Prefetch": ", ".join(f"{count:,} {name}" for name, count in prefetch.items()) or "none",
    }
    if document["latest_failure"]:
        facts["Latest failure"] = document["latest_failure"]
    return _terms("facts", facts.items())


def _charts(series: Series | None) -> str:
    if series is None or not series["timestamps"]:
        return ""
    return f'<div class="charts">{"".join(_chart(series, one) for one in CHARTS)}</div>'


def _chart(series: Series, chart: Chart) -> str:
    """Return a section with those lines that have values; an empty text without any."""
    times = series["timestamps"]
    lines = {
        label: rates(times, series[name]) if chart.rate else series[name]
        for label, name in chart.lines.items()
        if any(one and not math.isnan(one) for one in series.get(name, ()))
    }
    if not lines:
        return ""
    inks = [_ink(label, index) for index, label in enumerate(chart.lines) if label in lines]
    body = line_chart(
        times, lines, title=f"{chart.title} over time", width=CHART_WIDTH, height=CHART_HEIGHT,
        top=chart.top, inks=inks, show=chart.show, log=chart.log,
    )  # fmt: skip
    return _section(chart.title, body)


def _ink(label: str, index: int) -> str:
    """Return the colour of a line, the same as in the dashboard."""
    if label in tuple(TierName):
        return f"var(--{label})"
    return "var(--ink)" if label in PLAIN else f"var(--c{1 + index % 7})"


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


def _pinned(document: Mapping[str, Any]) -> list[list[str]]:
    return [
        [printable(one["key"]), one["tier"], format_size(one["size"])]
        for one in document.get("pinned_keys", ())
    ]


def _configuration(document: Mapping[str, Any]) -> str:
    configuration = document.get("configuration") or {}
    return _terms("facts", configuration.items()) if configuration else ""
