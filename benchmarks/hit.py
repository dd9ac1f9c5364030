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
from time import process_time
from typing import Any

import numpy as np
from _race import machine, race, show
from cachebox import LRUCache as BoxLRU
from cachetools import LRUCache as ToolsLRU

from memories import MemoryManager

KEYS = 10_000
ACCESSES = 100_000
THREADS = 8
OURS = "manager[key]", "manager.retrieve(key)"


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
        'manager[key], policy "fifo"': lambda key: plain[key],
    }


def measure(title: str, values: dict[str, Any], trace: list[str]) -> None:
    """Race all candidates over one kind of value, by one thread, and print table and bars."""
    with MemoryManager() as manager, MemoryManager(eviction_policy="fifo") as plain:
        ways = getters(values, manager, plain, threads=False)
        arrays = isinstance(values[trace[0]], np.ndarray)
        if arrays:
            ways["dict, then .view()"] = lambda key: values[key].view()
        # Processor time counts the background work of a manager, too, and no other process's work.
        runs = {name: walk(get, trace) for name, get in ways.items()}
        seconds = race(runs, clock=process_time)
    show(title, seconds, base="dict", unit=1e9 / len(trace), label="ns per hit")
    bar = 2.0 if arrays else 1.5
    for way in OURS:
        ratio = seconds[way] / seconds["cachebox.LRUCache"]
        print(f"\n{way}: {ratio:.2f} times cachebox (bar {bar})")
    # A first-in-first-out order wants to know nothing of hits.
    work = (seconds["manager[key]"] - seconds['manager[key], policy "fifo"']) / len(trace) * 1e9
    print(f"\nwork of the default policy, beside one that needs none: {work:.0f} ns (bar 100)")


def measure_threads(title: str, values: dict[str, Any], trace: list[str]) -> None:
    """Race one thread against several, over the same accesses in all, by a clock on the wall."""
    with MemoryManager() as manager, MemoryManager(eviction_policy="fifo") as plain:
        ways = getters(values, manager, plain, threads=True)
        if isinstance(values[trace[0]], np.ndarray):
            ways["dict, then .view()"] = lambda key: values[key].view()
        runs: dict[str, Callable[[], None]] = {}
        for name, get in ways.items():
            runs[name] = walk_in_threads(get, trace)
            runs[f"{name}, one thread"] = walk(get, trace)
        seconds = race(runs)
    print(f"\n{title}\n\n| candidate | ns per hit | of one thread's total | bar |")
    print("|---|---:|---:|---:|")
    for name in ways:
        share = seconds[f"{name}, one thread"] / seconds[name]
        bar = "0.9" if name in OURS else ""
        print(f"| {name} | {seconds[name] / len(trace) * 1e9:,.1f} | {share:.2f} | {bar} |")
    for way in OURS:
        ratio = seconds["cachebox.LRUCache"] / seconds[way]
        print(f"\n{way}: {ratio:.2f} of cachebox's total (bar 1)")


def main() -> None:
    """Run every table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--accesses", type=int, default=ACCESSES)
    trace = zipf_trace(parser.parse_args().accesses)
    print(f"{machine()}; {KEYS} keys, {len(trace)} accesses, Zipf, medians of shuffled rounds")
    names = [f"tile/{number}" for number in range(KEYS)]
    texts = {name: f"value of {name}".encode() for name in names}
    arrays = {name: np.full(128, number) for number, name in enumerate(names)}
    measure("bytes, one thread", texts, trace)
    measure("arrays of 1 KB, one thread", arrays, trace)
    measure_threads(f"bytes, {THREADS} threads", texts, trace)
    measure_threads(f"arrays of 1 KB, {THREADS} threads", arrays, trace)


if __name__ == "__main__":
    main()
