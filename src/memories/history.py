"""The latest moves of all, and of the keys that moved lately, for `explain` and for watchers."""

from __future__ import annotations

from collections import deque

from memories.events import Event, Moved

MAX_KEYS = 4096
MOVES_PER_KEY = 8
LATEST = 64


class History:
    """Remembers moves, for a bounded number of keys."""

    def __init__(self) -> None:
        self._moves: dict[str, deque[Moved]] = {}
        self.latest: deque[Moved] = deque(maxlen=LATEST)  # Of whatever key, oldest first.

    def observe(self, event: Event) -> None:
        """Remember `event` if it is a move."""
        if not isinstance(event, Moved):
            return
        self.latest.append(event)
        moves = self._moves.pop(event.key, None) or deque(maxlen=MOVES_PER_KEY)
        moves.append(event)
        self._moves[event.key] = moves
        if len(self._moves) > MAX_KEYS:
            self._moves.pop(next(iter(self._moves)), None)

    def moves(self, key: str) -> list[Moved]:
        """Return the latest moves of `key`, oldest first."""
        return list(self._moves.get(key, ()))
