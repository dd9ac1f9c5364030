"""Which keys are read most, found by looking at a few entries at a time.

Not a sketch of all accesses: entries count their own hits, and a look compares these with the look
before. It costs the same however many keys there are, so a key that becomes hot is found within
one round over the entries, not at once.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import nlargest
from typing import NamedTuple

from memories.foundation.keys import INTERNAL
from memories.model.entry import Entry

PER_LOOK = 512
AHEAD = 8 * PER_LOOK  # To get there takes time in proportion to the position.
CANDIDATES = 128
DECAY_SECONDS = 5.0


class HotKey(NamedTuple):
    """A key that is read often.

    Attributes:
        rate: Reads a second, lately.
        hits: Reads since it came into RAM.
    """

    key: str
    tier: str
    size: int
    hits: int
    rate: float


class _Candidate:
    __slots__ = ("at", "hits", "rate", "version")

    def __init__(self, entry: Entry, now: float) -> None:
        self.version, self.hits, self.at, self.rate = entry.version, entry.hits, now, 0.0

    def look(self, entry: Entry, now: float) -> None:
        """Take in the hits since the last look, older ones counting less and less."""
        seconds = now - self.at
        if seconds <= 0:
            return
        known = self.hits if entry.version == self.version and entry.hits >= self.hits else 0
        keep = 0.5 ** (seconds / DECAY_SECONDS)
        self.rate = keep * self.rate + (1 - keep) * (entry.hits - known) / seconds
        self.version, self.hits, self.at = entry.version, entry.hits, now


class HotKeys:
    """Keeps the keys that are read most; one thread at a time.

    Args:
        keys: Returns keys in RAM from one position up to another. Not entries, for holding on to
            one would keep its memory charged after it left; and not all of them, for the same.
        find: Returns the entry that stands for a key now, or None.
    """

    def __init__(
        self, keys: Callable[[int, int], list[str]], find: Callable[[str], Entry | None]
    ) -> None:
        self._keys = keys
        self._find = find
        self._ahead: list[str] = []
        self._position = 0
        self._known: dict[str, _Candidate] = {}

    def look(self, now: float) -> None:
        """Look at the candidates, and at some entries more."""
        if not self._ahead:
            self._ahead = self._keys(self._position, self._position + AHEAD)
            # Fewer than asked for: the round is over, and the next one begins in front.
            self._position = self._position + AHEAD if len(self._ahead) == AHEAD else 0
        fresh = self._ahead[-PER_LOOK:]
        del self._ahead[-PER_LOOK:]
        for entry in filter(None, map(self._find, fresh)):
            if entry.hits and entry.key not in self._known and entry.key[0] != INTERNAL:
                self._known[entry.key] = _Candidate(entry, now)
        for key in list(self._known):
            current = self._find(key)
            if current is None:
                del self._known[key]
            else:
                self._known[key].look(current, now)
        self._drop_the_coolest()

    def __len__(self) -> int:
        """Return how many keys are watched closely."""
        return len(self._known)

    def top(self, count: int) -> list[HotKey]:
        """Return the hottest keys that the last look knew, hottest first."""
        ranked = nlargest(count, self._known.items(), key=lambda one: _heat(one[1]))
        found = ((self._find(key), known.rate) for key, known in ranked)
        return [
            HotKey(entry.key, str(entry.tier), entry.size, entry.hits, rate)
            for entry, rate in found
            if entry is not None
        ]

    def _drop_the_coolest(self) -> None:
        if len(self._known) > CANDIDATES:
            ranked = nlargest(CANDIDATES // 2, self._known.items(), key=lambda one: _heat(one[1]))
            self._known = dict(ranked)


def _heat(known: _Candidate) -> tuple[float, int]:
    return known.rate, known.hits
