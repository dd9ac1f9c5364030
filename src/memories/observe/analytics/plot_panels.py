"""Further panels of the plot: moves, latencies, reads by prefix, and the miss-ratio curve.

Each draws into a given Axes, and is left out if it has nothing to draw.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from memories.foundation.units import GB
from memories.model.entry import Entry
from memories.model.tiers import Cause

Series = Mapping[str, Sequence[float]]

# The colours of Okabe and Ito, with a marker for each, because there may be many lines.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKS = ("o", "s", "^", "D", "v", "P", "X")
MOST_PREFIXES = 12
MOST_ENTRIES = 50_000


def panels_of(
    series: Series, heat: Mapping[str, int] | None, curve: Any
) -> list[Callable[[Any], None]]:
    """Return the drawing functions of the panels that have something to draw."""
    found: list[Callable[[Any], None]] = []
    if any(_last(series, f"moved_bytes_{cause}") for cause in Cause):
        found.append(lambda axes: draw_moves(series, axes))
    if _latencies(series):
        found.append(lambda axes: draw_latency(series, axes))
    if heat:
        found.append(lambda axes: draw_heat(heat, axes))
    if curve is not None and len(curve.capacities) > 1:
        found.append(lambda axes: draw_curve(curve, axes))
    return found


def draw_moves(series: Series, axes: Any) -> None:
    """Draw the bytes moved per second, for each cause with moves."""
    times = series["timestamps"]
    causes = [cause for cause in Cause if _last(series, f"moved_bytes_{cause}")]
    for index, cause in enumerate(causes):
        moved = pairwise(zip(times, series[f"moved_bytes_{cause}"], strict=True))
        rates = [
            (later[1] - earlier[1]) / max(1e-9, later[0] - earlier[0]) / 1e6
            for earlier, later in moved
        ]
        axes.plot(times[1:], rates, label=str(cause), **_style(index, len(times)))
    axes.set_ylabel("moved (MB/s)")
    axes.set_xlabel("seconds since the analytics were enabled")
    _finish(axes)


def draw_latency(series: Series, axes: Any) -> None:
    """Draw the median and the 99th percentile of the latencies, on a logarithmic axis."""
    for index, name in enumerate(_latencies(series)):
        style = _style(index, len(series["timestamps"]))
        words = name.replace("_", " ")
        axes.plot(series["timestamps"], series[f"{name}_p50_seconds"], label=words, **style)
        faint = {**style, "alpha": 0.5, "linestyle": ":"}
        axes.plot(series["timestamps"], series[f"{name}_p99_seconds"], **faint)
    axes.set_yscale("log")
    axes.set_ylabel("latency (s): p50, dotted p99")
    axes.set_xlabel("seconds since the analytics were enabled")
    _finish(axes)


def draw_heat(heat: Mapping[str, int], axes: Any) -> None:
    """Draw the reads of the most read prefixes."""
    ranked = sorted(heat.items(), key=lambda one: one[1])[-MOST_PREFIXES:]
    axes.barh([prefix for prefix, _ in ranked], [hits for _, hits in ranked], color=COLOURS[0])
    axes.set_xlabel("reads of keys in RAM, by prefix")
    axes.grid(alpha=0.3, axis="x")


def draw_curve(curve: Any, axes: Any) -> None:
    """Draw the share of repeated reads that would miss, by capacity."""
    room = [capacity / GB for capacity in curve.capacities]
    ratios = [100 * ratio for ratio in curve.ratios]
    axes.step(room, ratios, where="post", color=COLOURS[0])
    axes.set_xlabel("room (GB)")
    axes.set_ylabel("repeated reads that miss (%)")
    axes.set_ylim(-2, 102)
    axes.grid(alpha=0.3)


def heat_of(entries: Iterable[Entry]) -> dict[str, int]:
    """Return the hits of `entries` by the prefix of their keys, up to the last slash."""
    heat: Counter[str] = Counter()
    for entry in entries:
        if entry.hits:
            folder, slash, _ = entry.key.rpartition("/")
            heat[(folder + slash)[:40] or "(no prefix)"] += entry.hits
    return dict(heat.most_common(MOST_PREFIXES))


def _latencies(series: Series) -> list[str]:
    ending = "_p50_seconds"
    return [name.removesuffix(ending) for name in series if name.endswith(ending)][: len(COLOURS)]


def _last(series: Series, name: str) -> float:
    column = series.get(name, ())
    return column[-1] if column else 0.0


def _style(index: int, points: int) -> dict[str, Any]:
    return {
        "color": COLOURS[index % len(COLOURS)],
        "marker": MARKS[index % len(MARKS)],
        "markersize": 4,
        "markevery": max(1, points // 12),
    }


def _finish(axes: Any) -> None:
    axes.grid(alpha=0.3)
    axes.legend(loc="best", fontsize="small", framealpha=0.8, edgecolor="none")
