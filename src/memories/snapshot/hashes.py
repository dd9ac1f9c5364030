"""Whether any of very many keys came twice, in eight bytes per key."""

from __future__ import annotations

from array import array
from collections.abc import Iterable

import numpy as np
import xxhash


class Hashes:
    """Remembers the 64-bit hash of each key added."""

    def __init__(self) -> None:
        self._hashes = array("Q")

    def add(self, key: str) -> None:
        """Remember `key`."""
        self._hashes.append(xxhash.xxh3_64_intdigest(key.encode()))

    @property
    def count(self) -> int:
        """Return how many keys were added."""
        return len(self._hashes)

    def repeated(self) -> frozenset[int]:
        """Return the hashes that were added more than once.

        Different keys may share one: compare the keys themselves before calling them equal.
        """
        ordered = np.sort(np.array(self._hashes, np.uint64))
        return frozenset(ordered[1:][ordered[1:] == ordered[:-1]].tolist())


def first_repeated(keys: Iterable[str], suspects: frozenset[int]) -> str | None:
    """Return the first of `keys` that really comes twice, given which hashes do."""
    seen: set[str] = set()
    for key in keys:
        if xxhash.xxh3_64_intdigest(key.encode()) in suspects:
            if key in seen:
                return key
            seen.add(key)
    return None
