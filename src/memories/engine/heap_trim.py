"""Keeps the memory of read values for the next ones, and gives it back after much has left RAM.

The allocator of C keeps what is freed between values that stay, so that the memory of the process
would not shrink with its tiers. Programs that watch the process, such as a worker of dask, would
wait for that for ever.

By itself, glibc gives back what is freed at the end of the heap as soon as that is twice the
largest block that was ever freed: two tiles of an image. The system then clears every page of the
next values that are read, which takes as long as to read them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from memories.backends.base import LARGE_BYTES
from memories.foundation.system import c_function
from memories.model.events import Event, Moved, Removed, ValueEvent
from memories.model.tiers import Cause

TRIM_BYTES = 64 << 20  # So much has left RAM since the latest time; less is soon used again.
TRIM_SHARE = 20  # One part in so many of the time is spent with it, at most.


class HeapTrim:
    """Observes what leaves RAM for room."""

    def __init__(
        self, monotonic: Callable[[], float], trim: Callable[[], object] = lambda: trim_heap()
    ) -> None:
        self._monotonic = monotonic
        self._trim = trim
        self._left = 0
        self._next = 0.0

    def observe(self, event: Event) -> None:
        """Count a value that has left RAM."""
        if isinstance(event, Moved | Removed):
            self._count(event)

    def observe_batch(self, events: Sequence[ValueEvent]) -> None:
        """Count values that have left RAM together."""
        first = events[0]
        if isinstance(first, Moved | Removed) and _has_left(first):  # Then all of them have.
            self._add(sum([event.size for event in events]))

    def _count(self, event: Moved | Removed) -> None:
        if _has_left(event):
            self._add(event.size)

    def _add(self, nbytes: int) -> None:
        self._left += nbytes
        if self._left >= TRIM_BYTES and (now := self._monotonic()) >= self._next:
            self._left = 0
            self._trim()
            self._next = now + TRIM_SHARE * (self._monotonic() - now)


def _has_left(event: Moved | Removed) -> bool:
    """Return whether a value has left RAM for room."""
    if isinstance(event, Moved):
        return event.target.durable and not event.source.durable
    return event.cause is Cause.CAPACITY and not event.tier.durable


def keep_blocks() -> None:
    """Have the allocator of C keep a few blocks of any size of values that are not mapped."""
    block = bytes(2 * LARGE_BYTES)
    del block  # Now a larger one was freed.


def trim_heap() -> bool:
    """Give what the allocator of C holds unused back to the system, if it can do that."""
    trim = c_function("malloc_trim")  # Only glibc has it.
    return trim is not None and bool(trim(0))
