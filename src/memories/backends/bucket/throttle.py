"""Limits the number of parallel requests and the bytes per second of an object store.

The order of waiting threads is arbitrary. The line is shared with the rest of the machine, so an
archive must not use all of it by default.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue

from memories.backends.bucket.objectstore import BeforeSend, Buffer, ObjectStore, Stat
from memories.foundation.fork_lock import new_lock


class ThrottledStore(ObjectStore):
    """Another object store, with at most `requests` at once and `bytes_per_second` over time."""

    def __init__(
        self, inner: ObjectStore, requests: int, bytes_per_second: float | None = None
    ) -> None:
        self._inner = inner
        self._free: SimpleQueue[_Slot] = SimpleQueue()
        for _ in range(requests):
            self._free.put(_Slot(weakref.ref(self)))
        self._rate = bytes_per_second
        self._lock = new_lock()
        self._free_at = 0.0  # When the line has carried all admitted bytes.
        self.url = inner.url

    def put(self, name: str, buffers: Sequence[Buffer], sending: BeforeSend | None = None) -> None:
        """Put, each piece of it once there is room on the line."""

        def pace(count: int) -> None:
            self._pace(count)
            if sending is not None:
                sending(count)

        with self._slot():
            self._inner.put(name, buffers, pace)

    def put_if(self, name: str, data: bytes, tag: str | None) -> str:
        """Put if unchanged, past all queues: a lease must not be lost to a busy line."""
        return self._inner.put_if(name, data, tag)

    def get(self, name: str) -> tuple[bytes, str]:
        """Get."""
        with self._slot():
            return self._inner.get(name)

    def get_range(self, name: str, offset: int, length: int) -> Buffer:
        """Get a range, once there is room on the line."""
        with self._slot():
            self._pace(length)
            return self._inner.get_range(name, offset, length)

    def delete(self, name: str) -> None:
        """Delete."""
        with self._slot():
            self._inner.delete(name)

    def list(self, prefix: str) -> Iterator[Stat]:
        """List."""
        with self._slot():
            return iter(list(self._inner.list(prefix)))

    def honours_conditions(self) -> bool:
        """Ask the other store."""
        return self._inner.honours_conditions()

    def forget_probe(self) -> None:
        """Tell the other store."""
        self._inner.forget_probe()

    def abandoned_uploads(self, names: Collection[str] | None) -> Sequence[str] | None:
        """Tell the other store."""
        return self._inner.abandoned_uploads(names)

    def restore(self, name: str, days: int) -> None:
        """Ask the other store to restore an object."""
        self._inner.restore(name, days)

    def close(self) -> None:
        """Close the other store."""
        self._inner.close()

    @contextmanager
    def _slot(self) -> Iterator[None]:
        slot = self._free.get()
        try:
            yield
        finally:
            self._free.put(slot)

    def offer(self) -> None:
        """Add a slot in place of one that was lost."""
        self._free.put(_Slot(weakref.ref(self)))

    def _pace(self, count: int) -> None:
        if self._rate is None:
            return
        with self._lock:
            now = time.monotonic()
            begin = max(now, self._free_at)
            self._free_at = begin + count / self._rate
        time.sleep(begin - now)


class _Slot:
    """The right to one request; lost with a thread that died or was interrupted, it comes back."""

    __slots__ = ("_store",)

    def __init__(self, store: weakref.ref[ThrottledStore]) -> None:
        self._store = store

    def __del__(self) -> None:
        store = self._store()
        if store is not None:
            store.offer()
