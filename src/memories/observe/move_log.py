"""Remembers the latest moves, in total and for each recently moved key."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from memories.foundation.bounded_dict import BoundedDict
from memories.model.events import Event, Moved, Removed, ValueEvent

MAX_KEYS = 4096
MOVES_PER_KEY = 8
LATEST = 64


class MoveLog:
    """The latest moves, for a bounded number of keys."""

    def __init__(self) -> None:
        self._moves: BoundedDict[str, deque[Moved]] = BoundedDict(MAX_KEYS)
        self.latest: deque[Moved] = deque(maxlen=LATEST)  # Of all keys, oldest first.

    def observe(self, event: Event) -> None:
        """Add `event` if it is a move; remove the moves of a key that is removed."""
        if isinstance(event, Removed):
            self._moves.pop(event.key)
        if not isinstance(event, Moved):
            return
        self.latest.append(event)
        moves = self._moves.get(event.key) or deque(maxlen=MOVES_PER_KEY)
        moves.append(event)
        self._moves.set(event.key, moves)

    def observe_batch(self, events: Sequence[ValueEvent]) -> None:
        """Add a batch of moves, or remove the moves of keys that are removed."""
        if isinstance(events[0], (Moved, Removed)):
            for event in events:
                self.observe(event)

    @property
    def is_full(self) -> bool:
        """Return whether the moves of some keys were dropped for those of others."""
        return len(self._moves) >= MAX_KEYS

    def moves(self, key: str) -> list[Moved]:
        """Return the latest moves of `key`, oldest first."""
        return list(self._moves.get(key) or ())
