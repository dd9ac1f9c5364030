"""The entries of hot and warm by key, and all that changes with them under one lock.

The catalog, the key locks and the settlement work on parts of it. A short store (`residency`) needs
all parts at once, so they lie in one object.
"""

from __future__ import annotations

from collections.abc import Iterable
from threading import RLock
from time import sleep
from typing import Any, Final

from memories.foundation.fork_lock import holder_test, new_lock
from memories.foundation.keys import INTERNAL
from memories.model.entry import Common, Entry
from memories.model.events import Missed

# What one short call changed: the entry that left, or None; the entry that came, or None; the stamp
# of its arrival, since its own may be that of a later hit; when the call began, in seconds of the
# monotonic clock; and how many seconds a store took, as far as that is measured.
Change = tuple[Entry | None, Entry | None, int, float, Any]


_INTERNAL: Final[str] = INTERNAL
TRIES: Final = 1000  # Of a short change to acquire the lock, before it waits in the queue.
EVERY: Final = 32  # One change in so many is announced to the settlement, and the first that waits.


class EntryTable:
    """The entries, and the lock under which they change. Readers look into `entries` without it.

    A thread that holds the lock acquires no other one. So a signal handler that stores or reads a
    value in RAM can wait for it, whatever lock the interrupted code holds.
    """

    def __init__(self) -> None:
        self.lock: RLock = new_lock()
        self._is_locked_here = holder_test(self.lock)
        self.entries: dict[str, Entry] = {}
        self.version = 0  # The sequence number of the latest commit.
        self.held: dict[str, Any] = {}  # The keys on which calls work, and which call locks each.
        self.releases = 0  # How often a key was unlocked.
        # Made by the short way, and not settled yet; with the misses in between.
        self.changes: list[Change | Missed] = []

    def take_turn(self) -> None:
        """Acquire the lock for a short change; `end_turn` must follow, also after an interrupt.

        The thread does not wait in the queue of the lock. The first one there is given the lock
        before it has the interpreter. If all others then queue up too, each change of each thread
        takes a switch to another one, ten times as long as the change.
        """
        if self.lock.acquire(False):
            return
        for _ in range(TRIES):
            sleep(0)  # It releases the interpreter.
            if self.lock.acquire(False):
                return
        self.lock.acquire()

    def end_turn(self) -> None:
        """Release the lock if this thread holds it. Idempotent."""
        if self._is_locked_here():
            self.lock.release()

    def put_absent(self, entries: Iterable[Entry], common: Common) -> list[Entry]:
        """Make those with this `common` the entries of their keys that have none.

        Returns the others, those with internal keys among them. The caller has the lock.
        """
        known = self.entries
        others: list[Entry] = []
        for entry in entries:
            key = entry.key
            if entry.common is not common or key in known or key[0] == _INTERNAL:
                others.append(entry)
            else:
                known[key] = entry
        return others
