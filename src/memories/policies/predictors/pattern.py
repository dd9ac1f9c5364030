"""Pattern: who walks along `tile/12/33`, `tile/12/34` will want `tile/12/35`.

Every number of a key has two neighbours. The one ahead is guessed, on grounds of the shape of the
key, the number that moves, the direction, and whether the key behind was seen lately.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import ClassVar

from memories.foundation.bounded_dict import BoundedDict
from memories.policies.predictors.base import Predictor
from memories.policies.predictors.key_numbers import take_apart


class PatternPredictor(Predictor):
    """Guesses neighbours of keys; remembers only the `remembered_keys` keys seen last."""

    name: ClassVar[str] = "pattern"
    max_grounds = 512

    def __init__(self, *, remembered_keys: int = 1024) -> None:
        super().__init__()
        self._recent: BoundedDict[str, bool] = BoundedDict(remembered_keys)

    def observe(self, key: str, now: float) -> None:
        """Learn that `key` was seen."""
        del now
        self._recent.set(key, True)

    def knows(self, key: str) -> bool:
        """Return whether `key` was seen lately."""
        return key in self._recent

    def forget(self, key: str) -> None:
        """Learn that `key` is in no tier any more."""
        self._recent.pop(key)

    def candidates(self, key: str) -> list[tuple[str, Hashable]]:
        """Return the neighbours ahead of those that were seen lately, those of others after."""
        numbers = take_apart(key)
        found: list[tuple[str, Hashable]] = []
        for at in reversed(range(len(numbers.digits))):
            for step in (1, -1):
                if numbers.neighbour(at, -step) not in self._recent:
                    continue
                ahead = numbers.neighbour(at, step)
                if ahead is not None and ahead not in self._recent:
                    found.append((ahead, (numbers.texts, at, step)))
        return found
