"""Remembers which large frames were verified in full since the store was opened.

A large value is mapped, and verified at its first use only. A small value is verified at each use,
which costs less than to remember it.
"""

from __future__ import annotations

from collections.abc import Sequence

from memories.backends.base import LARGE_BYTES
from memories.foundation.bounded_dict import BoundedDict
from memories.model.events import Event, Removed, ValueEvent
from memories.model.record import Record

MAX_REMEMBERED = 65_536


class VerifiedFrames:
    """A bounded set of versions; a forgotten version is verified again."""

    def __init__(self) -> None:
        self._known: BoundedDict[str, tuple[int, bytes]] = BoundedDict(MAX_REMEMBERED)

    def knows(self, record: Record) -> bool:
        """Return whether `add` was called for this version at this place."""
        return self._known.get(record.key) == (record.version, record.place)

    def add(self, record: Record) -> None:
        """Remember a version that was read and verified."""
        if record.stored >= LARGE_BYTES:
            self._known.set(record.key, (record.version, record.place))

    def observe(self, event: Event) -> None:
        """Forget a key that is in no tier any more."""
        if isinstance(event, Removed):
            self._known.pop(event.key)

    def observe_batch(self, events: Sequence[ValueEvent]) -> None:
        """Forget keys that are in no tier any more."""
        if isinstance(events[0], Removed):
            for event in events:
                self._known.pop(event.key)
