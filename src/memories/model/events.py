"""The events that the engine emits, as typed records for callables that subscribe.

The engine itself neither logs nor counts; logs, metrics and explanations are observers. A hit in a
volatile tier emits no event: it is counted where it happens. Reads that durable tiers answer are
frequent, so they are delivered many at once: at most a few milliseconds late while more come, and
always before the next event of another kind.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from memories.foundation.logging import logger
from memories.model.record import Record
from memories.model.tiers import Cause, TierName

T = TypeVar("T")
READS_AT_ONCE = 256  # Reads are delivered when so many wait,
READS_SECONDS = 0.002  # or when one comes so long after the last delivery.


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened to one key, at `at` seconds of the monotonic clock."""

    key: str
    at: float


@dataclass(frozen=True, slots=True)
class Stored(Event):
    """A version was committed to `tier`."""

    tier: TierName
    size: int
    seconds: float


class Retrieved(NamedTuple):
    """A value was read from a durable tier, `seconds` after it was asked for."""

    key: str
    at: float  # Seconds of the monotonic clock.
    tier: TierName
    size: int
    seconds: float
    record: Record  # For observers that would otherwise look it up.


@dataclass(frozen=True, slots=True)
class Missed(Event):
    """A key was read that is in no tier."""


@dataclass(frozen=True, slots=True)
class Moved(Event):
    """A version changed its tier."""

    source: TierName
    target: TierName
    size: int
    cause: Cause
    seconds: float


@dataclass(frozen=True, slots=True)
class Prefetched(Event):
    """A value prefetched into `tier` was used, came too late, or was wasted."""

    tier: TierName
    outcome: str  # "used", "late" or "wasted".


@dataclass(frozen=True, slots=True)
class Written(Event):
    """A frame was written to a durable tier: for a store, a move, a flush or a backing copy."""

    tier: TierName
    size: int  # Of the value in RAM.
    stored: int  # Of its frame on the medium.
    seconds: float


@dataclass(frozen=True, slots=True)
class Removed(Event):
    """A version left the system."""

    tier: TierName
    size: int
    cause: Cause


@dataclass(frozen=True, slots=True)
class Failed(Event):
    """A background action failed; what it worked on stays where it was."""

    action: str
    error: BaseException


Observer = Callable[[Event], None]
ReadObserver = Callable[[Sequence[Retrieved]], None]


class EventBus:
    """Calls each observer with each event, in the thread that caused it.

    An observer that raises is logged once and unsubscribed: its failure must not fail a store.
    After a `MemoryError` or a `RecursionError` it is only logged.
    """

    def __init__(self) -> None:
        self._observers: tuple[Observer, ...] = ()
        self._readers: tuple[ReadObserver, ...] = ()
        self._reads: deque[Retrieved] = deque()
        self._due = 0.0
        self.emitted = 0  # Grows with every event and read; by how much is not exact.
        self.reads_at_once = READS_AT_ONCE

    def subscribe(self, observer: Observer) -> None:
        """Call `observer` with every event from now on."""
        self._observers = (*self._observers, observer)

    def subscribe_reads(self, observer: ReadObserver) -> None:
        """Call `observer` with the reads that durable tiers answer, oldest first."""
        self._readers = (*self._readers, observer)

    def unsubscribe(self, observer: Observer) -> None:
        """Stop calling `observer`."""
        self._observers = tuple(known for known in self._observers if known != observer)

    def unsubscribe_reads(self, observer: ReadObserver) -> None:
        """Stop calling `observer` with reads."""
        self._readers = tuple(known for known in self._readers if known != observer)

    def emit(self, event: Event) -> None:
        """Call every observer with `event`."""
        self.emitted += 1
        if self._reads:
            self.flush_reads()
        _deliver(self._observers, event, self.unsubscribe)

    def emit_read(self, read: Retrieved) -> None:
        """Deliver `read` soon; at once if it is the first for a while."""
        self._reads.append(read)
        self.emitted += 1
        if read.at >= self._due or len(self._reads) >= self.reads_at_once:
            self._due = read.at + READS_SECONDS
            self.flush_reads()

    def flush_reads(self) -> None:
        """Deliver every waiting read."""
        reads = self._drain_reads()
        if reads:
            _deliver(self._readers, reads, self.unsubscribe_reads)

    def _drain_reads(self) -> Sequence[Retrieved]:
        waiting, reads = self._reads, []
        try:
            for _ in range(len(waiting)):
                reads.append(waiting.popleft())
        except IndexError:
            pass  # Another thread delivers the others.
        return reads


def _deliver(
    observers: tuple[Callable[[T], None], ...], what: T, drop: Callable[[Callable[[T], None]], None]
) -> None:
    """Call each observer with `what`, and unsubscribe those that raise.

    An observer for which there was no memory or no stack left misses this event and stays.
    """
    for observer in observers:
        try:
            observer(what)
        except (MemoryError, RecursionError):
            logger.exception("observer %r missed an event", observer)
        except Exception:
            drop(observer)
            logger.exception("observer %r failed and is no longer called", observer)
