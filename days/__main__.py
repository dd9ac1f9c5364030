"""Runs the days and prints their tables.

    python -m days [--small] [--keep FOLDER] [DAY ...]

Without a name every day runs. A table shows each program beside the others, and each bar. With
`--keep` the tables are also written into the folder, as `days.json` and `days.png`.
"""

from __future__ import annotations

import argparse
import compileall
import importlib
import os
import sys
import tempfile
import time
from pathlib import Path

import memories
from days import tables
from days.judging import Judgement, Scale

DAYS: list[str] = [
    "tile_server",
    "analysis",
    "notebook",
    "training",
    "embeddings",
    "web_service",
    "nightly_etl",
    "ensemble",
    "month",
    "team",
]


def judge(day: str, scale: Scale, folder: Path) -> Judgement:
    """Run one day."""
    found: Judgement = importlib.import_module(f"days.{day}").judge(scale, folder / day)
    return found


def main() -> int:
    """Run the days that are asked for; return 1 if a bar was missed."""
    parser = argparse.ArgumentParser(prog="python -m days", description=__doc__)
    parser.add_argument("days", nargs="*", choices=[*DAYS, []], metavar="DAY", help=", ".join(DAYS))
    parser.add_argument("--small", action="store_true", help="as the tests run them: seconds")
    parser.add_argument("--keep", type=Path, help="write days.json and days.png into this folder")
    options = parser.parse_args()
    scale = Scale.SMALL if options.small else Scale.FULL
    # The twins have bytecode, for pip writes it. A checkout has none at first.
    for package in memories.__path__:
        compileall.compile_dir(package, quiet=1)
    print(f"{tables.machine()}, load {os.getloadavg()[0]:.1f}", flush=True)
    judged: dict[str, Judgement] = {}
    for day in options.days or DAYS:
        started = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="days-") as folder:
            judged[day] = judge(day, scale, Path(folder))
        print(tables.text(judged[day]), flush=True)
        print(f"{day}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
    if options.keep:
        tables.keep(judged, options.keep)
    bars = [bar for one in judged.values() for bar in one.bars]
    missed = [bar for bar in bars if not bar.met]
    beyond = sum(not bar.reachable for bar in missed)
    print(f"\n{len(bars) - len(missed)} of {len(bars)} bars met", end="")
    print(f"; the floor misses {beyond} of the others, too" if beyond else "")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
