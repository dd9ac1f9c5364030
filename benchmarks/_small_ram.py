"""The rows about RAM: store, overwrite, retrieve, `exists`, delete, by one thread and by eight."""

from __future__ import annotations

import pickle
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import cycle
from threading import Barrier, Thread
from typing import Any

import numpy as np
from _small_race import Line, Scale, Times, Way, at_least, at_most, race_small, within
from cachebox import LRUCache as BoxLRU
from cachetools import LRUCache as ToolsLRU
from hit import KEYS, zipf_trace

from memories import MemoryManager

THREADS = 8
HITS_PER_STORE = 20  # A hit takes so much less time than a store.
SHORT = 1000  # Hits between two looks at the clock, of a thread that reads for a while ...
RATE_SECONDS = 1.0  # ... which is this long.
LOOK_SECONDS = 0.25  # In which the migrator looks at what has come.
KILOBYTE = bytes(range(256)) * 4
ARRAY = np.arange(128.0)
DICT = {"a": 1, "b": [1, 2, 3]}


def names(count: int) -> list[str]:
    """Return keys that exist before they are needed."""
    return [f"tile/{number:07d}" for number in range(count)]


def opened() -> MemoryManager:
    """Return a manager with room for everything in RAM."""
    return MemoryManager("1 GB", "1 GB", "1 GB")


def settler(manager: MemoryManager) -> Callable[[], None]:
    """Return what ends the work that was put off: a question, and a look of the migrator."""

    def settle() -> None:
        manager.stats()
        time.sleep(LOOK_SECONDS)

    return settle


def emptier(manager: MemoryManager, keys: Sequence[str]) -> Callable[[], None]:
    """Return what makes the keys absent before a turn."""

    def empty() -> None:
        for key in keys:
            if manager.exists(key):
                manager.delete(key)
        manager.stats()

    return empty


def filler(manager: MemoryManager, keys: Sequence[str], value: Any) -> Callable[[], None]:
    """Return what makes the keys present before a turn."""

    def fill() -> None:
        for key in keys:
            manager.store(key, value)
        manager.stats()

    return fill


def storing(manager: MemoryManager, keys: Sequence[str], value: Any) -> Callable[[], None]:
    """Return a turn that stores one value under every key."""

    def run() -> None:
        store = manager.store
        for key in keys:
            store(key, value)

    return run


def calling(call: Callable[[Any], Any], keys: Sequence[Any]) -> Callable[[], None]:
    """Return a turn that calls something with every key."""

    def run() -> None:
        for key in keys:
            call(key)

    return run


def passing(keys: Sequence[Any]) -> Callable[[], None]:
    """Return a turn that calls nothing."""

    def run() -> None:
        for _ in keys:
            pass

    return run


def repeating(call: Callable[[], Any], count: int) -> Callable[[], None]:
    """Return a turn that calls something so many times."""

    def run() -> None:
        for _ in range(count):
            call()

    return run


def store_bytes(scale: Scale) -> Iterator[Line]:
    """Store under absent keys, and over values."""
    scale = scale.times(3)
    keys = names(scale.count)
    tools: ToolsLRU[str, bytes] = ToolsLRU(scale.count)

    def put() -> None:
        for key in keys:
            tools[key] = KILOBYTE

    with opened() as manager:
        ways = {
            "ours": Way(storing(manager, keys, KILOBYTE), emptier(manager, keys), settler(manager)),
            "cachetools": Way(put, tools.clear),
        }
        took = race_small(ways, scale)
        yield at_most("store bytes into RAM", took["ours"], "cachetools", took["cachetools"], 5)
        ways = {
            "ours": Way(storing(manager, keys, KILOBYTE), settle=settler(manager)),
            "cachetools": Way(put),
        }
        took = race_small(ways, scale)
        yield at_most("the same over a value", took["ours"], "cachetools", took["cachetools"], 5)


