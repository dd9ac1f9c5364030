"""The values that are read over and over right now, so that the next read is one look into a dict.

Not a tier and not a cache: it refers to payloads that entries hold, until the next look of the
catalog empties it. The idea: a mark at every read costs more than the read, and being here is the
mark. Whoever is read again after the front was emptied is marked again, every few seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from numpy import ndarray

from memories.model.entry import ArrayEntry, Entry, SharedEntry
from memories.model.tiers import TierName

SECONDS = 5.0  # Between two times that the front is emptied, unless much is stored.
EXACT_HITS = 3  # Reads of a new entry that are counted one by one before it may come forward.
MAX_KEYS = 16_384
ARRIVALS_PER_SETTLING = 16  # The front is emptied when one part in so many of the entries is new.


class FrontCache:
    """Payloads by key, and the number of reads that they answered.

    A reader looks into `values` and adds one to `hits`: no lock, and no call in between at which
    an interpreter with a global lock would change threads, so that the count is exact. All methods
    are called under the catalog's lock. How many of the hits were whose is not known; they are
    credited in equal parts to the keys that were here, so that the sum stays exact.
    """

    __slots__ = ("_arrivals", "_credited", "_latest", "credits", "hidden", "hits", "values")

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.hits = 0.0  # A float is not allocated anew at each sum; exact up to 2**53.
        self.hidden: Callable[[str], bool] | None = None  # Keys whose every read must be marked.
        self.credits: Counter[TierName] = Counter()
        self._credited = 0
        self._latest = TierName.HOT
        self._arrivals = 0

    def insert(self, entry: Entry, entries: Mapping[str, Entry]) -> None:
        """Let the next reads of `entry` be answered from here, if that is all they need."""
        payload = entry.payload
        if self.hidden is not None and self.hidden(entry.key):
            return
        if type(entry) is SharedEntry or (type(entry) is ArrayEntry and type(payload) is ndarray):
            if len(self.values) >= MAX_KEYS:
                self.flush(entries)
            self.values[entry.key] = payload

    def drop(self, key: str, entries: Mapping[str, Entry]) -> None:
        """Let go of what `key` stands for; MUST happen before its entry changes."""
        if key in self.values:
            if len(self.values) == 1:
                self.flush(entries)
            else:
                del self.values[key]

    def count_arrival(self, entries: Mapping[str, Entry]) -> None:
        """Learn of a new entry; after some, marks must be fresh for those who look for victims."""
        self._arrivals += 1
        if self._arrivals * ARRIVALS_PER_SETTLING >= len(entries):
            self._arrivals = 0
            self.flush(entries)

    def flush(self, entries: Mapping[str, Entry]) -> None:
        """Empty the front, its hits credited: the next read of each key marks its entry again."""
        self.credit_hits(entries)
        self.values.clear()

    def clear(self) -> None:
        """Empty the front, and credit nobody: something ended that in the middle."""
        self.values.clear()
        self._credited = int(self.hits)

    def credit_hits(self, entries: Mapping[str, Entry]) -> None:
        """Mark the entries whose reads were answered here since the last time.

        Each is marked as read just now: too late by as long as it was here, never too early.
        """
        due = int(self.hits) - self._credited
        if not due:
            return
        self._credited += due
        share, rest = divmod(due, len(self.values) or 1)
        for key in self.values:
            entry = entries[key]
            entry.hits += share
            entry.stamp = entry.tick()  # Counts a hit of the tier by itself.
            self.credits[entry.tier] += share - 1
            self._latest = entry.tier
        self.credits[self._latest] += rest if self.values else due
