"""Small values, every operation beside its peer and its bar, through the public face in one run.

    python benchmarks/small.py [--quick] [--cpu] [--only ROW ...]

Times are microseconds of one operation. "ours" is the median of what the caller waits; "mean" is
the processor time of all threads, with everything that a call leaves for later. Not about large
values: `cold.py`, `arrays.py` and `snapshot.py` have those.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator

import _small_cold as cold
import _small_latency as latency
import _small_ram as ram
from _race import machine
from _small_race import CLOCKS, HEAD, Line, Scale

ROWS: dict[str, Callable[[Scale], Iterator[Line]]] = {
    "store-bytes": ram.store_bytes,
    "store-array": ram.store_array,
    "dict": ram.small_dict,
    "hit": ram.hit,
    "exists": ram.exists,
    "delete": ram.delete,
    "store-cold": cold.store_cold,
    "get-cold": cold.get_cold,
    "store-many": cold.store_many,
    "retrieve-many": cold.retrieve_many,
    "written": cold.written,
    "hit-threads": ram.hit_threads,
    "store-threads": ram.store_threads,
    "snapshot": cold.snapshot,
    "latency": latency.latency,
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer values and rounds")
    parser.add_argument("--cpu", action="store_true", help="processor time, for a busy machine")
    parser.add_argument("--only", choices=ROWS, action="append", help="may be given repeatedly")
    options = parser.parse_args()
    scale = Scale(
        2000 if options.quick else 10_000,
        3 if options.quick else 7,
        options.quick,
        CLOCKS[options.cpu],
    )
    print(f"{machine()}, load {os.getloadavg()[0]:.1f}\n\n{HEAD}", flush=True)
    missed, bars = 0, 0
    for name in options.only or ROWS:
        started = time.perf_counter()
        for line in ROWS[name](scale):
            print(line, flush=True)
            missed += line.met is False
            bars += line.met is not None
        print(f"{name}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
    print(f"\n{bars - missed} of {bars} bars met; load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
