"""The entries of hot and warm by key, and all that changes with them under one lock.

The catalog, the key locks and the settlement work on parts of it. A short store (`residency`) needs
all parts at once, so they lie in one object.
"""

from __future__ import annotations

from collections.abc import Iterable
from threading import RLock
from typing import Any, Final

from memories.foundation.fork_lock import new_lock
from memories.foundation.keys import INTERNAL
from memories.model.entry import Common, Entry
from memories.model.events import Missed

# What one short call changed: the entry that left, or None; the entry that came, or None; the stamp
# of its arrival, since its own may be that of a later hit; when the call began, in seconds of the
# monotonic clock; and how many seconds a store took, as far as that is measured.
Change = tuple[Entry | None, Entry | None, int, float, Any]


_INTERNAL: Final[str] = INTERNAL
EVERY: Final = 32  # One change in so many is announced to the settlement, and the first that waits.


class EntryTable:
    """The entries, and the lock under which they change. Readers look into `entries` without it.

    A thread that holds the lock acquires no other one. So a signal handler that stores or reads a
    value in RAM can wait for it, whatever lock the interrupted code holds.
    """

    def __init__(self) -> None:
        self.lock: RLock = new_lock()
        self.entries: dict[str, Entry] = {}
        self.version = 0  # The sequence number of the latest commit.
        self.held: dict[str, Any] = {}  # The keys on which calls work, and which call locks each.
        self.releases = 0  # How often a key was unlocked.
        # Made by the short way, and not settled yet; with the misses in between.
        self.changes: list[Change | Missed] = []

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
