"""Small line charts as SVG text, for pages that load no other resources.

The axes begin at zero, or are logarithmic; each series is one line, and NaN makes a gap.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

# The colours of Okabe and Ito, which colour-blind people can tell apart, with dashes for each.
COLOURS = ("#b84500", "#8a6100", "#0063a0", "#6b4fa0", "#1a1d21")
DASHES = ("", "6 4", "8 3 2 3", "2 3", "")
MOST_POINTS = 400


SHARES = (0.0, 0.5, 1.0)  # Of the height, at which there is a line of the grid.


class _Scale:
    """The axis of values: from 0, or logarithmic in whole decades."""

    def __init__(self, lines: Mapping[str, Sequence[float]], top: float | None, log: bool) -> None:
        self.log = log
        values = [self.drawn(one) for line in lines.values() for one in line]
        values = [one for one in values if not math.isnan(one)]
        self.low, self.high = 0.0, top or max(values, default=0.0) * 1.1 or 1.0
        if log:
            self.low = math.floor(math.log10(min(values, default=1.0)))
            self.high = max(self.low + 1, math.ceil(math.log10(max(values, default=1.0))))

    def drawn(self, value: float) -> float:
        """Return `value`, NaN if it has no place on the axis."""
        return math.nan if self.log and value <= 0 else value

    def share(self, value: float) -> float:
        """Return at which share of the height a value lies."""
        place = math.log10(value) if self.log else min(value, self.high)
        return (place - self.low) / (self.high - self.low)

    def value(self, share: float) -> float:
        """Return the value at a share of the height."""
        place = self.low + share * (self.high - self.low)
        return float(10**place) if self.log else place


def line_chart(
    times: Sequence[float],
    lines: Mapping[str, Sequence[float]],
    *,
    width: int = 640,
    height: int = 160,
    title: str,
    top: float | None = None,
    inks: Sequence[str] = COLOURS,
    show: Callable[[float], str] = "{:.3g}".format,
    log: bool = False,
) -> str:
    """Return a chart of `lines` over `times`.

    Args:
        times: Seconds.
        lines: The values by name, as many as there are times.
        width: Of the chart, in pixels.
        height: Of the chart, in pixels.
        title: What is read out instead of the chart.
        top: The end of the axis, by default a little more than the largest value.
        inks: The colour of each line.
        show: Returns a value of the axis as text.
        log: Whether the axis is logarithmic; values of 0 are gaps then.
    """
    scale = _Scale(lines, top, log)
    left, right, under, above = 62, 8, 22, 22
    inner = (width - left - right, height - under - above)
    first, last = (times[0], times[-1]) if times else (0.0, 1.0)
    span = (last - first) or 1.0

    def place(at: float, value: float) -> str:
        x = left + inner[0] * (at - first) / span
        y = above + inner[1] * (1 - scale.share(value))
        return f"{x:.1f},{y:.1f}"

    step = max(1, math.ceil(len(times) / MOST_POINTS))
    body = [
        _grid(left, above, inner, [(one, show(scale.value(one))) for one in SHARES], first, last)
    ]
    at = left  # Of the next name in the legend.
    for index, (name, line) in enumerate(lines.items()):
        dash = DASHES[index % len(DASHES)]
        ink = inks[index % len(inks)]
        style = f'stroke="{ink}" stroke-dasharray="{dash}"'
        points = [(at, scale.drawn(value)) for at, value in zip(times, line, strict=True)]
        for stretch in _stretches(points[::step]):
            places = [place(*point) for point in stretch]
            if len(places) == 1:
                x, y = places[0].split(",")
                body.append(f'<circle cx="{x}" cy="{y}" r="2" fill="{ink}"/>')
            else:
                path = " ".join(places)
                body.append(f'<polyline fill="none" stroke-width="1.8" {style} points="{path}"/>')
        body.append(
            f'<line x1="{at}" x2="{at + 22}" y1="10" y2="10" stroke-width="2" {style}/>'
            f'<text x="{at + 27}" y="14">{escape(name)}</text>'
        )
        at += 38 + round(6.2 * len(name))
    return (
        f'<svg role="img" aria-label="{escape(title, quote=True)}" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" font-size="11" fill="currentColor" '
        f'font-family="system-ui, sans-serif">{"".join(body)}</svg>'
    )


def sparkline(values: Sequence[float], *, title: str, width: int = 160, height: int = 28) -> str:
    """Return a line without axes, from 0 to 100."""
    step = max(1, math.ceil(len(values) / MOST_POINTS))
    points = list(enumerate(values))[::step]
    span = max(1, len(values) - 1)
    lines = (
        " ".join(
            f"{width * at / span:.1f},{(height - 2) * (1 - min(value, 100.0) / 100.0) + 1:.1f}"
            for at, value in stretch
        )
        for stretch in _stretches([(float(at), value) for at, value in points])
    )
    body = "".join(
        f'<polyline fill="none" stroke="currentColor" stroke-width="1.5" points="{line}"/>'
        for line in lines
    )
    return (
        f'<svg role="img" aria-label="{escape(title, quote=True)}" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}">{body}</svg>'
    )


def _stretches(points: Sequence[tuple[float, float]]) -> list[list[tuple[float, float]]]:
    """Return the runs of points between NaNs."""
    found: list[list[tuple[float, float]]] = [[]]
    for point in points:
        if math.isnan(point[1]):
            found.append([])
        else:
            found[-1].append(point)
    return [stretch for stretch in found if stretch]


def _grid(
    left: int,
    above: int,
    inner: tuple[int, int],
    heights: Sequence[tuple[float, str]],
    first: float,
    last: float,
) -> str:
    made = []
    for share, label in heights:
        y = above + inner[1] * (1 - share)
        made.append(
            f'<line x1="{left}" x2="{left + inner[0]}" y1="{y:.1f}" y2="{y:.1f}" '
            f'stroke="currentColor" stroke-opacity="0.2"/>'
            f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{escape(label)}</text>'
        )
    for share, anchor in ((0.0, "start"), (1.0, "end")):
        at = first + (last - first) * share
        made.append(
            f'<text x="{left + inner[0] * share:.1f}" y="{above + inner[1] + 16}" '
            f'text-anchor="{anchor}">{round(at, 1):g} s</text>'
        )
    return "".join(made)
