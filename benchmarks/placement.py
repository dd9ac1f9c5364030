"""Miss ratios of the default policy, and of prefetching, on real traces against known policies.

Not a test: it needs trace files, `.npz` with `time`, `key`, `size`, and a `reference.json` with the
miss ratios of other policies beside them. Replays run in the simulator, through the library's own
policy objects, one process for each core, the shortest traces first, and what is not done after two
minutes is left out; `--whole` takes as long as it takes (about half an hour).

    python benchmarks/placement.py [TRACES] [--whole] [--only NAME ...] [--seconds 120]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from memories import policies
from memories.policies.predictors import Prefetcher
from memories.simulate.simulator import UNREAD_SHARE, SimulationResult, Simulator
from memories.simulate.traces import Trace, read_trace

CAPACITIES = ("0.01", "0.03", "0.1", "0.2")
PREFETCH_CAPACITY = "0.03"
PEERS = ("LRU", "S3FIFO", "GDSF")
PREFETCH_BARS = {"kvcache_conversation_a": 0.45, "arc_p3_4k": 0.43, "tencent_ns1326": 0.65}
STEP = 8192  # Requests between two looks at the clock.


class Cell(NamedTuple):
    trace: str
    share: str
    policy: str
    prefetch: bool


class Result(NamedTuple):
    cell: Cell
    outcome: SimulationResult | None  # None when time was up before its turn.
    seconds: float


@lru_cache(maxsize=1)
def load(path: Path) -> Trace:
    return read_trace(path)


def run(folder: Path, cell: Cell, deadline: float) -> Result:
    start = time.time()
    if start > deadline:
        return Result(cell, None, 0.0)
    trace = load(folder / f"{cell.trace}.npz")
    capacity = int(float(cell.share) * trace.footprint_bytes)
    prefetcher = Prefetcher(budget_bytes=capacity // UNREAD_SHARE) if cell.prefetch else None
    simulator = Simulator(policies.make(cell.policy, capacity), prefetcher)
    for at in range(0, len(trace.keys), STEP):
        if time.time() > deadline:
            return Result(cell, None, time.time() - start)
        simulator.replay(Trace(*(column[at : at + STEP] for column in trace)))
    return Result(cell, simulator.outcome, time.time() - start)


def find_traces(given: str | None) -> Path | None:
    beside = Path(__file__).resolve().parents[2] / "shared" / "traces"
    named = given or os.environ.get("MEMORIES_TRACES")
    folder = Path(named) if named else beside
    return folder if (folder / "reference.json").is_file() else None


def show_policies(
    results: dict[Cell, SimulationResult], reference: dict[str, Any], policy: str
) -> list[float]:
    """Print one line per trace and capacity and return how far `policy` is from the best peer."""
    print(f"\n## Object miss ratio: {policy} against the reference\n")
    print("| trace | capacity | ours | LRU | S3-FIFO | GDSF | to best of three | to LRU | gap |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|")
    excess, worse, gaps = [], [], []
    for trace, facts in reference.items():
        for share in CAPACITIES:
            outcome = results.get(Cell(trace, share, policy, False))
            if outcome is None:
                continue
            point = facts["capacities"][share]
            peers = [point["policies"][name][0] for name in PEERS]
            lru, bound = peers[0], point["pfoo_lower_bound"][0]
            ours = outcome.miss_ratio
            gap = (lru - ours) / (lru - bound) if lru - bound > 0.001 else None
            if gap is not None and facts["real_size"] and varies(facts):
                gaps.append(gap)
            excess.append(ours - min(peers))
            worse.append(ours - lru)
            print(
                f"| {trace} | {float(share):.0%} | {ours:.3f} | "
                + " | ".join(f"{peer:.3f}" for peer in peers)
                + f" | {excess[-1]:+.3f} | {worse[-1]:+.3f} | "
                + ("– |" if gap is None else f"{gap:.2f} |")
            )
    if excess:
        print(f"\nmean over {len(excess)} points, to the best of three: {fmean(excess):+.4f} (bar")
        print(
            f"+0.01), single points up to {max(excess):+.3f}; worst against LRU {max(worse):+.4f}"
        )
        print("(bar +0.01).")
    if gaps:
        print(f"Gap between LRU and the bound closed, traces whose sizes vary: {fmean(gaps):.3f}")
        print("(bar 0.5; GDSF closes 0.48).")
    return excess


def varies(facts: dict[str, Any]) -> bool:
    smallest, *_, largest = facts["size_min_p50_p90_p99_max"]
    return bool(smallest != largest)


def show_prefetch(results: dict[Cell, SimulationResult], traces: list[str], policy: str) -> None:
    print(f"\n## Misses of repeated accesses at 3 %, {policy}, without and with prefetching\n")
    print("| trace | without | with | bar | issued | used | wasted | accuracy |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    used = judged = 0
    for trace in traces:
        plain = results.get(Cell(trace, PREFETCH_CAPACITY, policy, False))
        ahead = results.get(Cell(trace, PREFETCH_CAPACITY, policy, True))
        if plain is None or ahead is None:
            continue
        counts = ahead.prefetch
        done = counts["used"] + counts["wasted"]
        used, judged = used + counts["used"], judged + done
        bar = f"{PREFETCH_BARS[trace]:.2f}" if trace in PREFETCH_BARS else "not more"
        print(
            f"| {trace} | {plain.re_access_miss_ratio:.3f} | {ahead.re_access_miss_ratio:.3f} "
            f"| {bar} | {counts['issued']} | {counts['used']} | {counts['wasted']} "
            f"| {counts['used'] / done if done else 1:.3f} |"
        )
    if judged:
        print(f"\nAccuracy over all: {used / judged:.3f} (bar 0.85).")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("traces", nargs="?", help="folder of traces (or MEMORIES_TRACES)")
    parser.add_argument("--only", nargs="*", help="names of the traces to replay")
    parser.add_argument("--policy", default="auto", help="the policy to judge")
    parser.add_argument("--seconds", type=float, default=120.0, help="stop after so long")
    parser.add_argument("--whole", action="store_true", help="never stop before the end")
    arguments = parser.parse_args()
    folder = find_traces(arguments.traces)
    if folder is None:
        print("placement: skipped, no traces: give their folder, or set MEMORIES_TRACES")
        return 0
    reference = json.loads((folder / "reference.json").read_text("utf-8"))["traces"]
    names = [name for name in reference if not arguments.only or name in arguments.only]
    plain = [Cell(name, share, arguments.policy, False) for name in names for share in CAPACITIES]
    ahead = [Cell(name, PREFETCH_CAPACITY, arguments.policy, True) for name in names]
    cells = sorted(plain + ahead, key=lambda cell: reference[cell.trace]["requests"])
    start = time.time()
    deadline = math.inf if arguments.whole else start + arguments.seconds
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        futures = [pool.submit(run, folder, cell, deadline) for cell in cells]
        done = [future.result() for future in futures]
    results = {result.cell: result.outcome for result in done if result.outcome is not None}
    show_policies(results, {name: reference[name] for name in names}, arguments.policy)
    show_prefetch(results, names, arguments.policy)
    late = [result.cell for result in done if result.outcome is None]
    print(
        f"\n{len(results)} replays in {time.time() - start:.0f} s, {len(late)} left out for time."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
