"""Counts the hits of a tier, and orders its accesses, without a call of the clock."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable


class HitCounter:
    """Counts hits exactly, from any number of threads, at the price of one C call per hit.

    `tick` is `itertools.count().__next__`, atomic in CPython. Reading the counter and a stamp for a
    new entry draw a number too, so those draws are counted, before they are made, and subtracted.
    """

    def __init__(self) -> None:
        self.tick: Callable[[], int] = itertools.count(1).__next__
        self._draw: Callable[[], int] = itertools.count(1).__next__
        self._peer: HitCounter | None = None  # Whose stamps are compared with those from here.

    def stamp(self) -> int:
        """Return a stamp later than every access so far, without counting a hit."""
        peer = self._peer
        if peer is not None:
            peer._draw()
            peer.tick()
        self._draw()
        return self.tick()

    @property
    def hits(self) -> int:
        """Return how many hits were counted; a stamp that is being drawn may hide one of them."""
        draws = self._draw()
        return self.tick() - draws

    def pair(self, peer: HitCounter) -> None:
        """Compare stamps with those of `peer`: each stamp that one gives the other one skips."""
        self._peer, peer._peer = peer, self

    def align(self) -> None:
        """Let both go on from the same number: hits are counted by one of them only."""
        peer = self._peer
        assert peer is not None, "the counters of a pool are a pair"
        behind = self.stamp() - peer.stamp() + 1
        if behind > 0:
            peer._skip(behind)
        else:
            self._skip(-behind)

    def _skip(self, numbers: int) -> None:
        """Let the next stamps be later by so many numbers, without counting hits."""
        draws, ticks = iter(self._draw, 0), iter(self.tick, 0)
        # One line, for each number: an interrupt leaves all of it or nothing.
        deque(zip(itertools.islice(draws, numbers), ticks, strict=False), maxlen=0)