def store_array(scale: Scale) -> Iterator[Line]:
    """Store an array, which is copied."""
    keys = names(scale.count)
    with opened() as manager:
        run = storing(manager, keys, ARRAY)
        took = race_small(
            {
                "ours": Way(run, emptier(manager, keys), settler(manager)),
                "copy": Way(repeating(ARRAY.copy, scale.count)),
            },
            scale,
        )
    yield within(
        "store a 1 KB array into RAM", took["ours"], 4e-6, "a copy of it", took["copy"], more=True
    )


def small_dict(scale: Scale) -> Iterator[Line]:
    """Store a mutable value, and retrieve it."""
    keys = names(scale.count)
    pickled = pickle.dumps(DICT)
    with opened() as manager:
        run = storing(manager, keys, DICT)
        took = race_small(
            {
                "ours": Way(run, emptier(manager, keys), settler(manager)),
                "pickle": Way(repeating(lambda: pickle.dumps(DICT), scale.count)),
            },
            scale,
        )
        what = f"store `{DICT}` into RAM"
        yield at_most(what, took["ours"], "`pickle.dumps`", took["pickle"], 8)
        run()
        took = race_small(
            {
                "ours": Way(calling(manager.retrieve, keys), settle=settler(manager)),
                "pickle": Way(repeating(lambda: pickle.loads(pickled), scale.count)),
            },
            scale,
        )
        yield at_most("retrieve it", took["ours"], "`pickle.loads`", took["pickle"], 6)


def hit(scale: Scale) -> Iterator[Line]:
    """Read keys of a Zipf distribution while analytics look."""
    keys, trace = (
        [f"tile/{number}" for number in range(KEYS)],
        zipf_trace(scale.count * HITS_PER_STORE),
    )
    box: BoxLRU[str, bytes] = BoxLRU(KEYS)

    def get() -> None:
        for key in trace:
            box[key]

    with opened() as manager:
        manager.enable_analytics(0.25)
        for key in keys:
            manager.store(key, KILOBYTE)
            box[key] = KILOBYTE
        ways = {
            "ours": Way(calling(manager.retrieve, trace), settle=settler(manager)),
            "cachebox": Way(get),
        }
        took = race_small(ways, scale._replace(count=len(trace)))
    what = "hit by `retrieve`, analytics on, zipf over 10,000 keys"
    yield at_most(what, took["ours"], "cachebox", took["cachebox"], 1.5)


def exists(scale: Scale) -> Iterator[Line]:
    """Ask for keys that are there."""
    keys = names(scale.count)
    asked = keys * HITS_PER_STORE
    tools: ToolsLRU[str, bytes] = ToolsLRU(scale.count)

    def ask() -> None:
        for key in asked:
            key in tools  # noqa: B015

    with opened() as manager:
        for key in keys:
            tools[key] = KILOBYTE
            manager.store(key, KILOBYTE)
        ways = {
            "ours": Way(calling(manager.exists, asked), settle=settler(manager)),
            "cachetools": Way(ask),
        }
        took = race_small(ways, scale.times(HITS_PER_STORE))
    yield at_most("`exists`", took["ours"], "`in` of cachetools", took["cachetools"], 12)


def delete(scale: Scale) -> Iterator[Line]:
    """Delete from RAM."""
    keys = names(scale.count)
    tools: ToolsLRU[str, bytes] = ToolsLRU(scale.count)

    def put() -> None:
        for key in keys:
            tools[key] = KILOBYTE

    def remove() -> None:
        for key in keys:
            del tools[key]

    with opened() as manager:
        run = calling(manager.delete, keys)
        ways = {
            "ours": Way(run, filler(manager, keys, KILOBYTE), settler(manager)),
            "cachetools": Way(remove, put),
        }
        took = race_small(ways, scale)
    yield within("delete from RAM", took["ours"], 4e-6, "`del` of cachetools", took["cachetools"])


def together(turns: Sequence[Callable[[], None]]) -> Callable[[], None]:
    """Return a turn that runs others in a thread each."""

    def run() -> None:
        threads = [Thread(target=turn) for turn in turns]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return run


def shares(trace: Sequence[str]) -> list[Sequence[str]]:
    """Divide keys among the threads."""
    return [trace[number::THREADS] for number in range(THREADS)]


