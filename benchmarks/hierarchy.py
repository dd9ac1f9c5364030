"""Time per repeated read in the real engine's four tiers, against an exclusive chain of LRUs.

Not a test of the media: values are scaled down, the disk and the directory that stand for cold and
glacier are real, but what a read costs is looked up in a table of latencies, and the clock is moved
by hand to the times of the trace. So what is measured is which tier answers, and nothing else.

    python benchmarks/hierarchy.py [TRACES] [--only NAME ...] [--requests 6000]
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import tempfile
import time
from collections import OrderedDict
from typing import NamedTuple

from placement import find_traces

from memories import policies
from memories.backends.disk.size_limits import room_for_values
from memories.core.services import Services
from memories.core.wiring import assemble
from memories.engine.payload import Payload
from memories.migration.simulated_tiers import SimulatedTiers, TieredResult
from memories.model.record import DEFAULT_TERMS
from memories.model.tiers import TierName
from memories.options.migration import MigrationSettings
from memories.options.settings import make_settings
from memories.policies.idle_limits import IdleOutcome
from memories.simulate.simulator import replay
from memories.simulate.traces import Trace, read_trace
from memories.testing.clock import ManualClock

SECONDS = {"hot": 1e-6, "warm": 1e-5, "cold": 1e-3, "glacier": 0.1}  # What a read costs.
SHARES = {"hot": 0.03, "warm": 0.07, "cold": 0.2}  # Of the bytes of all keys; glacier has the rest.
QUICK = ("web_nasa", "web_product07", "lirs_multi3", "tencent_ns3300")
WHOLE = (
    *QUICK, "tencent_ns1326", "cloudphysics_io", "kvcache_conversation_a", "kvcache_synthetic",
    "arc_p3_4k", "orm_busy", "corda_vault", "lirs_loop",
)  # fmt: skip
# Their repeated reads are answered from RAM within microseconds, by both: a few reads decide all.
OUTLIERS = ("tencent_ns3300", "corda_vault")
QUICK_REQUESTS, WHOLE_REQUESTS = 3000, 6000
VALUE_BYTES = 32_768  # What a value has on average once it is scaled down.
LOOK_SECONDS = 0.1


class Outcome(NamedTuple):
    seconds: float  # Per repeated read.
    in_memory: float  # The share of these that hot or warm answered.
    moved: float  # Bytes moved for each byte stored or read.
    in_glacier: float = 0.0  # The share that glacier answered.
    cold_filled: float = 1.0  # Of cold's capacity, by the values in it, once glacier was in use.
    idle: IdleOutcome = IdleOutcome()


def scaled(trace: Trace, requests: int, value_bytes: int = VALUE_BYTES) -> Trace:
    """Return the first requests, their sizes scaled so that the mean is `value_bytes`."""
    part = Trace(*(column[:requests] for column in trace))
    mean = part.footprint_bytes / part.distinct_keys
    sizes = [max(1, round(size * value_bytes / mean)) for size in part.sizes]
    return Trace(part.times, part.keys, sizes)


def capacities(trace: Trace) -> dict[str, int]:
    # What the engine charges for an entry beside its payload is charged to both.
    total = sum(size + 256 for size in dict(zip(trace.keys, trace.sizes, strict=True)).values())
    return {name: int(share * total) for name, share in SHARES.items()}


def chain(trace: Trace, cold_filled: float = 1.0) -> Outcome:
    """Run the accesses through LRUs of the same sizes: each read lifts to hot, victims sink."""
    limits = [*capacities(trace).values(), math.inf]
    limits[2] *= cold_filled
    tiers: list[OrderedDict[str, int]] = [OrderedDict() for _ in limits]
    held = [0] * 4
    seconds, reads, fast, moved, asked = 0.0, 0, 0, 0, 0
    for key, plain in zip(trace.keys, trace.sizes, strict=True):
        size = plain + 256
        asked += size
        at = next((number for number, tier in enumerate(tiers) if key in tier), None)
        if at is not None:
            reads, seconds, fast = reads + 1, seconds + list(SECONDS.values())[at], fast + (at < 2)
            held[at] -= tiers[at].pop(key)
            moved += size * (at > 0)
        tiers[0][key] = size
        held[0] += size
        for number in range(3):
            while held[number] > limits[number]:
                victim, length = tiers[number].popitem(last=False)
                held[number] -= length
                tiers[number + 1][victim] = length
                held[number + 1] += length
                moved += length
    return Outcome(seconds / max(reads, 1), fast / max(reads, 1), moved / asked)


def engine(trace: Trace, prefetch: str) -> Outcome:
    """Run the accesses through the engine: first ones are stores, all others are reads."""
    sizes = capacities(trace)
    clock = ManualClock()
    with tempfile.TemporaryDirectory() as folder:
        options = {
            "storage_path": folder, "glacier_url": None, "storage_options": None,
            "hot_device": "cpu", "eviction_policy": "auto", "compression": None,
            "durability": "relaxed", "exit_flush_seconds": 0.0, "write_through": False,
            "on_full": "raise", "rules": (), "prefetch": prefetch, "read_only": False,
            "takeover": False, "trusted_keys": (),
        }  # fmt: skip
        texts = [f"{size} B" for size in sizes.values()]
        settings = make_settings(*texts, True, **options)
        lifecycle = assemble(settings, MigrationSettings(interval_seconds=3600), clock)
        try:
            return run(trace, lifecycle.services, clock)
        finally:
            lifecycle.abandon()


def noise(size: int) -> bytes:
    """Return bytes that no codec makes smaller, so that capacities mean the same everywhere."""
    return random.randbytes(size)


def run(trace: Trace, services: Services, clock: ManualClock) -> Outcome:
    hierarchy, migrator = services.hierarchy, services.migrator
    seen: set[str] = set()
    seconds, reads, fast, slow, asked = 0.0, 0, 0, 0, 0
    looked_at = clock.monotonic()
    started = clock.monotonic()
    for at, key, size in zip(*trace, strict=True):
        clock.advance(max(started + at - trace.times[0] - clock.monotonic(), 1e-6))
        asked += size + 256
        if key in seen:
            tier = hierarchy.lookup(key).tier
            reads, seconds = reads + 1, seconds + SECONDS[tier]
            fast += not tier.durable
            slow += tier is TierName.GLACIER
            hierarchy.read(key)
            clock.advance(SECONDS[tier])  # The reader waits, and the migrator looks meanwhile.
        else:
            seen.add(key)
            hierarchy.put(key, Payload.of(noise(size)), terms=DEFAULT_TERMS)
        if clock.monotonic() - looked_at >= LOOK_SECONDS:
            looked_at = clock.monotonic()
            migrator.tick()
    stats = services.telemetry.stats()
    # A change of rank, and a move onto a copy that is there already, moves no byte.
    moved = sum(volume.raw_bytes for volume in stats.written.values())
    moved += sum(
        nbytes for route, nbytes in stats.moved_bytes.items() if route[0].rank > route[1].rank > 0
    )
    records = list(hierarchy.catalog.journal.scan())
    cold = sum(record.size + 256 for record in records if record.tier == "cold")
    full = any(record.tier == "glacier" for record in records)
    filled = cold / capacities(trace)["cold"] if full else 1.0
    reads = max(reads, 1)
    return Outcome(seconds / reads, fast / reads, moved / asked, slow / reads, filled, stats.idle)


def simulated(trace: Trace) -> float:
    """Return the share of repeated reads that one tier as large as hot and warm would answer."""
    sizes = capacities(trace)
    weighed = Trace(trace.times, trace.keys, [size + 256 for size in trace.sizes])
    outcome = replay(weighed, policies.make("auto", sizes["hot"] + sizes["warm"]))
    return 1 - outcome.re_access_miss_ratio


def simulated_tiers(trace: Trace) -> TieredResult:
    """Run the accesses through the four tiers of the simulator, with as much room as a log has."""
    sizes = {TierName(name): size for name, size in capacities(trace).items()}
    stored = list(dict(zip(trace.keys, trace.sizes, strict=True)).values())
    below = int((1 - sum(SHARES.values())) * len(stored))
    sizes[TierName.COLD] = room_for_values(sizes[TierName.COLD], stored, below)
    weighed = Trace(trace.times, trace.keys, [size + 256 for size in trace.sizes])
    return SimulatedTiers(sizes).replay(weighed)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("traces", nargs="?", help="folder of traces (or MEMORIES_TRACES)")
    parser.add_argument("--only", nargs="*", help="names of the traces to replay")
    parser.add_argument("--whole", action="store_true", help="every trace, twice as long")
    parser.add_argument("--requests", type=int, help="how many of each trace")
    parser.add_argument("--prefetch", default="off", help="as in MemoryManager")
    parser.add_argument(
        "--value-bytes", type=int, default=VALUE_BYTES, help="of a value in the mean, once scaled"
    )
    arguments = parser.parse_args()
    folder = find_traces(arguments.traces)
    if folder is None:
        print("hierarchy: skipped, no traces: give their folder, or set MEMORIES_TRACES")
        return 0
    print(f"Reads cost {SECONDS} s; capacities {SHARES} of the bytes of all keys.\n")
    print(
        "| trace | LRU chain (ms) | engine (ms) | ratio | with cold as filled | cold filled "
        "| in RAM: engine | one tier | four tiers | in glacier: engine | four tiers | moved "
        "| regretted |"
    )
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
    ratios, alike = [], []
    requests = arguments.requests or (WHOLE_REQUESTS if arguments.whole else QUICK_REQUESTS)
    for name in arguments.only or (WHOLE if arguments.whole else QUICK):
        started = time.perf_counter()
        trace = scaled(read_trace(folder / f"{name}.npz"), requests, arguments.value_bytes)
        base, ours, ideal = chain(trace), engine(trace, arguments.prefetch), simulated(trace)
        four = simulated_tiers(trace)
        ratio = ours.seconds / base.seconds
        as_filled = ours.seconds / chain(trace, ours.cold_filled).seconds
        if name not in OUTLIERS:
            ratios.append(ratio)
            alike.append(as_filled)
        print(
            f"| {name} | {1e3 * base.seconds:.3f} | {1e3 * ours.seconds:.3f} | {ratio:.3f} "
            f"| {as_filled:.3f} | {ours.cold_filled:.2f} | {ours.in_memory:.3f} | {ideal:.3f} "
            f"| {four.share(TierName.HOT, TierName.WARM):.3f} | {ours.in_glacier:.3f} "
            f"| {four.share(TierName.GLACIER):.3f} | {ours.moved:.2f} "
            f"| {ours.idle.regretted} of {ours.idle.demoted} |",
            flush=True,
        )
        print(f"  {time.perf_counter() - started:.0f} s", file=sys.stderr)
    for words, found in (("capacity as given", ratios), ("cold as filled", alike)):
        if found:
            mean = math.exp(sum(map(math.log, found)) / len(found))
            worst = f"worst {max(found):.3f} (bar 1.02)"
            print(f"\nGeometric mean {mean:.3f} (bar 0.85), {worst}: {words}")
    print(f"\nNot in the means: {', '.join(OUTLIERS)}.")
    print("\nmoved: bytes moved for each byte stored or read (bar 3).")
    print("regretted: demotions of idle values that were read again too soon (bar 10 %).")
    return 0


if __name__ == "__main__":
    sys.exit(main())
