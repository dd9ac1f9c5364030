"""Large reads by parallel ranged requests into one buffer, a bounded number at a time.

One connection rarely fills the line; a dozen requests of some megabytes do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np

from memories.backends.bucket.objectstore import ObjectStore
from memories.foundation.fork_lock import new_lock
from memories.foundation.worker_pool import WorkerPool
from memories.progress import Progress

RANGE_BYTES = 8 * 1024 * 1024

T = TypeVar("T")
R = TypeVar("R")


class ParallelDownload:
    """Reads ranges of objects through pools of `concurrency` threads, made at first need."""

    def __init__(self, store: ObjectStore, concurrency: int) -> None:
        self._store = store
        self._concurrency = concurrency
        self._lock = new_lock()
        self._pools: dict[str, WorkerPool] = {}

    def fetch(
        self, name: str, offset: int, length: int, progress: Progress | None = None
    ) -> memoryview:
        """Return `length` bytes from `offset` on, read-only; fewer where the object ends."""
        if length == 0:
            return memoryview(b"")
        if length <= RANGE_BYTES:
            return memoryview(self._store.get_range(name, offset, length)).toreadonly().cast("B")
        buffer = np.empty(length, np.uint8).data

        def part(start: int) -> int:
            size = min(RANGE_BYTES, length - start)
            data = memoryview(self._store.get_range(name, offset + start, size))
            buffer[start : start + len(data)] = data
            return len(data)

        done = 0
        for count in self.map(part, range(0, length, RANGE_BYTES), pool="ranges"):
            done += count
            if progress is not None:
                progress(done, length)
        return buffer[:done].toreadonly()

    def map(
        self, action: Callable[[T], R], items: Iterable[T], pool: str = "objects"
    ) -> Iterator[R]:
        """Yield the result for each item, in order, at most `concurrency` at work.

        An action may use `map` again, through another pool. The first exception is raised, after
        what was already at work has ended. An interrupted caller waits for nothing: actions that
        are at work may still read, and their results are lost.
        """
        return self._workers(pool).map(action, items, ahead=2 * self._concurrency)

    def close(self) -> None:
        """End the threads."""
        with self._lock:
            pools, self._pools = self._pools, {}
        for pool in pools.values():
            pool.close()

    def _workers(self, pool: str) -> WorkerPool:
        with self._lock:
            if pool not in self._pools:
                self._pools[pool] = WorkerPool(self._concurrency, f"glacier-{pool}", remote=True)
            return self._pools[pool]
