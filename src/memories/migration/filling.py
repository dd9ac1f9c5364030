"""Says whether a tier is still being filled: then nothing in it counts as idle yet.

A program that makes several large arrays, one after the other, has not left the first ones idle
while it made the others. It has finished when it reads one of them, or when the next one is late.
"""

from __future__ import annotations

_LATE = 5.0  # The next value is late after so many times the longest gap: sizes vary as much.
_LONGEST_GAP = 30.0  # Seconds; a longer one is a rest.


class Filling:
    """The rhythm of the arrivals in one tier, which begins at `now`. One thread calls `until`."""

    def __init__(self, now: float) -> None:
        self.arrived_at = now  # When the latest value came.
        self._gap = 0.0  # The longest one of this filling.
        self._seen_at = now
        self._hits = 0.0

    def record_arrival(self, at: float) -> None:
        """Record that a value came; any thread may call it."""
        gap = at - self.arrived_at
        if gap > 0:
            self._gap = max(self._gap, gap) if gap <= _LONGEST_GAP else 0.0
            self.arrived_at = at

    def until(self, hits: float) -> float:
        """Return when the next arrival is late, given how often values were read so far."""
        if self.arrived_at != self._seen_at:
            self._seen_at, self._hits = self.arrived_at, hits
        elif hits != self._hits:
            self._hits, self._gap = hits, 0.0
        return self.arrived_at + _LATE * self._gap
