"""What a warm hit costs, beside a dict and the caches people use today.

The keys of the trace are drawn from a Zipf distribution over ten thousand keys which all fit, so
that nothing is evicted: this is the price of the lookup, of the mark that a policy needs, and of
handing out a value which the caller cannot damage.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import lru_cache
from threading import Lock, Thread
from time import perf_counter, process_time
from typing import Any

import numpy as np
from _race import machine, race, show
from cachebox import LRUCache as BoxLRU
from cachetools import LRUCache as ToolsLRU

from memories import MemoryManager

KEYS = 10_000
ACCESSES = 100_000
THREADS = 8


def zipf_trace(accesses: int) -> list[str]:
    """Return keys, popular ones far more often, in an order that repeats exactly."""
    ranks = np.arange(1, KEYS + 1)
    draw = np.random.default_rng(7).choice(KEYS, accesses, p=(1 / ranks) / (1 / ranks).sum())
    return [f"tile/{number}" for number in draw]


def walk(get: Callable[[str], Any], trace: list[str]) -> Callable[[], None]:
    """Return a candidate that asks for every key of the trace."""

    def run() -> None:
        for key in trace:
            get(key)

    return run


def walk_in_threads(get: Callable[[str], Any], trace: list[str]) -> Callable[[], None]:
    """Return a candidate in which each thread walks its share of the trace."""

    def run() -> None:
        share = len(trace) // THREADS
        parts = [trace[start : start + share] for start in range(0, len(trace), share)]
        threads = [Thread(target=walk(get, part)) for part in parts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return run


def locked(get: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return `get` under a lock, as the documentation of cachetools asks for with threads."""
    lock = Lock()

    def guarded(key: str) -> Any:
        with lock:
            return get(key)

    return guarded


def getters(
    values: dict[str, Any], manager: MemoryManager, plain: MemoryManager, *, threads: bool
) -> dict[str, Callable[[str], Any]]:
    """Return the way to read one key from each candidate, each holding the same values."""
    tools: ToolsLRU[str, Any] = ToolsLRU(KEYS)
    box: BoxLRU[str, Any] = BoxLRU(KEYS)
    memo = lru_cache(KEYS)(values.__getitem__)
    for key, value in values.items():
        tools[key] = value
        box[key] = value
        memo(key)
        manager.store(key, value, tier="warm", pin=True)
        plain.store(key, value, tier="warm", pin=True)
    return {
        "dict": lambda key: values[key],
        "functools.lru_cache": lambda key: memo(key),
        "cachetools.LRUCache": locked(tools.__getitem__) if threads else lambda key: tools[key],
        "cachebox.LRUCache": lambda key: box[key],
        "manager[key]": lambda key: manager[key],
        "manager.retrieve(key)": lambda key: manager.retrieve(key),
        'manager[key], policy "lru"': lambda key: plain[key],
    }


def measure(title: str, values: dict[str, Any], trace: list[str], *, threads: bool) -> None:
    """Race all candidates over one kind of value and print the table."""
    with MemoryManager() as manager, MemoryManager(eviction_policy="lru") as plain:
        ways = getters(values, manager, plain, threads=threads)
        if isinstance(values[trace[0]], np.ndarray):
            ways["dict, then .view()"] = lambda key: values[key].view()
        start = walk_in_threads if threads else walk
        # Processor time counts what a manager does in the background, too, and nobody else's
        # work; threads also wait for each other, which only a clock on the wall sees.
        clock = perf_counter if threads else process_time
        seconds = race({name: start(get, trace) for name, get in ways.items()}, clock=clock)
    show(title, seconds, base="dict", unit=1e9 / len(trace), label="ns per hit")


def main() -> None:
    """Run every table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--accesses", type=int, default=ACCESSES)
    trace = zipf_trace(parser.parse_args().accesses)
    print(f"{machine()}; {KEYS} keys, {len(trace)} accesses, Zipf, medians of shuffled rounds")
    names = [f"tile/{number}" for number in range(KEYS)]
    texts = {name: f"value of {name}".encode() for name in names}
    arrays = {name: np.full(128, number) for number, name in enumerate(names)}
    measure("bytes, one thread", texts, trace, threads=False)
    measure("arrays of 1 KB, one thread", arrays, trace, threads=False)
    measure(f"arrays of 1 KB, {THREADS} threads", arrays, trace, threads=True)


if __name__ == "__main__":
    main()
