"""The rows about disk: small values into cold and back, one by one and together, and snapshots."""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from _cold_peers import DiskCache, Lmdb, Peer, missing
from _small_race import Line, Scale, Way, at_most, race_small, seconds_line, within

from memories import MemoryManager

NOISE = os.urandom(1024)
TEXT = (b'{"name": "tile", "number": 12345, "colour": "green"}' * 20)[:1024]
SMALL = b"a small value of some thirty bytes"
WRITTEN = 50_000
TOGETHER = 10_000


class Names:
    """Keys, other ones for every turn: each store is of an absent key."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._turn = 0
        self.keys: list[str] = []

    def renew(self) -> None:
        """Make the keys of the next turn, in an order that says nothing."""
        self._turn += 1
        self.keys = [f"tile/{self._turn}/{number:06d}" for number in range(self._count)]
        random.Random(self._turn).shuffle(self.keys)


def opened(path: Path) -> MemoryManager:
    """Return a manager in which a value stays in cold."""
    return MemoryManager("1 MB", "1 MB", storage_path=path, migration=False, prefetch="off")


@contextmanager
def stores() -> Iterator[tuple[MemoryManager, list[Peer]]]:
    """Open a manager and its peers, as far as they are installed, in a directory of their own."""
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="memories-small-")))
        manager = stack.enter_context(opened(root / "ours"))
        peers: list[Peer] = []
        for kind in (DiskCache, Lmdb):
            try:
                peers.append(kind(root / kind.__name__, full=False))
            except ImportError as error:
                missing(error)
            else:
                stack.callback(peers[-1].close)
        yield manager, peers


def of(peers: list[Peer], name: str) -> Peer | None:
    """Return the peer whose name begins so, if it is installed."""
    return next((peer for peer in peers if peer.name.startswith(name)), None)


def store_cold(scale: Scale) -> Iterator[Line]:
    """Store 1 KB under absent keys, by a call each."""
    scale = scale.times(0.1)
    for kind, value in (("compressible", TEXT), ("noise", NOISE)):
        with stores() as (manager, peers):
            ways = {"ours": storing(manager, scale.count, value)}
            for peer in peers:
                ways[peer.name] = putting(peer, scale.count, value)
            took = race_small(ways, scale)
            for peer in peers:
                bar = 0.5 if isinstance(peer, DiskCache) else None
                what = f"store 1 KB into cold, {kind}"
                yield at_most(what, took["ours"], peer.name, took[peer.name], bar)


def storing(manager: MemoryManager, count: int, value: bytes) -> Way:
    """Return how a manager stores a value in cold under absent keys."""
    names = Names(count)

    def store() -> None:
        for key in names.keys:
            manager.store(key, value, "cold")

    return Way(store, names.renew)


def putting(peer: Peer, count: int, value: bytes) -> Way:
    """Return how a peer puts a value under absent keys."""
    keys = Names(count)
    return Way(lambda: peer.put(keys.keys, value), keys.renew)


def get_cold(scale: Scale) -> Iterator[Line]:
    """Get 1 KB, verified and decoded, by a call each."""
    scale = scale.times(0.2)
    for kind, value in (("compressible", TEXT), ("noise", NOISE)):
        with stores() as (manager, peers):
            keys = filled(manager, peers, scale.count, value)
            ways = {"ours": Way(partial(get_each, manager, keys))}
            for peer in peers:
                ways[peer.name] = Way(partial(peer.get, keys))
            took = race_small(ways, scale)
            for peer in peers:
                bar = 1.0 if isinstance(peer, DiskCache) else 5.0
                what = f"get 1 KB from cold, {kind}"
                yield at_most(what, took["ours"], peer.name, took[peer.name], bar)


def get_each(manager: MemoryManager, keys: list[str]) -> None:
    """Retrieve every key, by a call each."""
    for key in keys:
        manager.retrieve(key)


def filled(manager: MemoryManager, peers: list[Peer], count: int, value: bytes) -> list[str]:
    """Put values everywhere and return their keys in another order."""
    names = Names(count)
    names.renew()
    manager.store_many(dict.fromkeys(names.keys, value), "cold")
    manager.flush()
    for peer in peers:
        peer.put(names.keys, value)
    return random.Random(0).sample(names.keys, count)


def store_many(scale: Scale) -> Iterator[Line]:
    """Store many at once."""
    scale = scale._replace(count=scale.count // 5 if scale.quick else TOGETHER)
    with stores() as (manager, peers):
        ours = Names(scale.count)
        mapping: dict[str, Any] = {}

        def renew() -> None:
            ours.renew()
            mapping.clear()
            mapping.update(dict.fromkeys(ours.keys, NOISE))

        ways = {"ours": Way(lambda: manager.store_many(mapping, "cold"), renew)}
        peer = of(peers, "diskcache")
        if isinstance(peer, DiskCache):
            theirs, cache = Names(scale.count), peer
            ways[peer.name] = Way(lambda: cache.put_together(theirs.keys, NOISE), theirs.renew)
        took = race_small(ways, scale)
        if peer is not None:
            what = f"`store_many` of {scale.count:,} x 1 KB into cold, each"
            name = f"{peer.name}, one transaction"
            yield at_most(what, took["ours"], name, took[peer.name], 0.33)


def retrieve_many(scale: Scale) -> Iterator[Line]:
    """Retrieve many at once, beside as many calls of `retrieve`."""
    scale = scale._replace(count=scale.count // 5 if scale.quick else TOGETHER)
    with stores() as (manager, peers):
        keys = filled(manager, peers, scale.count, NOISE)
        ways = {
            "ours": Way(partial(manager.retrieve_many, keys)),
            "a `retrieve` each": Way(partial(get_each, manager, keys)),
        }
        peer = of(peers, "diskcache")
        if peer is not None:
            ways[peer.name] = Way(partial(peer.get, keys))
        took = race_small(ways, scale)
        for name, factor in (("diskcache", 0.8), ("a `retrieve` each", 1.0)):
            if name in took:
                yield at_most(
                    "`retrieve_many` of them, each", took["ours"], name, took[name], factor
                )


def written(scale: Scale) -> Iterator[Line]:
    """Store small values into RAM of a manager with a directory, and close it."""
    count = WRITTEN // 10 if scale.quick else WRITTEN
    keys = [f"item/{number:07d}" for number in range(count)]
    taken = []
    for _ in range(1 if scale.quick else 3):
        with tempfile.TemporaryDirectory(prefix="memories-small-") as folder:
            started, busy = time.perf_counter(), time.process_time()
            with MemoryManager("1 GB", "1 GB", "10 GB", storage_path=folder) as manager:
                for key in keys:
                    manager.store(key, SMALL)
            taken.append((time.perf_counter() - started, time.process_time() - busy))
    took, busy = sorted(taken)[len(taken) // 2]
    what = f"{count:,} small values stored, written and closed"
    yield seconds_line(what, took, busy, 2.0 * count / WRITTEN)


def snapshot(scale: Scale) -> Iterator[Line]:
    """Create a snapshot of small values, and restore it in another manager."""
    scale = scale.times(5)._replace(rounds=min(scale.rounds, 3))
    for tier, wait in (("cold", False), ("hot", True)):
        with ExitStack() as stack:
            root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="memories-small-")))
            manager = stack.enter_context(roomy())
            values = {f"item/{number:07d}": SMALL for number in range(scale.count)}
            manager.store_many(values, tier)
            path = root / "snapshot"
            manager.create_snapshot(path)
            restored = Restored(path, wait=wait)
            stack.callback(restored.close)
            ways = {
                "create": Way(partial(manager.create_snapshot, path)),
                "restore": Way(restored.restore, restored.renew),
            }
            took = race_small(ways, scale)
        there = f"in {tier}" + (", until they are there again" if wait else "")
        yield within(f"snapshot of small values in {tier}, each: create", took["create"], 8e-6)
        yield within(f"the same: restore {there}", took["restore"], 8e-6)


def roomy() -> MemoryManager:
    """Return a manager with room for everything, in which nothing moves by itself."""
    return MemoryManager("1 GB", "1 GB", "10 GB", migration=False)


class Restored:
    """An empty manager for every turn, into which a snapshot is restored."""

    def __init__(self, path: Path, *, wait: bool) -> None:
        self._path = path
        self._wait = wait
        self._manager: MemoryManager | None = None

    def renew(self) -> None:
        """Open another manager."""
        self.close()
        self._manager = roomy()

    def restore(self) -> None:
        """Restore all values."""
        assert self._manager is not None
        self._manager.restore_snapshot(self._path, wait=self._wait)

    def close(self) -> None:
        """Close the manager, if one is open."""
        if self._manager is not None:
            self._manager.cleanup()
            self._manager = None
