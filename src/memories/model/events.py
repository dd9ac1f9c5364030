"""The events that the engine emits, as typed records for callables that subscribe.

The engine itself neither logs nor counts; logs, metrics and explanations are observers. A hit in a
volatile tier emits no event: it is counted where it happens. Reads that durable tiers answer,
stores of small values into cold and moves of single values are frequent, so they are delivered many
at once: at most a few milliseconds late while more come, and always before the next event of
another kind. The events of a batch of values are delivered together, too, and so are those of
stores into RAM (`engine.settlement`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar, cast, overload

import msgspec

from memories.foundation.fork_lock import holder_test, holds_none, new_lock
from memories.foundation.logging import logger
from memories.model.record import Record
from memories.model.tiers import Cause, TierName

T = TypeVar("T")
READS_AT_ONCE = 256  # Events that can wait are delivered when there are so many,
READS_SECONDS = 0.002  # or when one comes so long after the last delivery.


class Event(msgspec.Struct, frozen=True):
    """One thing that happened to one key, at `at` seconds of the monotonic clock.

    The garbage collector does not look at those that cannot be part of a cycle (`gc=False`).
    """

    key: str
    at: float


class Stored(Event, frozen=True, gc=False):
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
    decides: bool = False  # Whether the read itself decides if the value comes up to RAM.


class ReadBatch(Sequence[Retrieved]):
    """Small values that were read together from one tier; each took the same share of the time.

    The single events are made when an observer looks at them.
    """

    def __init__(self, records: Sequence[Record], at: float, tier: TierName, seconds: float):
        self.records, self.at, self.tier, self.seconds = records, at, tier, seconds
        self._made: list[Retrieved] | None = None

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Retrieved]:
        return iter(self._events())

    @overload
    def __getitem__(self, index: int) -> Retrieved: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Retrieved]: ...

    def __getitem__(self, index: int | slice) -> Retrieved | Sequence[Retrieved]:
        return self._events()[index]

    def _events(self) -> list[Retrieved]:
        if self._made is None:
            at, tier, seconds = self.at, self.tier, self.seconds
            self._made = [
                Retrieved(one.key, at, tier, one.size, seconds, one) for one in self.records
            ]
        return self._made


class StoredAtRest(NamedTuple):
    """A small value was stored in cold; it is delivered as `Written` and `Stored`."""

    record: Record
    at: float  # Seconds of the monotonic clock.
    seconds: float  # The whole store ...
    writing: float  # ... and the part of it that made the frame and wrote it.


class Missed(Event, frozen=True, weakref=True):
    """A key was read that is in no tier."""


class Moved(Event, frozen=True, gc=False):
    """A version changed its tier."""

    source: TierName
    target: TierName
    size: int
    cause: Cause
    seconds: float


class Prefetched(Event, frozen=True, gc=False):
    """A value prefetched into `tier` was used, came too late, or was wasted."""

    tier: TierName
    outcome: str  # "used", "late" or "wasted".


class Written(Event, frozen=True, gc=False):
    """A frame was written to a durable tier: for a store, a move, a flush or a backing copy."""

    tier: TierName
    size: int  # Of the value in RAM.
    stored: int  # Of its frame on the medium.
    seconds: float


class Removed(Event, frozen=True, gc=False):
    """A version left the system."""

    tier: TierName
    size: int
    cause: Cause


class Failed(Event, frozen=True):
    """A background action failed; what it worked on stays where it was."""

    action: str
    error: BaseException


ValueEvent = Stored | Moved | Written | Removed
Soon = Retrieved | ReadBatch | StoredAtRest | ValueEvent


class EventBatch(list[ValueEvent]):
    """Events that may be delivered again after an interrupt; an observer can refer to it weakly."""

    __slots__ = ("__weakref__",)


# In the order of their kinds within one delivery. A store at rest is delivered as two of them.
_READ = 1
_RANKS: dict[type, int] = {
    Retrieved: _READ, Written: 2, StoredAtRest: 3, Stored: 3, Moved: 4, Removed: 5
}  # fmt: skip
# What waits as one comes, and what it becomes where it is delivered.
_Group = list[Retrieved] | ReadBatch | EventBatch
_Taken = Soon | list[Retrieved] | EventBatch

Observer = Callable[[Event], None]
BatchObserver = Callable[[Sequence[ValueEvent]], None]
ReadObserver = Callable[[Sequence[Retrieved]], None]
KINDS = (Stored, Missed, Moved, Prefetched, Written, Removed, Failed)


class EventBus:
    """Calls each observer with each event of its kinds, in the thread that caused it.

    An observer that raises is logged once and unsubscribed: its failure must not fail a store.
    After a `MemoryError` or a `RecursionError` it is only logged.
    """

    def __init__(self) -> None:
        self._observers: dict[type, tuple[Observer, ...]] = dict.fromkeys(KINDS, ())
        self._batch_observers: dict[Observer, BatchObserver] = {}
        self._readers: tuple[ReadObserver, ...] = ()
        self._waiting: list[_Taken] = []
        self._taken: list[
            _Taken
        ] = []  # Being delivered; what an interrupt left is delivered again.
        self._flushing = new_lock()
        self._is_flushing_here = holder_test(self._flushing)
        self.holds_lock: Callable[[], bool] = holds_none  # Whether this thread holds any lock.
        self._due = 0.0
        self.emitted = 0  # Grows with every event and read; by how much is not exact.
        self.reads_at_once = READS_AT_ONCE

    def subscribe(
        self,
        observer: Observer,
        of_batch: BatchObserver | None = None,
        *,
        kinds: Iterable[type[Event]] | None = None,
    ) -> None:
        """Call `observer` with every event of these kinds, or of all, from now on.

        With `of_batch`, that is called instead with the events of a batch; see `emit_batch`.
        """
        if of_batch is not None:
            self._batch_observers[observer] = of_batch
        for kind in KINDS if kinds is None else kinds:
            self._observers[kind] = (*self._observers[kind], observer)

    def subscribe_reads(self, observer: ReadObserver) -> None:
        """Call `observer` with the reads that durable tiers answer, oldest first."""
        self._readers = (*self._readers, observer)

    def unsubscribe(self, observer: Observer) -> None:
        """Stop calling `observer`."""
        for kind, observers in self._observers.items():
            self._observers[kind] = tuple(known for known in observers if known != observer)
        self._batch_observers.pop(observer, None)

    def unsubscribe_reads(self, observer: ReadObserver) -> None:
        """Stop calling `observer` with reads."""
        self._readers = tuple(known for known in self._readers if known != observer)

    def emit(self, event: Event) -> None:
        """Call every observer of its kind with `event`, after what waits."""
        if self._waiting or self._taken:
            self.flush()
        self.emit_apart(event)

    def emit_apart(self, event: Event) -> None:
        """Do what `emit` does, before what waits: the event changes nothing for its key."""
        self.emitted += 1
        _deliver(self._observers[type(event)], event, self.unsubscribe)

    def emit_batch(self, events: Sequence[ValueEvent]) -> None:
        """Call every observer with events of one class that differ in key, size and times only.

        The `seconds` of each event may be its share of the time that the batch took.
        """
        if not events:
            return
        self.emitted += len(events)
        if self._waiting or self._taken:
            self.flush()
        self._deliver_all(events)

    def _deliver_all(self, events: Sequence[ValueEvent]) -> None:
        for observer in self._observers[type(events[0])]:
            self._deliver_batch(observer, events)

    def _deliver_batch(self, observer: Observer, events: Sequence[ValueEvent]) -> None:
        of_batch = self._batch_observers.get(observer)
        if of_batch is not None:
            _deliver((of_batch,), events, lambda _: self.unsubscribe(observer))
            return
        for event in events:
            _deliver((observer,), event, lambda _: self.unsubscribe(observer))

    def emit_soon(self, event: Soon) -> None:
        """Deliver an event soon; at once if it is the first for a while."""
        self._waiting.append(event)
        self.emitted += 1
        if event.at >= self._due or len(self._waiting) >= self.reads_at_once:
            if self.holds_lock():
                return  # A signal handler reads in the middle of something: a later event does it.
            self._due = event.at + READS_SECONDS
            self.flush()

    def emit_reads(self, reads: ReadBatch) -> None:
        """Deliver many reads at once."""
        self._waiting.append(reads)
        self.emitted += len(reads)
        self.flush()

    def flush(self) -> None:
        """Deliver all that waits, and return when other threads have, too.

        An event that comes after this is then delivered after them.
        """
        if self._is_flushing_here():
            return  # An observer asks, or a signal handler.
        with self._flushing:
            self._deliver_taken()
            count = len(self._waiting)
            # One line: an interrupt leaves all of it or nothing. Other threads append meanwhile.
            self._taken, self._waiting[:count] = self._waiting[:count], []
            self._deliver_taken()

    def _deliver_taken(self) -> None:
        taken = self._taken
        while taken:
            first = taken[0]
            if not isinstance(first, ReadBatch | list):
                count, groups = _grouped(taken)
                taken[:count] = groups  # One line: what an interrupt leaves is complete.
                continue
            if isinstance(first, EventBatch):
                self._deliver_all(first)
            else:
                self._deliver_reads(first)
            del taken[0]

    def _deliver_reads(self, reads: Sequence[Retrieved]) -> None:
        _deliver(self._readers, reads, self.unsubscribe_reads)


def _grouped(taken: Sequence[_Taken]) -> tuple[int, list[_Group]]:
    """Group events of one kind from the front of `taken`; return how many, and the groups.

    Events of one key keep their order; a key has at most one of each kind but reads among them.
    """
    if set(map(type, taken)) == {Retrieved}:  # So it is most often.
        return len(taken), [cast("list[Retrieved]", list(taken))]
    latest: dict[str, int] = {}  # The rank of the latest event of each key.
    alike: dict[tuple[object, ...], list[Any]] = {}  # By rank, and what else they have in common.
    count = 0
    for event in taken:
        if isinstance(event, StoredAtRest):
            key = event.record.key
        elif isinstance(event, Retrieved | ValueEvent):
            key = event.key
        else:
            break  # A group, which is delivered as it is.
        rank = _RANKS[type(event)]
        before = latest.get(key, 0)
        if before > rank or before == rank > _READ:
            break
        latest[key] = rank
        count += 1
        of = (rank, *_kind_of(event))
        if of not in alike:
            alike[of] = EventBatch() if isinstance(event, ValueEvent) else []
        alike[of].append(event)
    groups: list[_Group] = []
    for of in sorted(alike, key=itemgetter(0)):
        group = alike[of]
        groups += _batches_of(group) if isinstance(group[0], StoredAtRest) else [group]
    return count, groups


def _kind_of(event: _Taken) -> tuple[object, ...]:
    """Return what the events of one batch have in common, besides their class."""
    if isinstance(event, Moved):
        return event.source, event.target, event.cause
    if isinstance(event, Removed):
        return event.tier, event.cause
    return (event.tier,) if isinstance(event, Stored | Written) else ()


def _batches_of(stores: Sequence[StoredAtRest]) -> tuple[EventBatch, EventBatch]:
    """Return the events of stores of different keys."""
    written = EventBatch(
        Written(one.key, at, one.tier, one.size, one.stored, writing)
        for one, at, _, writing in stores
    )
    stored = EventBatch(
        Stored(one.key, at, one.tier, one.size, seconds) for one, at, seconds, _ in stores
    )
    return written, stored


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
