"""The short way of a read from cold: one function looks up, reads, verifies and decodes.

It serves small values in the log that never expire. For everything else, and wherever something is
unusual, the general way (`Hierarchy.read`) is taken, which looks again and raises the errors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from memories.backends.disk import DiskBackend
from memories.engine.payload import open_small
from memories.errors import UNREADABLE, StorageError
from memories.frames.fast_path import MAX_BYTES
from memories.frames.signing import Keyring
from memories.frames.single_buffer import open_single
from memories.model.events import EventBus, Retrieved
from memories.model.tiers import TierName

_COLD: Final = TierName.COLD  # To look a member up in its class takes longer.
_new = tuple.__new__  # What a named tuple does, without its argument parsing.


class _NotRead:
    def __repr__(self) -> str:
        return "<not read by the short way>"


NOT_READ: Final = _NotRead()


class ColdReader:
    """Reads small values from the log of the cold tier."""

    def __init__(
        self, journal: DiskBackend, events: EventBus, trust: Keyring, monotonic: Callable[[], float]
    ) -> None:
        self.open = True  # Whether the manager may be read.
        self._lookup = journal.lookup
        self._read_inline = journal.read_inline
        self._events = events
        self._trust = trust
        self._monotonic = monotonic

    def read(self, key: str) -> Any:
        """Return the value of `key`, NOT_READ where the general way must be taken."""
        if not self.open:
            return NOT_READ
        started = self._monotonic()
        record = self._lookup(key)
        if (
            record is None
            or record.tier is not _COLD
            or record.stored > MAX_BYTES
            or record.terms.expires_at is not None
        ):
            return NOT_READ
        frame = self._read_inline(record)
        if frame is None:
            return NOT_READ
        value: Any = open_single(frame, key)
        if value is None:
            value = open_other(frame, key, self._trust)
            if value is NOT_READ:
                return value
        now = self._monotonic()
        read = (key, now, _COLD, record.size, now - started, record)
        self._events.emit_read(_new(Retrieved, read))
        return value


def open_other(frame: bytes, key: str, trust: Keyring) -> Any:
    """Return the value of a small frame of another kind; NOT_READ if it is damaged.

    Then its record may have been replaced, and its bytes given back.
    """
    try:
        return open_small(memoryview(frame), key, trust)
    except (*UNREADABLE, StorageError):
        return NOT_READ
