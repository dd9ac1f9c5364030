"""Whether a value that was read in a durable tier deserves a place in a faster one.

Not the move itself, and no clock. The idea: a second touch within the recent touches is evidence,
free room costs nothing, and under pressure nothing goes up at all. The same memory of touches says
how cold a key is, for the tier that must choose whom to send further down.
"""

from __future__ import annotations

import math
from typing import NamedTuple

_MOST_READS = 3  # Beyond these, more reads keep a key no longer.


class _Touched(NamedTuple):
    reads: int  # Touches, as far back as the key was remembered without a gap.
    at: int  # The number of the latest.


class PromotionGate:
    """Remembers the recent touches of durable keys and decides on promotions.

    Pure; the caller serialises the calls. Time is counted in touches: of the keys touched, the
    `remembered_keys` latest are known, so that two touches far apart are not taken for heat.
    """

    def __init__(self, *, remembered_keys: int = 16_384, touches: int = 2) -> None:
        self._remembered_keys = remembered_keys
        self._touches = touches
        self._recent: dict[int, _Touched] = {}  # By the hash of the key, latest touched last.
        self._now = 0

    def touch(self, key: str, size: int, *, room: int, pressure: bool = False) -> bool:
        """Record a read of `key` and return whether it should be promoted now.

        Args:
            key: The key that was read.
            size: Bytes it would take in the faster tier.
            room: Bytes that the faster tier can take without evicting anything.
            pressure: Whether the faster tier is busy making room already.
        """
        count = self._remember(key, 1)
        if pressure:
            return False
        return size <= room or count >= self._touches

    def arrived(self, key: str, reads: int) -> None:
        """Learn that `key` came down to a durable tier, after so many reads above it."""
        self._remember(key, reads)

    def touches(self, key: str) -> int:
        """Return how often `key` was touched, as far as is remembered."""
        known = self._recent.get(hash(key))
        return 0 if known is None else known.reads

    def coldness(self, key: str) -> float:
        """Return how long ago `key` was touched or came down, in touches; inf if forgotten.

        Keys that were read count as a fraction of their age: a scan leaves before what is in use.
        """
        known = self._recent.get(hash(key))
        if known is None:
            return math.inf
        return (self._now - known.at) / (1 + min(known.reads, _MOST_READS))

    def _remember(self, key: str, reads: int) -> int:
        digest = hash(key)
        self._now += 1
        known = self._recent.pop(digest, None)
        count = reads if known is None else known.reads + reads
        self._recent[digest] = _Touched(count, self._now)
        if len(self._recent) > self._remembered_keys:
            del self._recent[next(iter(self._recent))]
        return count

    def forget(self, key: str) -> None:
        """Start `key` anew: it was promoted, overwritten or removed."""
        self._recent.pop(hash(key), None)

    def __len__(self) -> int:
        """Return how many keys are remembered."""
        return len(self._recent)
