"""Large reads by parallel ranged requests into one buffer, a bounded number at a time.

Not caching: every call goes to the store.
One connection rarely fills the line; a dozen requests of some megabytes do.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

import numpy as np

from memories.backends.bucket.objectstore import ObjectStore

RANGE_BYTES = 8 * 1024 * 1024

T = TypeVar("T")
R = TypeVar("R")


class Transfer:
    """Reads ranges of objects through a pool of `concurrency` threads, made at first need."""

    def __init__(self, store: ObjectStore, concurrency: int) -> None:
        self._store = store
        self._concurrency = concurrency
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    def fetch(self, name: str, offset: int, length: int) -> memoryview:
        """Return `length` bytes from `offset` on, read-only; fewer where the object ends."""
        if length == 0:
            return memoryview(b"")
        if length <= RANGE_BYTES:
            return memoryview(self._store.get_range(name, offset, length)).toreadonly().cast("B")
        buffer = memoryview(np.empty(length, np.uint8))

        def part(start: int) -> int:
            size = min(RANGE_BYTES, length - start)
            data = memoryview(self._store.get_range(name, offset + start, size))
            buffer[start : start + len(data)] = data
            return len(data)

        starts = range(0, length, RANGE_BYTES)
        whole = sum(self.map(part, starts))
        return buffer[:whole].toreadonly()

    def map(self, action: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """Yield the result for each item, in any order, at most `concurrency` at work.

        The first exception is raised, after what was already at work has ended.
        """
        pool = self._executor()
        pending: set[Future[R]] = set()
        try:
            for item in items:
                if len(pending) >= 2 * self._concurrency:
                    done, pending = wait(pending, return_when=FIRST_COMPLETED)
                    for future in done:
                        yield future.result()
                pending.add(pool.submit(action, item))
            while pending:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        finally:
            for future in pending:
                future.cancel()
            wait(pending)

    def close(self) -> None:
        """End the threads."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(cancel_futures=True)

    def _executor(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._concurrency, "memories-glacier")
            return self._pool
