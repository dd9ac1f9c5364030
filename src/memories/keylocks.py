"""One lock per key, for as long as somebody works on it.

Everything that changes a key (store, delete, move) holds the key's lock; reading takes none. A
thread that already holds one key must only try for another: eviction inside a store skips keys
that are busy, so lock order cannot deadlock.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class _Lock:
    __slots__ = ("holder", "lock", "users")

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.holder: int | None = None  # The thread that holds it, for `attempt`.
        self.users = 0


class KeyLocks:
    """Hands out re-entrant locks by key and forgets those that nobody uses."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._locks: dict[str, _Lock] = {}

    @contextmanager
    def hold(self, key: str) -> Iterator[None]:
        """Hold the lock of `key`, waiting for it."""
        slot = self._enlist(key)
        slot.lock.acquire()
        outer, slot.holder = slot.holder, threading.get_ident()
        try:
            yield
        finally:
            slot.holder = outer
            slot.lock.release()
            self._retire(key, slot)

    @contextmanager
    def attempt(self, key: str) -> Iterator[bool]:
        """Hold the lock of `key` if nobody does, not even this thread; yield whether it is held."""
        slot = self._enlist(key)
        mine = slot.holder == threading.get_ident()
        taken = not mine and slot.lock.acquire(blocking=False)
        if taken:
            slot.holder = threading.get_ident()
        try:
            yield taken
        finally:
            if taken:
                slot.holder = None
                slot.lock.release()
            self._retire(key, slot)

    def _enlist(self, key: str) -> _Lock:
        with self._mutex:
            slot = self._locks.get(key)
            if slot is None:
                slot = self._locks[key] = _Lock()
            slot.users += 1
            return slot

    def _retire(self, key: str, slot: _Lock) -> None:
        with self._mutex:
            slot.users -= 1
            if slot.users == 0:
                del self._locks[key]
