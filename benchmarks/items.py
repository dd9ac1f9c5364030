"""What an item costs beside its value: bytes, garbage collection, the work of looking after it.

Small values only, for which the overhead is what counts. Every figure stands beside its bar.
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from time import perf_counter

from _race import machine

from memories import MemoryManager
from memories.engine.hit_clock import SampledTick, unwrap_unwanted
from memories.migration.key_cursor import MIN_SLICE
from memories.migration.planner import Planner, TierState
from memories.model.entry import Entry
from memories.model.tiers import Cause, TierName
from memories.policies.auto import AutoPolicy

ITEMS = 200_000
WHOLE = 1_000_000
PAGE_BYTES = 4096
WARM_UP = 5_000  # Items stored and deleted first, so that pools of memory are there.


def resident_bytes() -> int:
    """Return the memory of this process that is in RAM."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES


def row(what: str, figure: str, bar: str) -> None:
    """Print one line of the table."""
    print(f"| {what} | {figure} | {bar} |", flush=True)


def fill(manager: MemoryManager, count: int) -> None:
    """Store small values whose keys and bytes exist already, and print what each adds."""
    for index in range(WARM_UP):
        manager.store(f"before/{index}", b"x", tier="warm")
    for index in range(WARM_UP):
        manager.delete(f"before/{index}")
    keys = [f"item/{index:07d}" for index in range(count)]
    values = [b"%020d" % index for index in range(count)]
    gc.collect()
    before, started = resident_bytes(), perf_counter()
    for key, value in zip(keys, values, strict=True):
        manager.store(key, value, tier="warm")
    seconds = perf_counter() - started
    manager.stats()  # What the stores left for later is done before it is measured.
    # A look of the migrator at every key, after which samples are as small as they stay.
    for entry in manager._hierarchy.catalog.entries.values():
        entry.tick = unwrap_unwanted(entry.tick)
    gc.collect()
    each = (resident_bytes() - before) / count
    row("bytes beside key and value, each (of resident memory)", f"{each:,.0f}", "250")
    row("microseconds to store one", f"{seconds / count * 1e6:,.1f}", "")


def samples(manager: MemoryManager, count: int) -> None:
    """Print how many keys samples and ghosts remember."""
    entries = manager._hierarchy.catalog.entries.values()
    ticking = sum(isinstance(entry.tick, SampledTick) for entry in entries)
    policy = manager._hierarchy.tiers[TierName.WARM].victims.policy
    assert isinstance(policy, AutoPolicy)
    shadows = [len(shadow) for shadow in policy._shadows]
    row("keys whose hits are noted", f"{ticking / count:.1%}", "5 %")
    row("keys in the largest shadow cache", f"{max(shadows) / count:.1%}", "5 %")
    row("keys in all shadow caches", f"{sum(shadows) / count:.1%}", "5 %")


def collect() -> float:
    """Return the seconds of one full garbage collection."""
    started = perf_counter()
    gc.collect()
    return perf_counter() - started


def pauses(count: int, empty: float) -> None:
    """Print how long a full collection stops everything, and what stops it from doing so."""
    row(
        f"full garbage collection over {count:,} items, ms (without any: {empty * 1e3:,.0f})",
        f"{median(collect() for _ in range(3)) * 1e3:,.0f}",
        "shown",
    )
    gc.freeze()
    row("the same after `gc.freeze()`, ms", f"{collect() * 1e3:,.0f}", "shown")
    gc.unfreeze()


def states(manager: MemoryManager) -> dict[TierName, TierState]:
    """Return the tiers as the migrator shows them to the planner."""
    made = {}
    for name in (TierName.HOT, TierName.WARM):
        tier = manager._hierarchy.tiers[name]
        room = tier.budget.effective
        made[name] = TierState(room, room, room // 16, tier.hit_clock.time_of)
    return made


def planning(manager: MemoryManager) -> None:
    """Print how long the planner takes for a slice in which nothing, or everything, is to move."""
    entries = list(manager._hierarchy.catalog.entries.values())[:MIN_SLICE]
    now = manager._services.clock.monotonic()

    def plan(chosen: list[Entry], looked_at: float) -> Iterator[float]:
        for _ in range(9):
            planner = Planner(promote=True, demote_idle=True)
            started = perf_counter()
            moves = list(planner.plan(chosen, states(manager), now=now, looked_at=looked_at))
            yield perf_counter() - started
            assert all(move.cause is Cause.HIT for move in moves)

    at_rest = median(plan(entries, now))
    for entry in entries:
        entry.mark()
    moving = median(plan(entries, 0.0))
    row(f"planning a slice of {MIN_SLICE} at rest, ms", f"{at_rest * 1e3:.2f}", "1")
    row(f"planning {MIN_SLICE} that were all read, ms", f"{moving * 1e3:.2f}", "")
    row("planning one move, ms", f"{moving / MIN_SLICE * 1e3:.4f}", "1")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--whole", action="store_true", help=f"{WHOLE:,} items, in minutes")
    parser.add_argument("--items", type=int, default=ITEMS)
    arguments = parser.parse_args()
    count = WHOLE if arguments.whole else arguments.items
    print(f"{machine()}; {count:,} values of 20 bytes in warm, default policy\n")
    print("| what | figure | bar |\n|---|---:|---:|")
    empty = collect()
    with MemoryManager() as manager:
        fill(manager, count)
        samples(manager, count)
        pauses(count, empty)
        planning(manager)


if __name__ == "__main__":
    main()
