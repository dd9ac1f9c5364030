"""A clock for tests that advances only when a test calls `advance`."""

from __future__ import annotations


class ManualClock:
    """A `Clock` whose two times advance together, by `advance`."""

    def __init__(self, monotonic: float = 1000.0, wall: float = 1_800_000_000.0) -> None:
        self._monotonic = monotonic
        self._wall = wall

    def monotonic(self) -> float:
        """Return seconds that never run backwards."""
        return self._monotonic

    def wall(self) -> float:
        """Return seconds since the epoch."""
        return self._wall

    def advance(self, seconds: float) -> None:
        """Advance both times."""
        self._monotonic += seconds
        self._wall += seconds
