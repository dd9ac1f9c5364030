"""Successor: what followed a key last time follows it again.

Not a model of longer histories. One successor for each key, with a count of how often it held; a
successor that failed is given up as soon as its count is used up.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import ClassVar

from memories.policies.predictors.base import Predictor

_SURE = 3


class SuccessorPredictor(Predictor):
    """Remembers the successors of the `remembered_keys` keys seen last; about 250 bytes each."""

    name: ClassVar[str] = "successor"

    def __init__(self, *, remembered_keys: int = 65_536) -> None:
        super().__init__()
        self._remembered_keys = remembered_keys
        self._successors: dict[str, tuple[str, int]] = {}
        self._latest: str | None = None

    def observe(self, key: str, now: float) -> None:
        """Learn that `key` came after the one observed before."""
        del now
        latest, self._latest = self._latest, key
        if latest is None or latest == key:
            return
        known, count = self._successors.pop(latest, (key, -1))
        if known == key:
            count = min(count + 1, _SURE)
        elif count > 0:
            count = max(count - 2, 0)
        else:
            known, count = key, 0
        self._successors[latest] = (known, count)
        if len(self._successors) > self._remembered_keys:
            del self._successors[next(iter(self._successors))]

    def candidates(self, key: str) -> list[tuple[str, Hashable]]:
        """Return the successor of `key`, on grounds of how often it held."""
        found = self._successors.get(key)
        return [] if found is None else [found]
