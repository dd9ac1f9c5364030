"""Counts the hits of a tier, and orders its accesses, without a call of the clock."""

from __future__ import annotations

import itertools
from collections.abc import Callable


class HitCounter:
    """Counts hits exactly, from any number of threads, at the price of one C call per hit.

    `tick` is `itertools.count().__next__`, atomic in CPython. Reading the counter and a stamp for a
    new entry draw a number too, so those draws are counted, before they are made, and subtracted.
    """

    def __init__(self) -> None:
        self.tick: Callable[[], int] = itertools.count(1).__next__
        self._draw: Callable[[], int] = itertools.count(1).__next__

    def stamp(self) -> int:
        """Return a stamp later than every access so far, without counting a hit."""
        self._draw()
        return self.tick()

    @property
    def hits(self) -> int:
        """Return how many hits were counted; a stamp that is being drawn may hide one of them."""
        draws = self._draw()
        return self.tick() - draws
