"""The payloads of the keys that are read most often now, in one dict.

It refers to payloads that entries hold, until the catalog empties it. Counting each hit per key
costs more than the hit. So hits on this dict are only summed, and later divided among its keys. A
key that is still read after the front was emptied is counted again, every few seconds.
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
KINDS = frozenset({SharedEntry, ArrayEntry})  # All others build an object for each reader.
MAX_KEYS = 16_384
REQUESTS = 32  # So many reads ask for their keys to be inserted, then one inserts all of them.
FLUSH_SHARE = 16  # The front is emptied when a sixteenth of the entries is new.


class FrontCache:
    """Payloads by key, and the number of reads that they answered.

    A reader looks into `values` and adds one to `hits`: no lock, and no call in between at which
    an interpreter with a global lock would change threads, so that the count is exact. All methods
    are called under the catalog's lock. How many of the hits were whose is not known; they are
    credited in equal parts to the keys that were here, so that the sum stays exact.
    """

    __slots__ = (
        "_arrivals",
        "_credited",
        "_latest",
        "_requests",
        "credits",
        "hidden",
        "hits",
        "requested",
        "values",
    )

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.hits = 0.0  # A float is not allocated anew at each sum; exact up to 2**53.
        self.hidden: Callable[[str], bool] | None = None  # Keys whose every read is counted.
        self.credits: Counter[TierName] = Counter()
        self._credited = 0
        self._latest = TierName.HOT
        self._arrivals = 0
        self.requested: dict[str, None] = {}
        self._requests = 0

    def request(self, key: str) -> bool:
        """Ask for `key` to be inserted; return whether it is time for a call of `insert`.

        The only method that is called without the lock. A reader that acquired it for each key
        would wait for every other reader that lost the interpreter while it held the lock.
        """
        self.requested[key] = None
        self._requests += 1  # A thread may overwrite the count of another: it only takes longer.
        return self._requests >= REQUESTS

    def insert(self, entries: Mapping[str, Entry]) -> None:
        """Answer the next reads of the keys that were requested from here.

        Only those whose payload is what a reader gets, and which were read often enough since they
        were stored.
        """
        requested = list(self.requested)  # Other threads request meanwhile.
        self._forget_requests()
        for key in requested:
            entry = entries.get(key)
            if entry is not None and entry.hits > EXACT_HITS:
                self._insert(entry, entries)

    def _insert(self, entry: Entry, entries: Mapping[str, Entry]) -> None:
        payload = entry.payload
        if self.hidden is not None and self.hidden(entry.key):
            return
        if type(entry) is SharedEntry or (type(entry) is ArrayEntry and type(payload) is ndarray):
            if len(self.values) >= MAX_KEYS:
                self.flush(entries)
            self.values[entry.key] = payload

    def drop(self, key: str, entries: Mapping[str, Entry]) -> None:
        """Remove `key`; MUST be called before its entry changes."""
        self.requested.pop(key, None)
        if key in self.values:
            if len(self.values) == 1:
                self.flush(entries)
            else:
                del self.values[key]

    def count_arrivals(self, count: int, entries: Mapping[str, Entry]) -> None:
        """Count new entries; flush after some, so that eviction finds fresh marks."""
        self._arrivals += count
        if self._arrivals * FLUSH_SHARE >= len(entries):
            self._arrivals = 0
            self.flush(entries)

    def flush(self, entries: Mapping[str, Entry]) -> None:
        """Credit the hits and empty the front: the next read of each key marks its entry again."""
        self.credit_hits(entries)
        self.values.clear()
        self._forget_requests()

    def clear(self) -> None:
        """Empty the front and credit no hits: an exception ended a change in the middle."""
        self.values.clear()
        self._forget_requests()
        self._credited = int(self.hits)

    def credit_hits(self, entries: Mapping[str, Entry]) -> None:
        """Add the hits since the last call to the entries.

        Each entry is marked as read now: up to the time since the last flush too late, never early.
        """
        due = int(self.hits) - self._credited
        if not due:
            return
        self._credited += due
        share, rest = divmod(due, len(self.values) or 1)
        for key in self.values:
            entry = entries[key]
            entry.hits += share
            entry.stamp = entry.common.tick()  # Counts a hit of the tier by itself.
            self.credits[entry.tier] += share - 1
            self._latest = entry.tier
        self.credits[self._latest] += rest if self.values else due

    def _forget_requests(self) -> None:
        self.requested.clear()
        self._requests = 0
