"""How full a cold tier gets, what lies on its disk meanwhile, and what its upkeep costs.

Values come and others leave at random, as fast as they can, in a tier that is always full. The
figures are bytes: of the frames that can be read, of what `st_blocks` says of all files, and of
what was written for each byte stored.

    python benchmarks/room.py [--sizes 100MB 1GB] [--values 30000] [--rounds 0.5] [--scaled]

With `--scaled`, stores of 10 and 100 GB are shown a hundred times smaller: segments, files of their
own and values shrink with them. Heads and index do not, so the real ones are fuller.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from memories.backends.disk import DiskBackend, size_limits
from memories.backends.disk.files import Files
from memories.foundation.units import parse_size
from memories.testing.backends import frame_for, record_for

SCALE = 100


class Counting(Files):
    """The operating system; counts what is written and synced."""

    def __init__(self) -> None:
        self.written = self.syncs = 0

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        done = super().write(descriptor, data)
        self.written += done
        return done

    def writev(self, descriptor: int, buffers: Sequence[bytes | memoryview]) -> int:
        done = super().writev(descriptor, buffers)
        self.written += done
        return done

    def sync(self, descriptor: int) -> None:
        self.syncs += 1
        super().sync(descriptor)


class Watch(threading.Thread):
    """Samples what the files of a folder take on the disk, and remembers the most it saw."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self.folder, self.most, self.ended = folder, 0, threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.02):
            self.most = max(self.most, on_disk(self.folder))


def on_disk(folder: Path) -> int:
    """Return the bytes of the blocks below `folder`; a file that goes meanwhile counts nothing."""
    total = 0
    for file in folder.rglob("*"):
        try:
            total += 512 * file.stat().st_blocks
        except FileNotFoundError:
            continue
    return total


class Outcome(NamedTuple):
    least: float  # Of the capacity, by frames, from the moment when it was full.
    mean: float
    most: float  # Of the capacity, by blocks.
    written: float  # Bytes for each byte stored.
    syncs: int
    rate: float  # Bytes stored in a second.


def run(capacity: int, mean: int, rounds: float, order: str) -> Outcome:
    chance = random.Random(1)
    noise = os.urandom(4 * mean + 1)
    sizes = [max(1, int(mean * factor)) for factor in (0.1, 0.3, 0.6, 1, 1, 2, 2)]
    folder = Path(tempfile.mkdtemp(dir=os.environ.get("ROOM_FOLDER")))
    files, keys = Counting(), list[str]()
    fills, stored, version = [], 0, 0
    watch = Watch(folder)
    watch.start()
    try:
        with DiskBackend(folder / "s", capacity_bytes=capacity, files=files) as backend:
            full = started = None
            base = 0
            while stored - base < rounds * capacity or full is None:
                size = chance.choice(sizes)
                version += 1
                # The oldest, or any; the room is that of the values of two moments.
                while keys and backend.room() < size + 4096:
                    if full is None:
                        full, started = stored, time.perf_counter()
                        base, written, syncs = stored, files.written, files.syncs
                    at = 0 if order == "oldest" else chance.randrange(len(keys))
                    victim = keys.pop(0) if at == 0 else keys[at]
                    if at:
                        keys[at] = keys[-1]
                        keys.pop()
                    backend.remove(victim, version)
                    version += 1
                key = f"key {version}"
                frame = frame_for(noise[:size])
                backend.write(record_for(key, version), frame)
                keys.append(key)
                stored += size
                if full is not None and version % 64 == 0:
                    fills.append(backend.usage().live / capacity)
            seconds = time.perf_counter() - started
            done = stored - base
            return Outcome(
                min(fills), sum(fills) / len(fills), watch.most / capacity,
                (files.written - written) / done, files.syncs - syncs, done / seconds,
            )  # fmt: skip
    finally:
        watch.ended.set()
        watch.join()
        shutil.rmtree(folder)


def show(name: str, capacity: int, mean: int, rounds: float, order: str) -> None:
    found = run(capacity, mean, rounds, order)
    print(
        f"| {name} | {mean:,} | {order} | {found.least:.3f} | {found.mean:.3f} | {found.most:.3f} "
        f"| {found.written:.1f} | {found.syncs:,} | {found.rate / 1e6:.0f} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="*", default=["100MB"], help="capacities")
    parser.add_argument("--values", nargs="*", type=int, default=[30_000])
    parser.add_argument("--orders", nargs="*", default=["any", "oldest"], help="who leaves")
    parser.add_argument("--rounds", type=float, default=0.5, help="how often all is replaced")
    parser.add_argument("--scaled", action="store_true", help="10 and 100 GB, a hundredth of them")
    arguments = parser.parse_args()
    print(
        "| capacity | values of | who leaves | filled at least | mean | blocks at most "
        "| written | syncs | MB/s |\n|---|--:|---|--:|--:|--:|--:|--:|--:|"
    )
    for text in arguments.sizes:
        for mean in arguments.values:
            for order in arguments.orders:
                show(text, parse_size(text), mean, arguments.rounds, order)
    if arguments.scaled:
        for name in ("SEGMENT_BYTES", "LARGE_BYTES", "RESERVE_BYTES", "SLACK_BYTES"):
            setattr(size_limits, name, getattr(size_limits, name) // SCALE)
        for gigabytes in (10, 100):
            for order in arguments.orders:
                whole = gigabytes * 10**9 // SCALE
                show(f"{gigabytes} GB / {SCALE}", whole, 4000, arguments.rounds, order)


if __name__ == "__main__":
    main()
