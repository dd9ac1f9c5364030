"""One lock per key, for as long as somebody works on it.

Everything that changes a key (store, delete, move) holds the key's lock; reading takes none. A
thread that already holds one key should only try for another: eviction inside a store skips keys
that are busy. Where a caller's own function needs a second key, a circle of waits is refused.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Set
from contextlib import contextmanager

from memories.errors import BusyError

WAIT_SECONDS = 120.0  # Longer than writing the largest value takes; nobody waits for ever.


class _Lock:
    __slots__ = ("holder", "lock", "users")

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.holder: int | None = None  # The thread that holds it.
        self.users = 0


class KeyLocks:
    """Hands out re-entrant locks by key and forgets those that nobody uses."""

    def __init__(self, wait_seconds: float = WAIT_SECONDS) -> None:
        self._wait_seconds = wait_seconds
        self._mutex = threading.Lock()
        self._locks: dict[str, _Lock] = {}
        self._waits: dict[int, _Lock] = {}  # What each waiting thread waits for.

    @contextmanager
    def hold(self, key: str) -> Iterator[None]:
        """Hold the lock of `key`, waiting for it.

        Raises:
            BusyError: its holder waits for this thread in turn, or has held it for too long.
        """
        me = threading.get_ident()
        slot = self._enlist(key)
        try:
            self._acquire(key, slot, me)
            outer, slot.holder = slot.holder, me
            try:
                yield
            finally:
                slot.holder = outer
                slot.lock.release()
        finally:
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

    def mine(self, key: str) -> bool:
        """Return whether this thread holds the lock of `key`."""
        slot = self._locks.get(key)
        return slot is not None and slot.holder == threading.get_ident()

    @contextmanager
    def attempt_all(self, keys: Iterable[str]) -> Iterator[Set[str]]:
        """Hold the locks of those of `keys` that nobody works on; yield which those are.

        Costs one look at the table for all: a key that nobody works on has no lock in it.
        """
        me = threading.get_ident()
        taken: dict[str, _Lock] = {}
        with self._mutex:
            for key in keys:
                if key not in self._locks:
                    slot = self._locks[key] = taken[key] = _Lock()
                    slot.lock.acquire()
                    slot.holder, slot.users = me, 1
        try:
            yield taken.keys()
        finally:
            with self._mutex:
                for key, slot in taken.items():
                    slot.holder = None
                    slot.lock.release()
                    slot.users -= 1
                    if slot.users == 0:
                        del self._locks[key]

    def _acquire(self, key: str, slot: _Lock, me: int) -> None:
        if slot.lock.acquire(blocking=False):
            return
        with self._mutex:
            if self._leads_to(slot, me):
                raise BusyError(
                    f"{key[:200]!r} is held by a thread that waits for a key held by this one; "
                    "do not store other keys from within modify()"
                )
            self._waits[me] = slot
        try:
            if not slot.lock.acquire(timeout=self._wait_seconds):
                raise BusyError(
                    f"{key[:200]!r} has been worked on for {self._wait_seconds:.0f} s by another "
                    "thread; a disk, a bucket or a function passed to modify() does not return"
                )
        finally:
            with self._mutex:
                del self._waits[me]

    def _leads_to(self, slot: _Lock | None, me: int) -> bool:
        while slot is not None and slot.holder is not None:
            if slot.holder == me:
                return True
            slot = self._waits.get(slot.holder)
        return False

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
