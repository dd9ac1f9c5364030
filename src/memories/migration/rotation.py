"""A look at every entry within a bounded time, at a bounded cost per look."""

from __future__ import annotations

from collections.abc import Callable

from memories.entry import Entry

MIN_SLICE = 2048
CYCLE_LOOKS = 20  # A whole round takes at most this many looks.


class Rotation:
    """Deals out the entries slice by slice, and knows when each slice was dealt before."""

    def __init__(self, entries: Callable[[], list[Entry]], now: float) -> None:
        self._entries = entries
        self._round: list[Entry] = []
        self._position = 0
        self._started_at = self._previous_at = now

    def next_slice(self, now: float) -> tuple[list[Entry], float]:
        """Return the next entries and a time before which the last round looked at them."""
        if self._position >= len(self._round):
            self._round = self._entries()
            self._position = 0
            self._previous_at, self._started_at = self._started_at, now
        count = max(MIN_SLICE, -(-len(self._round) // CYCLE_LOOKS))
        part = self._round[self._position : self._position + count]
        self._position += count
        return part, self._previous_at
