"""How long a hit and a store take beside a migrator that demotes a million small values.

Two callers are timed. The busy one calls without a pause, so that the migrator waits for the
interpreter most of the time. The paced one sleeps between its calls: the migrator works meanwhile,
so that this caller finds locks held and caches cold.
"""

from __future__ import annotations

import tempfile
import time
from array import array
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from _small_race import Line, Scale

from memories import MemoryManager, Rule
from memories.model.tiers import TierName

VALUES = 1_000_000
SMALL = b"a small value of some thirty bytes"
# Of hot. While half of it is free and values are stored, none of them counts as idle.
FILLED = 0.7
OWN_KEYS = 1000  # What the caller reads and writes.
STORES = 10  # Every so many calls is a store.
PAUSE = 0.000_2
WINDOW = 0.5  # Seconds of calls between two looks at what was moved.
MOST_WINDOWS = 30
WAIT_SECONDS = 30.0  # For the first value to be moved.
SPARE_SECONDS = 4.0  # For which the values stay where they were stored.
BARS = {"hit": (0.99, 50e-6), "store": (0.99, 1e-3)}
QUANTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "worst": 1.0}

Seconds = dict[str, "array[float]"]


def latency(scale: Scale) -> Iterator[Line]:
    """Time both callers while idle values go to warm, and while old ones go to cold."""
    count = VALUES // 10 if scale.quick else VALUES
    seconds, nbytes = cost_of_storing(count)
    yield from beside(count, int(nbytes / FILLED), None)
    after = SPARE_SECONDS + 1.2 * seconds
    yield from beside(count, 3 * nbytes, Rule(prefix="old/", move_to="cold", after=after))


def cost_of_storing(count: int) -> tuple[float, int]:
    """Return about how long so many stores take, and how many bytes they take in hot."""
    part = 20_000
    with MemoryManager("1 GB", "1 GB", "1 GB") as manager:
        started = time.perf_counter()
        fill(manager, part)
        seconds = time.perf_counter() - started
        return seconds * count / part, manager.stats().tiers[
            TierName.HOT
        ].used_bytes * count // part


def fill(manager: MemoryManager, count: int) -> None:
    """Store the values that will be demoted."""
    for number in range(count):
        manager.store(f"old/{number:07d}", SMALL, "hot")


def beside(count: int, hot: int, rule: Rule | None) -> Iterator[Line]:
    """Time both callers while the migrator demotes so many values, by a rule or because idle."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="memories-small-"))
        manager = stack.enter_context(
            MemoryManager(
                f"{hot} B", "3 GB", "20 GB", storage_path=Path(folder), rules=[rule] if rule else []
            )
        )
        own = [f"own/{number}" for number in range(OWN_KEYS)]
        for key in own:
            manager.store(key, SMALL)
        fill(manager, count)
        limit = time.monotonic() + WAIT_SECONDS + SPARE_SECONDS
        target = TierName.COLD if rule else TierName.WARM
        while not moved(manager, target) and time.monotonic() < limit:
            call(manager, own, 0.1, PAUSE)
        taken: dict[str, Seconds] = {"busy": empty(), "paced": empty()}
        before, started = moved(manager, target), time.monotonic()
        for window in range(4 if count < VALUES else MOST_WINDOWS):
            caller = ("busy", "paced")[window % 2]
            found = call(manager, own, WINDOW, PAUSE if caller == "paced" else 0.0)
            for what, seconds in found.items():
                taken[caller][what].extend(seconds)
            if moved(manager, target) >= count:
                break
        rate = (moved(manager, target) - before) / (time.monotonic() - started)
        for caller, by_call in taken.items():
            for what, seconds in by_call.items():
                yield line(what, caller, target, rate, seconds)
        manager.cleanup(flush=False)


def moved(manager: MemoryManager, target: TierName) -> int:
    """Return how many values were moved to a tier."""
    moves = manager.stats().moves.items()
    return sum(times for (_, tier, _), times in moves if tier is target)


def empty() -> Seconds:
    """Return no times."""
    return {"hit": array("d"), "store": array("d")}


def call(manager: MemoryManager, keys: Sequence[str], seconds: float, pause: float) -> Seconds:
    """Read and write for so long, and return the time that each call took."""
    taken, number, clock = empty(), 0, time.perf_counter
    hits, stores = taken["hit"], taken["store"]
    end = clock() + seconds
    while (started := clock()) < end:
        key = keys[number % OWN_KEYS]
        if number % STORES:
            manager.retrieve(key)
            hits.append(clock() - started)
        else:
            manager.store(key, SMALL)
            stores.append(clock() - started)
        number += 1
        if pause:
            time.sleep(pause)
    return taken


def line(what: str, caller: str, target: TierName, rate: float, seconds: array[float]) -> Line:
    """Return a line with the histogram of one kind of call; the bar is on the 99th percentile.

    It is missed where nothing was moved meanwhile, because the line would prove nothing.
    """
    ordered = sorted(seconds) or [float("nan")]
    found = {
        name: ordered[min(len(ordered) - 1, int(share * len(ordered)))]
        for name, share in QUANTILES.items()
    }
    share, limit = BARS[what]
    reached = ordered[min(len(ordered) - 1, int(share * len(ordered)))]
    text = ", ".join(f"{name} {value * 1e6:,.1f}" for name, value in found.items())
    title = f"{what}, {caller} caller, beside {rate:,.0f} moves a second to {target}"
    cells = (title, text, "", "", "", "", f"p99 {limit * 1e6:g} us")
    return Line(cells, rate > 0 and reached <= limit)
