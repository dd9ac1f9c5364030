"""Shows every key in RAM once per round, a slice at a time, at a bounded cost per slice.

It yields keys and not entries: an entry that has left would stay charged for as long as a reference
to it exists.
"""

from __future__ import annotations

from collections.abc import Callable

MIN_SLICE = 2048
CYCLE_LOOKS = 20  # A round takes at most this many slices.


class KeyCursor:
    """Yields the keys slice by slice, and remembers when the previous round began."""

    def __init__(self, keys: Callable[[], tuple[str, ...]], now: float) -> None:
        self._keys = keys
        self._round: tuple[str, ...] = ()  # The garbage collector visits no tuple of strings.
        self._position = 0
        self._started_at = self._previous_at = now
        self.rounds = 0  # Begun so far.

    def next_slice(self, now: float) -> tuple[tuple[str, ...], float]:
        """Return the next keys, and a time after which the previous round showed them."""
        if self._position >= len(self._round):
            self._round = self._keys()
            self._position = 0
            self.rounds += 1
            self._previous_at, self._started_at = self._started_at, now
        count = max(MIN_SLICE, -(-len(self._round) // CYCLE_LOOKS))
        part = self._round[self._position : self._position + count]
        self._position += count
        return part, self._previous_at

    def reset(self) -> None:
        """Drop all keys; the next slice begins a round."""
        self._round, self._position = (), 0
