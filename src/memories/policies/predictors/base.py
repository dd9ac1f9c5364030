"""What a predictor is: it has seen keys go by, and names those it expects next.

Not a judge of itself. It sorts its guesses into grounds ("seen once", "confirmed thrice"), and how
often guesses on such grounds come true is measured while the program runs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable
from typing import ClassVar, NamedTuple

_PRIOR = 2.0  # Guesses that a ground is credited with before any was settled ...
_PRIOR_SHARE = 0.5  # ... and the share of them that came true.
_MEMORY = 512.0  # Settled guesses after which the older half counts half.


class Guess(NamedTuple):
    """A key expected soon, and how likely that is by experience."""

    key: str
    confidence: float
    grounds: Hashable


class Score:
    """How many guesses came true, the recent ones counting more."""

    __slots__ = ("settled", "true")

    def __init__(self) -> None:
        self.settled = 0.0
        self.true = 0.0

    def settle(self, *, came_true: bool) -> None:
        """Count one guess."""
        self.settled += 1
        self.true += came_true
        if self.settled >= _MEMORY:
            self.settled /= 2
            self.true /= 2

    @property
    def accuracy(self) -> float:
        """The share that came true, starting from a cautious assumption."""
        return (self.true + _PRIOR * _PRIOR_SHARE) / (self.settled + _PRIOR)


class Predictor(ABC):
    """Learns from keys in order of access. Pure, bounded in memory; the caller serialises calls."""

    name: ClassVar[str]
    max_grounds = 64

    def __init__(self) -> None:
        self._scores: dict[Hashable, Score] = {}

    @abstractmethod
    def observe(self, key: str, now: float) -> None:
        """Learn that `key` was asked for at `now` (seconds of any clock that does not go back)."""

    def knows(self, key: str) -> bool:
        """Return whether anything is remembered under `key`; from any thread."""
        del key
        return False

    def forget(self, key: str) -> None:
        """Learn that `key` is in no tier any more."""
        del key

    @abstractmethod
    def candidates(self, key: str) -> list[tuple[str, Hashable]]:
        """Return keys that may follow `key`, each with its grounds, the likeliest first."""

    def predict(self, key: str) -> list[Guess]:
        """Return the keys expected after `key`, with confidence."""
        return [
            Guess(other, self.confidence(grounds), grounds)
            for other, grounds in self.candidates(key)
        ]

    def confidence(self, grounds: Hashable) -> float:
        """Return the share of guesses on these grounds that came true."""
        score = self._scores.get(grounds)
        return _PRIOR_SHARE if score is None else score.accuracy

    def settle(self, grounds: Hashable, *, came_true: bool) -> None:
        """Learn what became of a guess."""
        score = self._scores.get(grounds)
        if score is None:
            if len(self._scores) >= self.max_grounds:
                del self._scores[next(iter(self._scores))]
            score = self._scores[grounds] = Score()
        score.settle(came_true=came_true)
