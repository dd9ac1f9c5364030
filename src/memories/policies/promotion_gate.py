"""Decide whether a value that was read is promoted to a tier that has no policy of its own.

It is promoted if the faster tier has free room, or at its second read within the recent reads;
while the faster tier is evicting, nothing is promoted. The same record of reads tells how cold a
key is, for a durable tier that must choose what to move down.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Sequence

LEAST_SAVED = 1e-6  # Seconds: the archive may be on the same disk.
_FADED = 60.0  # Halvings after which no read counts.
_MOST_READS = 3  # Beyond these, more reads keep a key no longer.


# How often a key was touched since it was last unknown here, and the number of the latest touch.
_Touched = tuple[int, int]


class PromotionGate:
    """Remembers the recent touches of durable keys and decides on promotions.

    A touch is a read or a demotion; time is counted in touches. Only the `remembered_keys` keys
    with the latest touches are known, so two reads that are far apart count as one. The caller
    serialises the calls.
    """

    def __init__(self, *, remembered_keys: int = 16_384, touches: int = 2) -> None:
        self._remembered_keys = remembered_keys
        self._touches = touches
        # By the hash of the key, latest touched last. In a `dict` it takes long to find the first
        # item where many were removed before it.
        self._recent: OrderedDict[int, _Touched] = OrderedDict()
        self._now = 0

    def touch(self, key: str, size: int, *, room: int, pressure: bool = False) -> bool:
        """Record a read of `key` and return whether it should be promoted now.

        Args:
            key: The key that was read.
            size: Bytes it would take in the faster tier.
            room: Bytes that the faster tier can take without evicting anything.
            pressure: Whether the faster tier is busy making room already.
        """
        count = self.record(key, 1)
        if pressure:
            return False
        return size <= room or count >= self._touches

    def touch_all(self, read: Sequence[tuple[str, int]], *, room: int) -> list[bool]:
        """Do what `touch` does for each key, which has this size."""
        least, counts = self._touches, self.record_all([(key, 1) for key, _ in read])
        return [
            size <= room or count >= least for (_, size), count in zip(read, counts, strict=True)
        ]

    def touches(self, key: str) -> int:
        """Return how many touches of `key` are remembered."""
        known = self._recent.get(hash(key))
        return 0 if known is None else known[0]

    def coldness(self, key: str, span: float = math.inf) -> float:
        """Return how many touches ago `key` was touched last, or inf if that is unknown.

        The age is divided by one more than the reads, so that the keys of a scan, read once, are
        colder than those in use. Reads fade, they count half after `span` touches: the keys of an
        earlier working set leave before those of the present one.
        """
        known = self._recent.get(hash(key))
        if known is None:
            return math.inf
        reads, at = known
        age = self._now - at
        return age / (1 + min(reads, _MOST_READS) * math.exp2(-min(age / max(span, 1), _FADED)))

    def coldness_of(self, key: str, size: int, saved: float, span: float = math.inf) -> float:
        """Return the coldness of a key whose `size` bytes are fetched `saved` seconds faster here.

        Bytes that save more time are warmer. The root is between a key each and a byte each: in
        some programs a large value is read as often as a small one, and in others less often.
        """
        return self.coldness(key, span) * math.sqrt(size / max(saved, LEAST_SAVED))

    def record(self, key: str, reads: int) -> int:
        """Record a touch of `key` that counts as so many reads; return how many it has had.

        A key that moves down to a durable tier brings the reads that it had above.
        """
        digest = hash(key)
        self._now += 1
        known = self._recent.pop(digest, None)
        count = reads if known is None else known[0] + reads
        self._recent[digest] = (count, self._now)
        if len(self._recent) > self._remembered_keys:
            self._recent.popitem(last=False)
        return count

    def record_all(self, touched: Iterable[tuple[str, int]]) -> list[int]:
        """Record a touch of each key, and return what `record` does for each."""
        recent, now, most = self._recent, self._now, self._remembered_keys
        counts: list[int] = []
        for key, reads in touched:
            digest = hash(key)
            now += 1
            known = recent.pop(digest, None)
            count = reads if known is None else known[0] + reads
            recent[digest] = (count, now)
            counts.append(count)
            if len(recent) > most:
                recent.popitem(last=False)
        self._now = now
        return counts

    def forget(self, key: str) -> None:
        """Delete the touches of `key`, which was overwritten or removed.

        One that was promoted is not forgotten: it has proven that it is read again.
        """
        self._recent.pop(hash(key), None)

    def __len__(self) -> int:
        """Return how many keys are remembered."""
        return len(self._recent)
