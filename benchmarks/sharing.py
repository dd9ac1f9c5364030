"""What a store costs that several processes write, beside diskcache and SQLite that lock it.

The process that is timed is not the writer of ours: each change of ours goes to another process. A
value of 64 MB shows the limit of the bytes, 1 KB that of the calls. The last table is the number of
changes that four processes make together.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import diskcache
import numpy as np
from _race import machine, race, show

from memories import SharedMemoryManager

SIZES: dict[str, Any] = {
    "hot_memory_size": "300MB", "warm_memory_size": "300MB", "cold_memory_size": 3,
}  # fmt: skip
SMALL, LARGE, CALLS = 1_000, 8_000_000, 500
PROCESSES, TOGETHER = 4, 400


def opened(name: str, folder: Path) -> tuple[Callable[[str, Any], object], Callable[[str], Any]]:
    """Return how a value is stored in a peer, and how it is read."""
    if name == "SharedMemoryManager":
        manager = SharedMemoryManager(folder / "ours", **SIZES)
        return manager.store, manager.retrieve
    if name == "diskcache":
        cache = diskcache.Cache(str(folder / "diskcache"), size_limit=1 << 33)
        return cache.set, cache.get
    base = sqlite3.connect(folder / "sqlite", timeout=60, isolation_level=None)
    base.execute("PRAGMA journal_mode=WAL")
    base.execute("PRAGMA synchronous=NORMAL")
    base.execute("CREATE TABLE IF NOT EXISTS kept (key TEXT PRIMARY KEY, value BLOB)")

    def store(key: str, value: Any) -> None:
        base.execute("INSERT OR REPLACE INTO kept VALUES (?, ?)", (key, value))

    def retrieve(key: str) -> Any:
        return base.execute("SELECT value FROM kept WHERE key = ?", (key,)).fetchone()[0]

    return store, retrieve


NAMES = ("SharedMemoryManager", "diskcache", "SQLite")


def one_process(folder: Path, rounds: int) -> None:
    """Print what single calls of a process cost."""
    peers = {name: opened(name, folder) for name in NAMES}
    small, keys = os.urandom(SMALL), [f"k/{number % 100}" for number in range(CALLS)]

    def stores(name: str) -> Callable[[], None]:
        return lambda: [peers[name][0](key, small) for key in keys] and None

    def reads(name: str) -> Callable[[], None]:
        return lambda: [peers[name][1](key) for key in keys] and None

    unit = 1e6 / CALLS
    for title, made in (("store 1 KB", stores), ("read 1 KB", reads)):
        seconds = race({name: made(name) for name in NAMES}, rounds=rounds)
        show(title, seconds, base="diskcache", unit=unit, label="microseconds")
    large = np.random.default_rng(1).random(LARGE)
    both = NAMES[:2]  # SQLite takes bytes only.
    candidates = {name: (lambda name=name: peers[name][0]("large", large)) for name in both}
    show("store 64 MB", race(candidates, rounds=3), base="diskcache", unit=1e3, label="ms")
    candidates = {name: (lambda name=name: peers[name][1]("large").sum()) for name in both}
    show(
        "read 64 MB and add it up",
        race(candidates, rounds=3),
        base="diskcache",
        unit=1e3,
        label="ms",
    )


def change_together(name: str, folder: Path, number: int, barrier: Any) -> None:
    """Store values of one's own, at the same time as others."""
    store, _ = opened(name, folder)
    value = os.urandom(SMALL)
    barrier.wait()
    for turn in range(TOGETHER):
        store(f"p/{number}/{turn % 50}", value)
    barrier.wait()


def together(folder: Path) -> None:
    """Print how many changes several processes make in a second."""
    print(f"\n{PROCESSES} processes store 1 KB\n\n| candidate | stores a second |\n|---|---:|")
    context = multiprocessing.get_context("spawn")
    for name in NAMES:
        barrier = context.Barrier(PROCESSES + 1)
        workers = [
            context.Process(target=change_together, args=(name, folder, number, barrier))
            for number in range(PROCESSES)
        ]
        for worker in workers:
            worker.start()
        barrier.wait()
        began = perf_counter()
        barrier.wait()
        print(f"| {name} | {PROCESSES * TOGETHER / (perf_counter() - began):,.0f} |")
        for worker in workers:
            worker.join()


@contextmanager
def another_writer(folder: Path) -> Iterator[None]:
    """Have the store open in another process, until the block ends."""
    context = multiprocessing.get_context("spawn")
    ready, end = context.Event(), context.Event()
    worker = context.Process(target=_hold, args=(folder, ready, end))
    worker.start()
    ready.wait(60)
    try:
        yield
    finally:
        end.set()
        worker.join()


def _hold(folder: Path, ready: Any, end: Any) -> None:
    with SharedMemoryManager(folder / "ours", **SIZES) as manager:
        assert manager.is_writer
        ready.set()
        end.wait()


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as name, another_writer(Path(name)):
        one_process(Path(name), options.rounds)
        together(Path(name))


if __name__ == "__main__":
    main()
