"""The payloads of the keys that are read most often now, in one dict.

It refers to payloads that entries hold, until the catalog empties it. Recording each hit in the
entry, with a stamp, costs more than finding the value. So a hit here is only counted, for each key,
and added to the entry later. A key that is still read after the front was emptied is recorded
again, every few seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from sys import getrefcount
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


class FrontSource:
    """A payload, and how often it was read from here."""

    __slots__ = ("credited", "hits", "payload")

    def __init__(self, payload: Any) -> None:
        self.payload = payload
        self.hits = 0.0  # A float is not allocated anew at each sum; exact up to 2**53.
        self.credited = 0.0  # The hits that were added to the entry.


class FrontCache:
    """Payloads by key, and the number of reads of each.

    A reader looks into `sources`, and adds one to the `hits` of the source: no lock, and no call
    within the addition at which an interpreter with a global lock would change threads. If a reader
    loses the interpreter before it, while another thread empties the front, the source is kept
    until it is counted, so that the sum of all hits is exact, too. All methods but `request` are
    called under the catalog's lock.
    """

    __slots__ = (
        "_arrivals",
        "_credited",
        "_late",
        "_requests",
        "credits",
        "hidden",
        "requested",
        "sources",
    )

    def __init__(self) -> None:
        self.sources: dict[str, FrontSource] = {}
        self.hidden: Callable[[str], bool] | None = None  # Keys that must not be inserted.
        self.credits: Counter[TierName] = Counter()  # Hits that no tick of the tier has counted.
        self._credited = 0.0  # All hits that were credited.
        # Sources that were removed while a reader was about to count, and their tiers.
        self._late: list[tuple[FrontSource, TierName]] = []
        self._arrivals = 0
        self.requested: dict[str, None] = {}
        self._requests = 0

    @property
    def hits(self) -> float:
        """Return the number of reads that were answered from here."""
        sources = list(self.sources.values())
        return self._credited + sum([one.hits - one.credited for one in sources])

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
            if entry is not None and entry.hits > EXACT_HITS and key not in self.sources:
                self._insert(entry, entries)

    def _insert(self, entry: Entry, entries: Mapping[str, Entry]) -> None:
        payload = entry.payload
        if self.hidden is not None and self.hidden(entry.key):
            return
        if type(entry) is SharedEntry or (type(entry) is ArrayEntry and type(payload) is ndarray):
            if len(self.sources) >= MAX_KEYS:
                self.flush(entries)
            self.sources[entry.key] = FrontSource(payload)

    def drop(self, key: str, entries: Mapping[str, Entry]) -> None:
        """Remove `key`, and credit its hits; MUST be called before its entry changes."""
        self.requested.pop(key, None)
        if key in self.sources:
            # A second source that no thread reads shows how many references are ours.
            removed = [self.sources.pop(key), FrontSource(None)]
            entry = entries[key]
            self._credit(entry, removed[0])
            if getrefcount(removed[0]) > getrefcount(removed[1]):
                self._late.append((removed[0], entry.tier))

    def count_arrivals(self, count: int, entries: Mapping[str, Entry]) -> None:
        """Count new entries; flush after some, so that eviction finds fresh marks."""
        self._arrivals += count
        if self._arrivals * FLUSH_SHARE >= len(entries):
            self._arrivals = 0
            self.flush(entries)

    def flush(self, entries: Mapping[str, Entry]) -> None:
        """Credit the hits and empty the front: the next read of each key marks its entry again."""
        self._count_late()
        for key in list(self.sources):
            self.drop(key, entries)
        self._forget_requests()

    def clear(self) -> None:
        """Empty the front and credit no hits: an exception ended a change in the middle."""
        self._credited = self.hits
        self.sources.clear()
        self._late.clear()
        self._forget_requests()

    def credit_hits(self, entries: Mapping[str, Entry]) -> None:
        """Add the hits since the last call to the entries.

        An entry that was read is marked as read now: up to the time since the last call too late,
        never early.
        """
        self._count_late()
        for key, source in self.sources.items():
            self._credit(entries[key], source)

    def _credit(self, entry: Entry, source: FrontSource) -> None:
        """Add the hits of a source since the last time to its entry."""
        new = int(self._count(source))
        if new:
            entry.hits += new
            entry.stamp = entry.common.tick()  # Counts a hit of the tier by itself.
            self.credits[entry.tier] += new - 1

    def _count(self, source: FrontSource) -> float:
        """Return the hits of a source since the last time."""
        new = source.hits - source.credited
        source.credited += new
        self._credited += new
        return new

    def _count_late(self) -> None:
        """Count the hits of sources that were removed while a reader was about to count."""
        if not self._late:
            return
        late = [*self._late, (FrontSource(None), TierName.HOT)]
        self._late = []
        for at in range(len(late) - 1):
            self.credits[late[at][1]] += int(self._count(late[at][0]))
            if getrefcount(late[at][0]) > getrefcount(late[-1][0]):
                self._late.append(late[at])

    def _forget_requests(self) -> None:
        self.requested.clear()
        self._requests = 0
