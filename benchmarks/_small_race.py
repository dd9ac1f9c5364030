"""Races small operations in turns, and makes a line of the table of each comparison with its bar.

Not `_race`: a write of a small value may put work off, so each way is timed twice. The median is
what the caller waits. The mean is the processor time of all threads until nothing is put off.
"""

from __future__ import annotations

import gc
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter, process_time, thread_time
from typing import NamedTuple

HEAD = """\
| what | ours | mean | beside it | its | ratio | bar | |
|---|---:|---:|---|---:|---:|---|---|"""


class Scale(NamedTuple):
    """How much is measured, and by which clock."""

    count: int  # Operations of one turn.
    rounds: int
    quick: bool
    clock: Callable[[], float] = perf_counter

    def times(self, factor: float) -> Scale:
        """Return the scale with more operations of those that are fast, or fewer of the slow."""
        return self._replace(count=int(self.count * factor))


def nothing() -> None:
    """Do nothing."""


class Way(NamedTuple):
    """A way to do all operations of a turn."""

    run: Callable[[], object]
    prepare: Callable[[], object] = nothing  # Called before each turn, and not timed.
    settle: Callable[[], object] = nothing  # Does what was put off; part of the mean.


class Times(NamedTuple):
    """Seconds of one operation."""

    median: float  # Until the call returned.
    mean: float  # Processor time of all threads, with what was put off.


class Line(NamedTuple):
    """One line of the table."""

    cells: Sequence[str]
    met: bool | None  # None where there is no bar.

    def __str__(self) -> str:
        verdict = "" if self.met is None else "met" if self.met else "MISSED"
        return f"| {' | '.join([*self.cells, verdict])} |"


def race_small(ways: Mapping[str, Way], scale: Scale, *, seed: int = 1) -> dict[str, Times]:
    """Run each way once in every round, in a new order; return its times for one operation."""
    order = list(ways)
    shuffle = random.Random(seed).shuffle
    medians: dict[str, list[float]] = {name: [] for name in order}
    means: dict[str, list[float]] = {name: [] for name in order}
    for number in range(scale.rounds + 1):
        shuffle(order)
        for name in order:
            took, busy = _turn(ways[name], scale.clock)
            if number:  # The first round warms up.
                medians[name].append(took / scale.count)
                means[name].append(busy / scale.count)
    return {
        name: Times(statistics.median(medians[name]), statistics.mean(means[name])) for name in ways
    }


def _turn(way: Way, clock: Callable[[], float]) -> tuple[float, float]:
    way.prepare()
    gc.collect()
    gc.disable()
    try:
        busy, started = process_time(), clock()
        way.run()
        took = clock() - started
    finally:
        gc.enable()
    way.settle()
    return took, process_time() - busy


CLOCKS: dict[bool, Callable[[], float]] = {False: perf_counter, True: thread_time}


def at_most(what: str, ours: Times, name: str, theirs: Times, factor: float | None) -> Line:
    """Return a line: ours takes at most `factor` times as long as its peer."""
    ratio = ours.median / theirs.median
    bar = "" if factor is None else f"{factor:g} x"
    met = None if factor is None else ratio <= factor
    cells = (what, _us(ours.median), _us(ours.mean), name, _us(theirs.median), f"{ratio:.2f}", bar)
    return Line(cells, met)


def within(
    what: str,
    ours: Times,
    seconds: float,
    name: str = "",
    theirs: Times | None = None,
    *,
    more: bool = False,
) -> Line:
    """Return a line: ours takes at most so many seconds, or so many `more` than its peer."""
    limit = seconds + (theirs.median if more and theirs is not None else 0.0)
    its = "" if theirs is None else _us(theirs.median)
    ratio = "" if theirs is None else f"{ours.median / theirs.median:.2f}"
    bar = f"its + {seconds * 1e6:g} us" if more else f"{seconds * 1e6:g} us"
    cells = (what, _us(ours.median), _us(ours.mean), name, its, ratio, bar)
    return Line(cells, ours.median <= limit)


def at_least(
    what: str, share: float, least: float | None, name: str = "", theirs: float = 0.0
) -> Line:
    """Return a line: the total of several threads is at least this share of one thread's."""
    its = f"{theirs:.2f}" if name else ""
    bar, met = ("", None) if least is None else (f"{least:g}", share >= least)
    return Line((what, f"{share:.2f}", "", name, its, "", bar), met)


def seconds_line(what: str, took: float, busy: float, limit: float) -> Line:
    """Return a line about a whole job: it takes at most so many seconds."""
    cells = (what, f"{took:.2f} s", f"{busy:.2f} s", "", "", "", f"{limit:g} s")
    return Line(cells, took <= limit)


def _us(seconds: float) -> str:
    micros = seconds * 1e6
    return f"{micros:.3f}" if micros < 1 else f"{micros:.2f}" if micros < 10 else f"{micros:,.0f}"