def of_one(took: dict[str, Times], name: str) -> float:
    """Return the total of all threads as a share of one thread's."""
    return took[f"{name}, one"].median / took[name].median


def hit_threads(scale: Scale) -> Iterator[Line]:
    """Read by several threads what one thread reads alone, for a while."""
    keys, trace = (
        [f"tile/{number}" for number in range(KEYS)],
        zipf_trace(scale.count * HITS_PER_STORE),
    )
    plain = dict.fromkeys(keys, KILOBYTE)
    # Of each round: the rate of a processor may change between two of them.
    found: dict[str, list[float]] = {"ours": [], "a dict": [], "an empty loop": []}
    with opened() as manager:
        for key in keys:
            manager.store(key, KILOBYTE)
        ways = {"ours": manager.retrieve, "a dict": plain.__getitem__, "an empty loop": None}
        for number in range(scale.rounds + 2):
            for name, get in ways.items():
                rates = {}
                for threads in (1, THREADS) if number % 2 else (THREADS, 1):
                    parts = [trace[at::threads] for at in range(threads)]
                    rates[threads] = rate([calls_of(get, part) for part in parts], scale)
                if number:  # The first round warms up.
                    found[name].append(rates[THREADS] / rates[1])
    shares = {name: statistics.median(of_rounds) for name, of_rounds in found.items()}
    what = "hits of 8 threads, total against one thread's"
    yield at_least(what, shares["ours"], 0.9, "a dict", shares["a dict"])
    yield at_least("the same", shares["ours"], None, "an empty loop", shares["an empty loop"])


def calls_of(call: Callable[[Any], Any] | None, keys: Sequence[str]) -> list[Callable[[], None]]:
    """Return short turns that together call something with every key, or nothing."""
    make = passing if call is None else partial(calling, call)
    return [make(keys[at : at + SHORT]) for at in range(0, len(keys), SHORT)]


def rate(of_threads: Sequence[Sequence[Callable[[], None]]], scale: Scale) -> float:
    """Return how many turns a second threads do together, each its own again and again.

    They have started before the clock does, and go on so long that their start and end, and which
    of them has the interpreter at the end, count little.
    """
    begin, done = Barrier(len(of_threads) + 1), [0] * len(of_threads)

    def work(at: int) -> None:
        begin.wait()
        until = time.perf_counter() + RATE_SECONDS
        for turn in cycle(of_threads[at]):
            turn()
            done[at] += 1
            if time.perf_counter() >= until:
                return

    clock = time.perf_counter if scale.clock is time.perf_counter else time.process_time
    threads = [Thread(target=work, args=(at,)) for at in range(len(of_threads))]
    for thread in threads:
        thread.start()
    started = clock()
    begin.wait()
    for thread in threads:
        thread.join()
    return sum(done) / (clock() - started)


def store_threads(scale: Scale) -> Iterator[Line]:
    """Store by several threads what one thread stores alone."""
    scale = scale.times(5 if scale.quick else 12)  # The migrator reports them meanwhile.
    keys = names(scale.count)
    plain: dict[str, bytes] = {}
    scale = scale._replace(clock=time.perf_counter)

    def putting(part: Sequence[str]) -> Callable[[], None]:
        def put() -> None:
            for key in part:
                plain[key] = KILOBYTE

        return put

    with opened() as manager:
        empty, settle = emptier(manager, keys), settler(manager)
        ours = [storing(manager, part, KILOBYTE) for part in shares(keys)]
        theirs = [putting(part) for part in shares(keys)]
        ways = {
            "ours": Way(together(ours), empty, settle),
            "ours, one": Way(storing(manager, keys, KILOBYTE), empty, settle),
            "a dict": Way(together(theirs), plain.clear),
            "a dict, one": Way(putting(keys), plain.clear),
        }
        took = race_small(ways, scale)
    what = "stores of 8 threads, total against one thread's"
    yield at_least(what, of_one(took, "ours"), 0.8, "a dict", of_one(took, "a dict"))
