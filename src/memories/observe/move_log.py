"""Remembers the latest moves, in total and for each recently moved key.

Values move by the thousand, and the moves of a key are seldom asked for. So moves wait in a list
and are entered many at once: of most keys that move, later ones take the place before that, and
their moves are dropped without being entered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import cast

from memories.foundation.bounded_dict import BoundedDict
from memories.foundation.fork_lock import new_lock
from memories.model.events import Event, Moved, Removed, ValueEvent

MAX_KEYS = 4096
MOVES_PER_KEY = 8
LATEST = 64
MOST_WAITING = 4 * MAX_KEYS


class MoveLog:
    """The latest moves, for a bounded number of keys. Safe to use from any number of threads."""

    def __init__(self) -> None:
        self._moves: BoundedDict[str, tuple[Moved, ...]] = BoundedDict(MAX_KEYS)
        self._waiting: list[Moved] = []  # Later than those in `_moves`; the latest is the last.
        self._entering = new_lock()
        self.latest: deque[Moved] = deque(maxlen=LATEST)  # Of all keys, oldest first.

    def observe(self, event: Event) -> None:
        """Add `event` if it is a move; remove the moves of a key that is removed."""
        if isinstance(event, Moved | Removed):
            self.observe_batch([event])

    def observe_batch(self, events: Sequence[ValueEvent]) -> None:
        """Add a batch of moves, or remove the moves of keys that are removed."""
        if isinstance(events[0], Moved):
            moves = cast("Sequence[Moved]", events)  # The events of a batch are of one kind.
            self.latest.extend(moves)
            self._waiting += moves
            if len(self._waiting) > MOST_WAITING:
                self._shorten()
        elif isinstance(events[0], Removed):
            if self._waiting:
                self._enter()
            for event in events:
                self._moves.pop(event.key)

    def _shorten(self) -> None:
        """Drop moves that later ones displace; enter all where these are of too few keys."""
        with self._entering:
            count = len(self._waiting)
            older, latest = self._waiting[: count // 2], self._waiting[count // 2 : count]
            keys = {move.key for move in latest}
            older = [move for move in older if move.key in keys]
            if len(keys) >= MAX_KEYS and len(older) < count // 4:
                for key in self._moves:
                    if key not in keys:
                        self._moves.pop(key)  # Its next moves do not follow these.
                # One line: other threads append meanwhile.
                self._waiting[:count] = older + latest
                return
        self._enter()

    def _enter(self) -> None:
        """Enter the moves that wait, without those of keys that later ones would displace."""
        with self._entering:
            count = len(self._waiting)
            # One line: other threads append meanwhile.
            moves, self._waiting[:count] = self._waiting[:count], []
            found: dict[str, list[Moved]] = {}  # Of each key, the latest first.
            for move in reversed(moves):
                of_key = found.get(move.key)
                if of_key is not None:
                    of_key.append(move)
                elif len(found) < MAX_KEYS:
                    found[move.key] = [move]
            known = self._moves.get
            self._moves.update(
                [
                    (key, (*(known(key) or ()), *reversed(found[key]))[-MOVES_PER_KEY:])
                    for key in reversed(found)
                ]
            )

    @property
    def is_full(self) -> bool:
        """Return whether the moves of some keys were dropped for those of others."""
        self._enter()
        return len(self._moves) >= MAX_KEYS

    def moves(self, key: str) -> list[Moved]:
        """Return the latest moves of `key`, oldest first."""
        self._enter()
        return list(self._moves.get(key) or ())
