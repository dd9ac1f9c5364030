"""Pattern: after `tile/12/33` and `tile/12/34` comes `tile/12/35`.

A key has two neighbours for each of its numbers. If one of the two was seen recently, the opposite
one is guessed; its grounds are the text of the key, the position of the number and the direction.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import ClassVar

from memories.foundation.bounded_dict import BoundedDict
from memories.policies.predictors.base import Predictor
from memories.policies.predictors.key_numbers import split_key


class PatternPredictor(Predictor):
    """Guesses neighbours of keys; remembers only the `remembered_keys` keys seen last."""

    name: ClassVar[str] = "pattern"
    max_grounds = 512

    def __init__(self, *, remembered_keys: int = 1024) -> None:
        super().__init__()
        self._recent: BoundedDict[str, bool] = BoundedDict(remembered_keys)

    def observe(self, key: str, now: float) -> None:
        """Record a read of `key`."""
        del now
        self._recent.set(key, True)

    def knows(self, key: str) -> bool:
        """Return whether `key` was seen recently."""
        return key in self._recent

    def forget(self, key: str) -> None:
        """Delete `key`, which was removed from all tiers."""
        self._recent.pop(key)

    def candidates(self, key: str) -> list[tuple[str, Hashable]]:
        """Return the neighbours opposite those that were seen recently, the last number first."""
        numbers = split_key(key)
        found: list[tuple[str, Hashable]] = []
        for at in reversed(range(len(numbers.digits))):
            for step in (1, -1):
                if numbers.neighbour(at, -step) not in self._recent:
                    continue
                ahead = numbers.neighbour(at, step)
                if ahead is not None and ahead not in self._recent:
                    found.append((ahead, (numbers.texts, at, step)))
        return found
