"""Remembers which large frames were verified since the store was opened, in full or in part.

A large value is mapped, and verified at its first use only; an array of which regions are read,
chunk by chunk. A small value is verified at each use, which costs less than to remember it.
"""

from __future__ import annotations

from collections.abc import Sequence

from memories.backends.base import LARGE_BYTES
from memories.foundation.bounded_dict import BoundedDict
from memories.frames.reader import VerifiedChunks
from memories.model.events import Event, Removed, ValueEvent
from memories.model.record import Record

MAX_REMEMBERED = 65_536
MAX_IN_PART = 4096


class VerifiedFrames:
    """A bounded set of versions; a forgotten version is verified again."""

    def __init__(self) -> None:
        self._known: BoundedDict[str, tuple[int, bytes]] = BoundedDict(MAX_REMEMBERED)
        self._in_part: BoundedDict[str, tuple[int, bytes, VerifiedChunks]] = BoundedDict(
            MAX_IN_PART
        )

    def knows(self, record: Record) -> bool:
        """Return whether `add` was called for this version at this place."""
        return self._known.get(record.key) == (record.version, record.place)

    def chunks_of(self, record: Record) -> VerifiedChunks | None:
        """Return the verified chunks of this version at this place; None if it is small."""
        if record.stored < LARGE_BYTES:
            return None
        if self.knows(record):
            return VerifiedChunks(every=True)
        version, place, chunks = self._in_part.get(record.key) or (0, b"", VerifiedChunks())
        if (version, place) != (record.version, record.place):
            chunks = VerifiedChunks()
            self._in_part.set(record.key, (record.version, record.place, chunks))
        return chunks

    def add(self, record: Record) -> None:
        """Remember a version that was read and verified."""
        if record.stored >= LARGE_BYTES:
            self._known.set(record.key, (record.version, record.place))

    def observe(self, event: Event) -> None:
        """Forget a key that is in no tier any more."""
        if isinstance(event, Removed):
            self._forget(event.key)

    def observe_batch(self, events: Sequence[ValueEvent]) -> None:
        """Forget keys that are in no tier any more."""
        if isinstance(events[0], Removed):
            for event in events:
                self._forget(event.key)

    def _forget(self, key: str) -> None:
        self._known.pop(key)
        self._in_part.pop(key)
