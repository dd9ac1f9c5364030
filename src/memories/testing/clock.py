"""A clock that stands still until it is told to move."""

from __future__ import annotations


class ManualClock:
    """A `Clock` for tests: both times advance together, by hand."""

    def __init__(self, monotonic: float = 1000.0, wall: float = 1_800_000_000.0) -> None:
        self._monotonic = monotonic
        self._wall = wall

    def monotonic(self) -> float:
        """Return seconds."""
        return self._monotonic

    def wall(self) -> float:
        """Return seconds since the epoch."""
        return self._wall

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._monotonic += seconds
        self._wall += seconds
