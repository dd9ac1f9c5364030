"""One lock per key, which exists for as long as a thread works on the key.

A call that changes a key (store, delete, move) holds its lock; reads take none. A thread that holds
one key should only try to lock another: an eviction within a store skips busy keys. Where a
function of the caller needs a second key, a circle of waits is refused.

A lock belongs to the call that acquired it. When that call is over, however it ended, a waiting
thread takes the lock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Set
from threading import get_ident
from typing import Protocol

from memories.engine.entry_table import EntryTable
from memories.errors import BusyError
from memories.foundation.call_owner import thread_frames
from memories.foundation.periodic import Latch

WAIT_SECONDS = 120.0  # Longer than writing the largest value takes.
LOOK_SECONDS = 0.1  # How often a waiting thread checks that the holder's call goes on.


class Call(Protocol):
    """The call that acquires a lock."""

    keys: set[str]

    @property
    def alive(self) -> bool:
        """Whether it goes on."""


class _Held:
    """The lock of a key that a thread works on."""

    __slots__ = ("call", "depth", "free", "thread")

    def __init__(self, thread: int, call: Call | None) -> None:
        self.thread = thread
        self.call = call
        self.depth = 1
        self.free: Latch | None = None  # Set at the release; made by a waiting thread.

    @property
    def stale(self) -> bool:
        if self.call is None:
            return self.thread not in thread_frames()
        return not self.call.alive

    def released(self) -> None:
        if self.free is not None:
            self.free.set()


class KeyLocks:
    """Re-entrant locks by key; an unused one takes no memory.

    `call` says which call a thread is in; None where it is in none, and its locks end with it.
    While a caller holds the lock of the `table`, no thread locks or unlocks a key.
    """

    def __init__(
        self,
        call: Callable[[int], Call | None] = lambda thread: None,
        wait_seconds: float = WAIT_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
        table: EntryTable | None = None,
    ) -> None:
        self.call = call
        self._wait_seconds = wait_seconds
        self._monotonic = monotonic
        self._table = table or EntryTable()
        self.mutex = self._table.lock
        self.held: dict[str, _Held] = self._table.held
        self._waits: dict[int, _Held] = {}  # What each waiting thread waits for.

    def lock(self, key: str) -> _Hold:
        """Lock `key` for a `with` statement, and wait for it.

        Raises:
            BusyError: its holder waits for this thread in turn, or has held it for too long.
        """
        return _Hold(self, key)

    def try_lock(self, key: str) -> _Attempt:
        """Lock `key` if no thread holds it, not even this one; gives whether it is locked."""
        return _Attempt(self, (key,))

    def try_lock_all(self, keys: Iterable[str]) -> _AttemptAll:
        """Lock those of `keys` that no thread works on; gives the locked ones."""
        return _AttemptAll(self, keys)

    def is_held_here(self, key: str) -> bool:
        """Return whether this thread holds the lock of `key`."""
        held = self.held.get(key)
        return held is not None and held.thread == get_ident()

    def held_keys(self) -> list[str]:
        """Return the keys that are locked."""
        with self.mutex:
            return list(self.held)

    def reset(self) -> None:
        """Forget all holders, in a forked child: their threads do not exist there."""
        self.held.clear()
        self._waits.clear()

    def release_all(self, thread: int) -> None:
        """Release all locks of `thread`: the call that acquired them is over."""
        with self.mutex:
            for key in [key for key, held in self.held.items() if held.thread == thread]:
                self._table.releases += 1
                self.held.pop(key).released()
            self._waits.pop(thread, None)

    def acquire(self, key: str) -> None:
        """Lock `key`, and wait for it."""
        me = get_ident()
        began = 0.0
        while True:
            with self.mutex:
                held = self.held.get(key)
                if held is None or (began and held.stale):
                    self._hold_new(key, me)
                    return
                if held.thread == me:
                    held.depth += 1
                    return
                if self._leads_to(held, me):
                    raise BusyError(
                        f"{key[:200]!r} is held by a thread that waits for a key held by this "
                        "one; do not store other keys from within modify()"
                    )
                self._waits[me] = held
                free = held.free = held.free or Latch()
            began = began or self._monotonic()
            try:
                released = free.wait(min(LOOK_SECONDS, self._wait_seconds))
            finally:
                self._waits.pop(me, None)
            if not released and self._monotonic() - began >= self._wait_seconds:
                raise BusyError(
                    f"{key[:200]!r} has been worked on for {self._wait_seconds:.0f} s by another "
                    "thread; a disk, a bucket or a function passed to modify() does not return"
                )

    def try_acquire(self, keys: Iterable[str]) -> list[str]:
        """Lock those of `keys` that are free, and return them."""
        me = get_ident()
        with self.mutex:
            held, call = self.held, self.call(me)
            taken = [key for key in keys if key not in held]
            if call is not None:
                call.keys.update(taken)
            held.update({key: _Held(me, call) for key in taken})
        return taken

    def release(self, keys: Iterable[str], *, clean: bool) -> None:
        """Release each of `keys` once; `clean` unless an exception ends the work on them."""
        me = get_ident()
        with self.mutex:
            holders = self.held
            for key in keys:
                held = holders.get(key)
                if held is None or held.thread != me:
                    continue  # Another thread took the lock, since this call seemed over.
                held.depth -= 1
                if held.depth:
                    continue
                if clean and held.call is not None:
                    held.call.keys.discard(key)
                self._table.releases += 1
                del holders[key]
                if held.free is not None:
                    held.free.set()

    def _hold_new(self, key: str, me: int) -> None:
        call = self.call(me)
        if call is not None:
            call.keys.add(key)
        stale = self.held.get(key)
        self.held[key] = _Held(me, call)
        if stale is not None:
            stale.released()

    def _leads_to(self, held: _Held | None, me: int) -> bool:
        while held is not None:
            if held.thread == me:
                return True
            held = self._waits.get(held.thread)
        return False


class _Hold:
    __slots__ = ("_key", "_locks")

    def __init__(self, locks: KeyLocks, key: str) -> None:
        self._locks = locks
        self._key = key

    def __enter__(self) -> None:
        locks, key = self._locks, self._key
        me = get_ident()
        with locks.mutex:
            free = key not in locks.held
            if free:
                call = locks.call(me)
                if call is not None:
                    call.keys.add(key)
                locks.held[key] = _Held(me, call)
        if not free:
            locks.acquire(key)

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._locks.release((self._key,), clean=kind is None)


class _AttemptAll:
    __slots__ = ("_keys", "_locks")

    def __init__(self, locks: KeyLocks, keys: Iterable[str]) -> None:
        self._locks = locks
        self._keys = keys

    def __enter__(self) -> Set[str]:
        self._keys = taken = set(self._locks.try_acquire(self._keys))
        return taken

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._locks.release(self._keys, clean=kind is None)


class _Attempt:
    __slots__ = ("_keys", "_locks")

    def __init__(self, locks: KeyLocks, keys: tuple[str]) -> None:
        self._locks = locks
        self._keys: Iterable[str] = keys

    def __enter__(self) -> bool:
        self._keys = self._locks.try_acquire(self._keys)
        return bool(self._keys)

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._locks.release(self._keys, clean=kind is None)
