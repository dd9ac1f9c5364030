"""Further panels of the plot: bytes held, reads, moves, latencies, RAM, prefixes, miss-ratio curve.

Each draws into a given Axes, and is left out if it has nothing to draw.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from memories.foundation.units import GB, format_size
from memories.model.entry import Entry
from memories.model.tiers import Cause, TierName
from memories.observe.analytics.series import rates

Series = Mapping[str, Sequence[float]]

# The colours of Okabe and Ito; each tier and each cause has its own dashes, too.
STYLES: dict[TierName, dict[str, Any]] = {
    TierName.HOT: {"color": "#D55E00", "linestyle": "-"},
    TierName.WARM: {"color": "#E69F00", "linestyle": "--"},
    TierName.COLD: {"color": "#0072B2", "linestyle": "-."},
    TierName.GLACIER: {"color": "#009E73", "linestyle": ":"},
}
BLACK: dict[str, Any] = {"color": "#000000", "linestyle": (0, (5, 1))}
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
OPERATIONS = ("retrieve", "store", "move", "write")
MOST_PREFIXES = 12
MOST_ENTRIES = 50_000


def panels_of(
    series: Series, heat: Mapping[str, int] | None, curve: Any
) -> list[Callable[[Any], None]]:
    """Return the drawing functions of the panels that have something to draw."""
    found: list[Callable[[Any], None]] = []
    if any(_has(series, f"{tier}_used_bytes") for tier in TierName):
        found.append(partial(draw_held, series))
    if any(_has(series, name) for name in _answered()):
        found.append(partial(draw_reads, series))
    if any(_has(series, f"moved_bytes_{cause}") for cause in Cause):
        found.append(partial(draw_moves, series))
    for operation in OPERATIONS:
        if any(_has(series, f"{tier}_{operation}_p50_seconds") for tier in TierName):
            found.append(partial(draw_latency, series, operation))
    if _has(series, "rss_bytes"):
        found.append(partial(draw_memory, series))
    if heat:
        found.append(partial(draw_heat, heat))
    if curve is not None and len(curve.capacities) > 1:
        found.append(partial(draw_curve, curve))
    return found


def draw_held(series: Series, axes: Any) -> None:
    """Draw the bytes in each tier, on a logarithmic axis; a glacier has no limit to fill."""
    for tier, style in STYLES.items():
        if _has(series, f"{tier}_used_bytes"):
            held = [one or math.nan for one in series[f"{tier}_used_bytes"]]
            axes.plot(series["timestamps"], held, label=str(tier), **style)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(_bytes)
    finish(axes, "Bytes held")


def draw_reads(series: Series, axes: Any) -> None:
    """Draw the reads per second, by the tier that answered."""
    for name, style in _answered().items():
        if _has(series, name):
            answered = rates(series["timestamps"], series[name])
            axes.plot(series["timestamps"], answered, label=name.removesuffix("_hits"), **style)
    finish(axes, "Reads", "per second, by the tier that answered")
    axes.set_ylim(bottom=0)


def draw_moves(series: Series, axes: Any) -> None:
    """Draw the bytes moved per second, for each cause with moves."""
    causes = [cause for cause in Cause if _has(series, f"moved_bytes_{cause}")]
    for index, cause in enumerate(causes):
        moved = rates(series["timestamps"], series[f"moved_bytes_{cause}"])
        axes.plot(
            series["timestamps"],
            [one / 1e6 for one in moved],
            label=str(cause),
            color=COLOURS[index % len(COLOURS)],
            linestyle=DASHES[index % len(DASHES)],
        )
    finish(axes, "Moves", "MB per second, by cause")
    axes.set_ylim(bottom=0)


def draw_latency(series: Series, operation: str, axes: Any) -> None:
    """Draw the median and, fainter, the 99th percentile of one operation, for each tier."""
    for tier, style in STYLES.items():
        name = f"{tier}_{operation}"
        if _has(series, f"{name}_p50_seconds"):
            line = {**style, "linestyle": "-"}
            axes.plot(series["timestamps"], series[f"{name}_p50_seconds"], label=str(tier), **line)
            faint = {**line, "alpha": 0.6, "linestyle": ":"}
            axes.plot(series["timestamps"], series[f"{name}_p99_seconds"], **faint)
    axes.set_yscale("log")
    finish(axes, f"Latency of {operation}", "seconds: median, dotted p99")


def draw_memory(series: Series, axes: Any) -> None:
    """Draw the RAM of the process, and what hot and warm hold."""
    lines = {"rss_bytes": BLACK, "hot_used_bytes": STYLES[TierName.HOT]}
    lines["warm_used_bytes"] = STYLES[TierName.WARM]
    for name, style in lines.items():
        if _has(series, name):
            label = "resident (RSS)" if name == "rss_bytes" else name.removesuffix("_used_bytes")
            axes.plot(series["timestamps"], series[name], label=label, **style)
    axes.yaxis.set_major_formatter(_bytes)
    finish(axes, "RAM of the process")
    axes.set_ylim(bottom=0)


def draw_heat(heat: Mapping[str, int], axes: Any) -> None:
    """Draw the reads of the most read prefixes."""
    ranked = sorted(heat.items(), key=lambda one: one[1])[-MOST_PREFIXES:]
    axes.barh([prefix for prefix, _ in ranked], [hits for _, hits in ranked], color=COLOURS[0])
    axes.set_title("Reads of keys in RAM, by prefix", loc="left", fontsize="medium")
    axes.tick_params(labelsize="small")
    axes.grid(alpha=0.3, axis="x")


def draw_curve(curve: Any, axes: Any) -> None:
    """Draw the share of repeated reads that would miss, by capacity."""
    room = [capacity / GB for capacity in curve.capacities]
    ratios = [100 * ratio for ratio in curve.ratios]
    axes.step(room, ratios, where="post", color=COLOURS[0])
    finish(axes, "Misses by capacity", "% of the repeated reads", legend=False)
    axes.set_xlabel("GB of RAM", fontsize="small")
    axes.set_ylim(-2, 102)


def finish(axes: Any, title: str, unit: str = "", *, legend: bool = True) -> None:
    """Give a panel over time its title, its unit, grid, and a legend beside the title."""
    axes.set_title(title, loc="left", fontsize="medium")
    axes.set_ylabel(unit, fontsize="small")
    axes.set_xlabel("seconds since the analytics were enabled", fontsize="small")
    axes.tick_params(labelsize="small")
    axes.grid(alpha=0.3)
    if legend:
        axes.legend(loc="best", fontsize="small", framealpha=0.7, edgecolor="none")


def heat_of(entries: Iterable[Entry]) -> dict[str, int]:
    """Return the hits of `entries` by the prefix of their keys, up to the last slash."""
    heat: Counter[str] = Counter()
    for entry in entries:
        if entry.hits:
            folder, slash, _ = entry.key.rpartition("/")
            heat[(folder + slash)[:40] or "(no prefix)"] += entry.hits
    return dict(heat.most_common(MOST_PREFIXES))


def _answered() -> dict[str, dict[str, Any]]:
    """Return the series of reads by the tier that answered, with their styles."""
    return {f"{tier}_hits": style for tier, style in STYLES.items()} | {"misses": BLACK}


def _has(series: Series, name: str) -> bool:
    """Return whether a series has a value that is neither 0 nor NaN."""
    return any(one and not math.isnan(one) for one in series.get(name, ()))


def _bytes(value: float, place: object) -> str:
    del place
    return format_size(round(value))
