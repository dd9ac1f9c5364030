"""Finds the keys in RAM that are read most, and those pinned, by sampling a few entries at a time.

Entries count their own hits, and a sample compares the counts with those of the sample before. The
cost does not depend on the number of keys, so a key that becomes hot is found within one round over
all entries, not at once.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import nlargest
from typing import NamedTuple

from memories.foundation.keys import INTERNAL
from memories.model.entry import Entry

PER_SAMPLE = 512
AHEAD = 8 * PER_SAMPLE  # Skipping to a position costs time in proportion to it.
CANDIDATES = 128
DECAY_SECONDS = 5.0
MOST_PINNED = 50


class HotKey(NamedTuple):
    """A key that is read often.

    Attributes:
        rate: Recent reads per second.
        hits: Reads since the value came into RAM.
    """

    key: str
    tier: str
    size: int
    hits: int
    rate: float


class PinnedKey(NamedTuple):
    """A key in RAM that no policy may move."""

    key: str
    tier: str
    size: int


class _Candidate:
    __slots__ = ("at", "hits", "rate", "version")

    def __init__(self, entry: Entry, now: float) -> None:
        self.version, self.hits, self.at, self.rate = entry.version, entry.hits, now, 0.0

    def update(self, entry: Entry, now: float) -> None:
        """Update the rate with the hits since the last sample; older hits decay."""
        seconds = now - self.at
        if seconds <= 0:
            return
        known = self.hits if entry.version == self.version and entry.hits >= self.hits else 0
        keep = 0.5 ** (seconds / DECAY_SECONDS)
        self.rate = keep * self.rate + (1 - keep) * (entry.hits - known) / seconds
        self.version, self.hits, self.at = entry.version, entry.hits, now


class HotKeys:
    """The keys that are read most; used by one thread at a time.

    Args:
        keys: Returns the keys in RAM between two positions. A reference to an entry would keep its
            memory charged after the entry left RAM, so the keys are queued, and only some of them.
        find: Returns the current entry of a key, or None.
    """

    def __init__(
        self, keys: Callable[[int, int], list[str]], find: Callable[[str], Entry | None]
    ) -> None:
        self._keys = keys
        self._find = find
        self._queue: list[str] = []
        self._position = 0
        self._known: dict[str, _Candidate] = {}
        self._pinned: dict[str, None] = {}

    def sample(self, now: float) -> None:
        """Update the rates of the candidates, and add new candidates from some more entries."""
        if not self._queue:
            self._queue = self._keys(self._position, self._position + AHEAD)
            # Fewer keys than asked for: the round is over, and the next one begins at 0.
            self._position = self._position + AHEAD if len(self._queue) == AHEAD else 0
        fresh = self._queue[-PER_SAMPLE:]
        del self._queue[-PER_SAMPLE:]
        for entry in filter(None, map(self._find, fresh)):
            if entry.hits and entry.key not in self._known and entry.key[0] != INTERNAL:
                self._known[entry.key] = _Candidate(entry, now)
            if entry.terms.pinned and len(self._pinned) < MOST_PINNED and entry.key[0] != INTERNAL:
                self._pinned[entry.key] = None
        for key in list(self._known):
            current = self._find(key)
            if current is None:
                del self._known[key]
            else:
                self._known[key].update(current, now)
        self._drop_coldest()

    def __len__(self) -> int:
        """Return the number of candidates."""
        return len(self._known)

    def top(self, count: int) -> list[HotKey]:
        """Return the hottest keys as of the last sample, hottest first."""
        ranked = nlargest(count, self._known.items(), key=lambda one: _rank(one[1]))
        found = ((self._find(key), known.rate) for key, known in ranked)
        return [
            HotKey(entry.key, str(entry.tier), entry.size, entry.hits, rate)
            for entry, rate in found
            if entry is not None
        ]

    def pinned(self) -> list[PinnedKey]:
        """Return pinned keys of the samples so far that are in RAM and pinned still."""
        found = [
            entry
            for entry in map(self._find, self._pinned)
            if entry is not None and entry.terms.pinned
        ]
        self._pinned = dict.fromkeys(entry.key for entry in found)
        return [PinnedKey(entry.key, str(entry.tier), entry.size) for entry in found]

    def _drop_coldest(self) -> None:
        if len(self._known) > CANDIDATES:
            ranked = nlargest(CANDIDATES // 2, self._known.items(), key=lambda one: _rank(one[1]))
            self._known = dict(ranked)


def _rank(known: _Candidate) -> tuple[float, int]:
    return known.rate, known.hits
