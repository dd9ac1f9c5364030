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
        self._moves: BoundedDict[str, tuple[Moved, ...]] = BoundedDict(MAX_KEYS)
        self.latest: deque[Moved] = deque(maxlen=LATEST)  # Of all keys, oldest first.

    def observe(self, event: Event) -> None:
        """Add `event` if it is a move; remove the moves of a key that is removed."""
        if isinstance(event, Removed):
            self._moves.pop(event.key)
        elif isinstance(event, Moved):
            self._add([event])

    def observe_batch(self, events: Sequence[ValueEvent]) -> None:
        """Add a batch of moves, or remove the moves of keys that are removed."""
        if isinstance(events[0], Moved):
            self._add([event for event in events if isinstance(event, Moved)])
        elif isinstance(events[0], Removed):
            for event in events:
                self._moves.pop(event.key)

    def _add(self, moves: Sequence[Moved]) -> None:
        """Add moves of different keys."""
        self.latest.extend(moves)
        known = self._moves.get
        latest: list[tuple[str, tuple[Moved, ...]]] = []
        for move in moves:
            before = known(move.key)
            latest.append(
                (move.key, (move,) if before is None else (*before, move)[-MOVES_PER_KEY:])
            )
        self._moves.update(latest)

    @property
    def is_full(self) -> bool:
        """Return whether the moves of some keys were dropped for those of others."""
        return len(self._moves) >= MAX_KEYS

    def moves(self, key: str) -> list[Moved]:
        """Return the latest moves of `key`, oldest first."""
        return list(self._moves.get(key) or ())
