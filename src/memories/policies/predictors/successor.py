"""Successor: the key that followed a key the last time is expected to follow it again.

One successor is stored for each key, with a count of how often it was right in a row, at most 3.
A wrong guess lowers the count by 2; at 0 the successor is replaced.
"""

from __future__ import annotations

from collections.abc import Hashable
from sys import getsizeof
from typing import ClassVar

from memories.foundation.bounded_dict import BoundedDict
from memories.policies.predictors.base import Predictor

_SURE = 3


class SuccessorPredictor(Predictor):
    """Remembers the successors of the `remembered_keys` keys seen last; about 250 bytes each."""

    name: ClassVar[str] = "successor"

    def __init__(self, *, remembered_keys: int = 65_536) -> None:
        super().__init__()
        self._successors: BoundedDict[str, tuple[str, int]] = BoundedDict(
            remembered_keys, _pair_bytes
        )
        self._latest: str | None = None

    def observe(self, key: str, now: float) -> None:
        """Record that `key` followed the key that was observed before."""
        del now
        latest, self._latest = self._latest, key
        if latest is None or latest == key:
            return
        known, count = self._successors.get(latest) or (key, -1)
        if known == key:
            count = min(count + 1, _SURE)
        elif count > 0:
            count = max(count - 2, 0)
        else:
            known, count = key, 0
        self._successors.set(latest, (known, count))

    def knows(self, key: str) -> bool:
        """Return whether anything is known to follow `key`."""
        return key in self._successors or key == self._latest

    def forget(self, key: str) -> None:
        """Delete the successor of `key`, which was removed; keys that it follows keep it."""
        self._successors.pop(key)
        if self._latest == key:
            self._latest = None

    def candidates(self, key: str) -> list[tuple[str, Hashable]]:
        """Return the successor of `key`, on grounds of how often it held."""
        found = self._successors.get(key)
        return [] if found is None else [found]


def _pair_bytes(key: str, followed: tuple[str, int]) -> int:
    return getsizeof(key) + getsizeof(followed[0])
