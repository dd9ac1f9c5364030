"""Whether a value that was read in a durable tier deserves a place in a faster one.

Not the move itself, and no clock. The idea: a second touch within the recent touches is evidence,
free room costs nothing, and under pressure nothing goes up at all.
"""

from __future__ import annotations


class PromotionGate:
    """Remembers the recent touches of durable keys and decides on promotions.

    Pure; the caller serialises the calls. Time is counted in touches: of the keys touched, the
    `remembered_keys` latest are known, so that two touches far apart are not taken for heat.
    """

    def __init__(self, *, remembered_keys: int = 16_384, touches: int = 2) -> None:
        self._remembered_keys = remembered_keys
        self._touches = touches
        self._recent: dict[int, int] = {}  # Hash of a key -> touches, latest touched last.

    def touch(self, key: str, size: int, *, room: int, pressure: bool = False) -> bool:
        """Record a read of `key` and return whether it should be promoted now.

        Args:
            key: The key that was read.
            size: Bytes it would take in the faster tier.
            room: Bytes that the faster tier can take without evicting anything.
            pressure: Whether the faster tier is busy making room already.
        """
        digest = hash(key)
        count = self._recent.pop(digest, 0) + 1
        self._recent[digest] = count
        if len(self._recent) > self._remembered_keys:
            del self._recent[next(iter(self._recent))]
        if pressure:
            return False
        return size <= room or count >= self._touches

    def touches(self, key: str) -> int:
        """Return how often `key` was touched, as far as is remembered."""
        return self._recent.get(hash(key), 0)

    def forget(self, key: str) -> None:
        """Start `key` anew: it was promoted, overwritten or removed."""
        self._recent.pop(hash(key), None)

    def __len__(self) -> int:
        """Return how many keys are remembered."""
        return len(self._recent)
