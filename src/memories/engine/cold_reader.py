"""The short way of a read from cold: one function looks up, reads, verifies and decodes.

It serves small values in the log that never expire. For everything else, and wherever something is
unusual, the general way (`Hierarchy.read`) is taken, which looks again and raises the errors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from memories.engine.small_frames import open_small
from memories.errors import UNREADABLE, StorageError
from memories.frames.signing import Keyring
from memories.frames.single_buffer import open_single
from memories.model.events import EventBus, Retrieved
from memories.model.record import Record
from memories.model.tiers import TierName

if TYPE_CHECKING:
    from memories.backends.disk import DiskBackend
    from memories.backends.disk.small_reads import SmallReads

# Names of this module, which compiled code finds without a look-up.
_COLD: Final[TierName] = TierName.COLD
_new: Final[Callable[..., Retrieved]] = tuple.__new__  # A named tuple, without parsing arguments.
_Retrieved: Final[type[Retrieved]] = Retrieved
_UNUSUAL: Final[tuple[type[Exception], ...]] = (*UNREADABLE, StorageError)

SLOW_BYTES: Final = 1 << 14  # To promote a smaller value would take longer than to read it.


def _never(record: Record, value: Any) -> bool:
    """Decide nothing: the value stays where it is."""
    return False


def _leave(record: Record, value: Any) -> None:
    """Leave a value where it is."""


class _NotRead:
    def __repr__(self) -> str:
        return "<not read by the short way>"


NOT_READ: Final[Any] = _NotRead()


class ColdReader:
    """Reads small values from the log of the cold tier."""

    __slots__ = ("_emit", "_monotonic", "_small", "_trust", "decides", "is_open", "promote")

    def __init__(
        self, journal: DiskBackend, events: EventBus, trust: Keyring, monotonic: Callable[[], float]
    ) -> None:
        self.is_open = True  # Whether the manager may be read.
        # Both take the record of what was read, and the value that the reader gets. The first
        # returns whether the read itself decides if the value comes up; the second decides.
        self.decides: Callable[[Record, Any], bool] = _never
        self.promote: Callable[[Record, Any], None] = _leave
        self._small: SmallReads = journal.small_reads
        self._emit: Callable[[Retrieved], None] = events.emit_soon
        self._trust = trust
        self._monotonic = monotonic

    def read(self, key: str) -> Any:
        """Return the value of `key`, NOT_READ where the general way must be taken."""
        if not self.is_open:
            return NOT_READ
        started = self._monotonic()
        try:
            found = self._small.find(key)
        except OSError:
            return NOT_READ  # The general way tries once more.
        if found is None:
            return NOT_READ
        record, frame = found
        if record.terms.expires_at is not None:
            return NOT_READ
        value = self.open(frame, record)
        if value is not NOT_READ:
            now = self._monotonic()
            size: int = record.size
            decides = size >= SLOW_BYTES and self.decides(record, value)
            read = (key, now, _COLD, size, now - started, record, decides)
            self._emit(_new(_Retrieved, read))
            if decides:
                self.promote(record, value)
        return value

    def open(self, frame: bytes, record: Record) -> Any:
        """Return the value of a small frame; NOT_READ if it is damaged.

        Then its record may have been replaced, and its bytes given back.
        """
        value: Any = open_single(frame, record.key)
        if value is not None:
            return value
        try:
            return open_small(memoryview(frame), record.key, self._trust)
        except _UNUSUAL:
            return NOT_READ


class ManyReads:
    """Opens the frames of many reads, and keeps what they give.

    Attributes:
        done: The records whose values could be read.
    """

    __slots__ = ("_reader", "_values", "done")

    def __init__(self, reader: ColdReader, values: dict[str, Any]) -> None:
        self._reader = reader
        self._values = values
        self.done: list[Record] = []

    def use(self, frame: bytes, record: Record) -> bool:
        """Enter the value of a record, and return whether it could be read."""
        key: str = record.key
        value: Any = open_single(frame, key)
        if value is None:
            value = self._reader.open(frame, record)
            if value is NOT_READ:
                return False
        self._values[key] = value
        self.done.append(record)
        return True
