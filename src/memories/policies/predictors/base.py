"""The interface of a predictor, which observes reads of keys and guesses the next ones.

A predictor gives each guess its grounds ("seen once", "confirmed three times"). How often guesses
on the same grounds come true is measured while the program runs, and is their confidence.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable
from typing import ClassVar, NamedTuple

_PRIOR = 2.0  # Guesses that are assumed for new grounds, before any outcome is known ...
_PRIOR_SHARE = 0.5  # ... and the share of them that came true.
_MEMORY = 512.0  # Outcomes after which all earlier ones count half.


class Guess(NamedTuple):
    """A key that is expected soon, and the share of such guesses that came true so far."""

    key: str
    confidence: float
    grounds: Hashable


class GuessScore:
    """How many guesses came true, the recent ones counting more."""

    __slots__ = ("judged", "true")

    def __init__(self) -> None:
        self.judged = 0.0
        self.true = 0.0

    def record_outcome(self, *, came_true: bool) -> None:
        """Count one guess."""
        self.judged += 1
        self.true += came_true
        if self.judged >= _MEMORY:
            self.judged /= 2
            self.true /= 2

    @property
    def accuracy(self) -> float:
        """The share that came true, the assumed guesses included."""
        return (self.true + _PRIOR * _PRIOR_SHARE) / (self.judged + _PRIOR)


class Predictor(ABC):
    """Learns from reads in their order, in bounded memory. The caller serialises the calls."""

    name: ClassVar[str]
    max_grounds = 64

    def __init__(self) -> None:
        self._scores: dict[Hashable, GuessScore] = {}

    @abstractmethod
    def observe(self, key: str, now: float) -> None:
        """Record a read of `key` at `now` (seconds of any clock that does not go back)."""

    def knows(self, key: str) -> bool:
        """Return whether anything is remembered under `key`; from any thread."""
        del key
        return False

    def forget(self, key: str) -> None:
        """Delete what is remembered of `key`, which was removed from all tiers."""
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

    def record_outcome(self, grounds: Hashable, *, came_true: bool) -> None:
        """Record whether a guess on these grounds came true."""
        score = self._scores.get(grounds)
        if score is None:
            if len(self._scores) >= self.max_grounds:
                del self._scores[next(iter(self._scores))]
            score = self._scores[grounds] = GuessScore()
        score.record_outcome(came_true=came_true)
