"""What it costs to be watched, and how long one waits for the command line.

The hit path is raced against itself: everything on (analytics ten times a second, a page with a
reader, metrics scraped) against all of it off, in one process, in turns. The rest is processor time
and time on the wall of fresh processes, of which the best of several is what the program needs.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.request import urlopen

import numpy as np
from _race import machine

from memories import MemoryManager
from memories.observe.metrics import prometheus_text

KEYS = 1000
HITS = 100_000
SECONDS = 8.0
IMPORT = (
    "import time, numpy; a = time.perf_counter(); import memories; print(time.perf_counter() - a)"
)


def best(measure: Callable[[], float], times: int) -> float:
    """Return the least of several measurements."""
    return min(measure() for _ in range(times))


def filled() -> MemoryManager:
    """Return a manager with small arrays in warm."""
    manager = MemoryManager(0.1, 1, 1, migration=False)
    for number in range(KEYS):
        manager.store(f"tile/{number}", np.full(128, number), tier="warm")
    return manager


def walk(manager: MemoryManager, names: list[str]) -> Callable[[], float]:
    """Return what reads every name once and says how many seconds of this thread that took."""

    def run() -> float:
        started = time.thread_time()
        for name in names:
            manager[name]
        return time.thread_time() - started

    return run


def hit_path() -> float:
    """Return how many percent more a hit costs with everything on."""
    ranks = 1 / np.arange(1, KEYS + 1)
    draw = np.random.default_rng(7).choice(KEYS, HITS, p=ranks / ranks.sum())
    names = [f"tile/{number}" for number in draw]
    with filled() as off, filled() as on, on.dashboard() as served:
        on.enable_analytics(interval=0.1)
        ended = threading.Event()
        threads = [
            threading.Thread(target=read_events, args=(served.url, ended)),
            threading.Thread(target=scrape, args=(on, ended)),
        ]
        for thread in threads:
            thread.start()
        ratios = []
        for _ in range(15):
            plain, watched = walk(off, names)(), walk(on, names)()
            ratios.append(watched / plain)
        ended.set()
        for thread in threads:
            thread.join()
    return 100 * (statistics.median(ratios) - 1)


def read_events(url: str, ended: threading.Event) -> None:
    """Read ten events a second, as a page does."""
    with urlopen(f"{url}events?interval=0.1", timeout=30) as stream:
        while not ended.is_set() and stream.readline():
            pass


def scrape(manager: MemoryManager, ended: threading.Event) -> None:
    """Ask for the metrics and for an explanation once a second."""
    while not ended.wait(1.0):
        prometheus_text(manager)
        manager.explain("tile/1")


READER = "import sys, urllib.request\nfor line in urllib.request.urlopen(sys.argv[1]): pass"


def dashboard() -> float:
    """Return the share of a core, in percent, that ten updates a second take of the program."""
    with filled() as manager, manager.dashboard() as served:
        for number in range(KEYS):
            manager.retrieve(f"tile/{number}")
        command = [sys.executable, "-c", READER, f"{served.url}events?interval=0.1"]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as reader:
            time.sleep(1.0)
            started, at = time.process_time(), time.perf_counter()
            time.sleep(SECONDS)
            share = (time.process_time() - started) / (time.perf_counter() - at)
            reader.kill()
    return 100 * share


def first_line(*arguments: str) -> tuple[float, float]:
    """Return the seconds until a command has printed its first line: on the wall, of a processor.

    The processor's are counted until the process has been stopped, so a little more.
    """
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-m", "memories", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        seconds = time.perf_counter() - started
        process.kill()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, spent


def shell_time(arguments: tuple[str, ...]) -> str:
    """Return the best of several runs in words."""
    wall, processor = zip(*(first_line(*arguments) for _ in range(7)), strict=True)
    return f"{1000 * min(wall):.0f} ms, {1000 * min(processor):.0f} ms of a processor"


def million(store: Path, count: int) -> None:
    """Fill a store with so many small values."""
    with MemoryManager(0.1, 0.1, 100, storage_path=store, migration=False) as manager:
        batch = 20_000
        for start in range(0, count, batch):
            keys = range(start, min(count, start + batch))
            manager.store_many({f"key/{number:08}": number for number in keys}, tier="cold")


def program(*arguments: str) -> float:
    """Return the seconds of a fresh process."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - started


def importing() -> float:
    """Return the seconds that `import memories` takes after `import numpy`."""
    run = subprocess.run([sys.executable, "-c", IMPORT], check=True, capture_output=True, text=True)
    return float(run.stdout)


def main() -> None:
    """Measure everything and print one table."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # An installed package is compiled already.
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--keys",
        type=int,
        default=100_000,
        help="of the store that is listed; 1000000 takes minutes to fill",
    )
    arguments = parser.parse_args()
    print(f"{machine()}; load {os.getloadavg()[0]:.1f}\n")
    print("| what | measured | bar |\n|---|---:|---:|")
    print(f"| a warm hit with everything on | {hit_path():+.1f} % | <= 10 % |")
    print(f"| dashboard, 10 updates a second | {dashboard():.1f} % of a core | < 3 % |")
    print(f"| `import memories` over numpy | {1000 * best(importing, 7):.0f} ms | < 60 ms |")
    print(f"| `memories --help` | {shell_time(('--help',))} | < 150 ms |")
    floor = best(lambda: program("-c", "import numpy"), 7)
    with tempfile.TemporaryDirectory(prefix="memories-observe-") as directory:
        store = Path(directory, "store")
        million(store, arguments.keys)
        listing = shell_time(("ls", str(store)))
    label = f"`memories ls` on {arguments.keys:,} keys, first line"
    print(f"| {label} | {listing} | < 100 ms |")
    print(f"\nPython and `import numpy` alone take {1000 * floor:.0f} ms on this machine.")


if __name__ == "__main__":
    main()
