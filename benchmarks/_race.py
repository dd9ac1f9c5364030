"""Times candidates side by side in one run: shuffled in every round, judged by their medians.

Not a profiler. The machine's mood changes from second to second, so every candidate runs once per
round, in a new order, and the ratios are taken between medians of the same run.
"""

from __future__ import annotations

import gc
import platform
import random
import statistics
import sys
from collections.abc import Callable, Mapping
from time import perf_counter

from memories.compiled import core

ROUNDS = 9


def race(
    candidates: Mapping[str, Callable[[], object]],
    *,
    rounds: int = ROUNDS,
    clock: Callable[[], float] = perf_counter,
    seed: int = 1,
    before: Callable[[str], object] = lambda name: None,
) -> dict[str, float]:
    """Return each candidate's median seconds, by the given clock.

    `before` is called with a candidate's name ahead of each of its turns, and is not timed.
    """
    order = list(candidates)
    shuffle = random.Random(seed).shuffle
    seconds: dict[str, list[float]] = {name: [] for name in order}
    for name in order:
        before(name)
        candidates[name]()
    for _ in range(rounds):
        shuffle(order)
        for name in order:
            before(name)
            gc.collect()
            gc.disable()
            started = clock()
            candidates[name]()
            seconds[name].append(clock() - started)
            gc.enable()
    return {name: statistics.median(values) for name, values in seconds.items()}


def show(title: str, seconds: Mapping[str, float], *, base: str, unit: float, label: str) -> None:
    """Print a table of the medians in `label` (seconds times `unit`) and as ratios to `base`."""
    print(f"\n{title}\n\n| candidate | {label} | times {base} |\n|---|---:|---:|")
    for name, value in seconds.items():
        print(f"| {name} | {value * unit:,.1f} | {value / seconds[base]:.2f} |")


def machine() -> str:
    """Return what the figures were measured on."""
    how = "compiled" if core().compiled else "interpreted"
    return f"Python {platform.python_version()}, {platform.machine()}, {sys.platform}, core {how}"
