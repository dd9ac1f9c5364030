"""Fetches values before they are read: on the guesses of predictors, and on request.

Readers only append notes. Threads of this module learn from the notes in their order and bring
values up to warm; the predictors themselves are pure (`policies/predictors`). While no guesses are
made, one thread looks at the notes every few milliseconds and no note wakes it. Once guesses are
made, the next guess must be there before its read, and every note wakes a thread. A guess takes
free room, or the room of a value that has been idle for longer than guesses usually wait.
"""

from __future__ import annotations

import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from enum import Enum

from memories.engine.hierarchy import Hierarchy
from memories.engine.lifecycle_state import LifecycleState
from memories.errors import MemoriesError, TierFullError
from memories.foundation.fork_lock import new_lock
from memories.foundation.periodic import STOP_SECONDS, AutoResetEvent, Latch, Periodic
from memories.model.entry import Entry, ExpiringEntry
from memories.model.events import (
    Event,
    Failed,
    Moved,
    Prefetched,
    ReadBatch,
    Removed,
    Retrieved,
    Stored,
    ValueEvent,
)
from memories.model.record import Record
from memories.model.tiers import Cause, TierName
from memories.policies.predictors import Prefetcher

WORKERS = 4  # One slow fetch must not delay the others.
MAX_NOTES = 4096  # Reads that wait to be processed; more are lost, not queued.
UNREAD_SHARE = 10  # At most a tenth of warm holds guesses that were not read yet.
ASKED_SHARE = 2  # At most half of it is fetched for callers at a time.
WORTH_SECONDS = 1e-4  # Shorter reads are not learnt from: a fetch would take longer.
BATCH_NOTES = 256  # Processed at a time.
BATCH_SECONDS = 0.005  # Between two looks at the notes, while no guesses are made.
REST = 24.0  # Seconds of rest for each second of learning, since reads come first ...
EAGER_REST = 4.0  # ... and while guesses are being made.
EAGER_NOTES = 64  # Notes after which the last guess no longer counts as evidence for the next.
PROBE = 4  # Without evidence, the predictors are asked at every fourth note only.
_PATIENCE_SECONDS = 1.0  # The expected wait of a guess, before any was read.
_PATIENCE_WEIGHT = 0.1  # Of the latest wait in the running mean.
_LEAVING = (Moved, Removed, Stored)


class _What(Enum):
    READ = "read"  # A durable tier answered a read.
    FIRST = "first"  # A prefetched value was read in warm.
    LEFT = "left"  # A prefetched value left, or was replaced.


class _Job:
    """A key to be fetched."""

    __slots__ = ("guessed", "size", "started")

    def __init__(self, size: int, *, guessed: bool) -> None:
        self.size = size
        self.guessed = guessed
        self.started = False


class Prefetching:
    """Brings durable values up to warm before they are read.

    One lock guards everything mutable but the two queues and `_watched` and `_eager`, which readers
    see. Readers take the lock only to wake a thread that sleeps.
    """

    def __init__(
        self,
        hierarchy: Hierarchy,
        prefetcher: Prefetcher | None,
        *,
        workers: int = WORKERS,
        worth_seconds: float = WORTH_SECONDS,
    ) -> None:
        self._worth_seconds = worth_seconds
        self._hierarchy = weakref.ref(hierarchy)
        self._clock = hierarchy.clock
        self._prefetcher = prefetcher
        self._notes: deque[tuple[_What, str]] = deque(maxlen=MAX_NOTES)
        self._wake_event = AutoResetEvent()  # Every ring wakes one free thread.
        self._lock = new_lock()
        self._ended = Latch()
        self._threads = [
            Periodic(self._run, f"prefetch-{at}", wake_event=self._wake_event)
            for at in range(workers)
        ]
        self._watched = False  # Whether a thread will read the notes without being woken.
        self._eager = 0  # How many more notes wake a thread at once.
        self._probed = 0
        self._jobs: dict[str, _Job] = {}
        self._unread: dict[str, float] = {}  # Keys fetched and not yet read, and when they came.
        self._patience_seconds = _PATIENCE_SECONDS
        self._outcomes: list[Prefetched] = []  # Of guesses, still to be emitted.
        hierarchy.events.subscribe(self._observe, self._observe_batch, kinds=_LEAVING)
        hierarchy.events.subscribe_reads(self._observe_reads)

    def request(self, keys: Iterable[str]) -> int:
        """Fetch `keys` in the background, as far as half of warm holds them; return how many."""
        hierarchy = self._hierarchy()
        count = 0
        for key in keys:
            record = None if hierarchy is None else self._below(hierarchy, key)
            if record is None or hierarchy is None:
                continue
            limit = hierarchy.tiers[TierName.WARM].budget.effective // ASKED_SHARE
            with self._lock:
                asked = sum(job.size for job in self._jobs.values() if not job.guessed)
                if key in self._jobs or asked + record.size > limit:
                    continue
                self._jobs[key] = _Job(record.size, guessed=False)
            count += 1
            self._wake()
        return count

    def stop(self, timeout: float = STOP_SECONDS) -> None:
        """End the threads, each after its present fetch."""
        self._ended.set()
        for thread in self._threads:
            thread.stop(0.0)
        for thread in self._threads:
            thread.stop(timeout)

    def drain(self) -> None:
        """Process every note and fetch what is waiting, in this thread."""
        self._process_notes()
        while (job := self._next()) is not None:
            self._fetch(*job)
            self._process_notes()

    def _observe(self, event: Event) -> None:
        """Append a note of a change, in the thread that made it; locks only to forget a key."""
        since = self._unread.get(event.key)
        # Moves are delivered late: this may be the one that has brought it up, or one before it.
        came = isinstance(event, Moved) and event.target is TierName.WARM
        if since is not None and not came and event.at >= since:
            self._add_notes([(_What.LEFT, event.key)])
        prefetcher = self._prefetcher
        if prefetcher is not None and isinstance(event, Removed) and prefetcher.knows(event.key):
            with self._lock:
                prefetcher.forget(event.key)

    def _observe_batch(self, events: Sequence[ValueEvent]) -> None:
        """Append notes of many changes."""
        if self._unread or isinstance(events[0], Removed):
            for event in events:
                self._observe(event)

    def _observe_reads(self, reads: Sequence[Retrieved]) -> None:
        """Append notes of reads, in the thread of a reader: no lock, no look-up."""
        learns = self._prefetcher is not None
        if isinstance(reads, ReadBatch):  # Each took the same time.
            learns = learns and reads.seconds >= self._worth_seconds
        if not learns and not self._jobs:
            return
        # Whether a read met a fetch in progress is decided when the note is processed.
        notes = [
            (_What.READ, read.key)
            for read in reads
            if (learns and read.seconds >= self._worth_seconds) or read.key in self._jobs
        ]
        if notes:
            self._add_notes(notes)

    def _add_notes(self, notes: Iterable[tuple[_What, str]]) -> None:
        self._notes.extend(notes)
        if self._eager or not self._watched:
            hierarchy = self._hierarchy()
            if hierarchy is not None and hierarchy.state is LifecycleState.OPEN:
                self._wake()

    def _wake(self) -> None:
        """Wake a thread, and start the threads at the first call."""
        self._watched = True
        for thread in self._threads:
            thread.start()
        self._wake_event.set()

    def _run(self) -> None:
        """Process notes in batches until there are none."""
        while not self._ended.is_set():
            spent = self._work()
            if self._eager:
                self._ended.wait(EAGER_REST * spent)
                self._watched = False
                return
            self._ended.wait(max(REST * spent, BATCH_SECONDS))
            # Thread 1 is a reader: it appends its note, then checks `_watched`. Thread 2 is this
            # one: it clears `_watched`, then checks for notes. One of them sees the other.
            self._watched = False
            if not self._notes:
                return
            self._watched = True

    def _work(self) -> float:
        """Process a batch of notes and fetch what waits; return the seconds spent on notes."""
        started = time.thread_time()
        try:
            self._process_notes(BATCH_NOTES)
            spent = time.thread_time() - started
            self._fetch_all()
        except BaseException as error:
            # Readers wake a thread again, and observers get an event; the thread logs the error.
            self._watched = False
            self._start_over()
            hierarchy = self._hierarchy()
            if hierarchy is not None:
                now = self._clock.monotonic()
                hierarchy.events.emit(Failed("", now, "fetch ahead", error))
            raise
        return spent

    def _start_over(self) -> None:
        """Drop guesses and predictors: an exception may have left them inconsistent.

        Requests of callers that no thread has begun to fetch stay.
        """
        with self._lock:
            if self._prefetcher is not None:
                self._prefetcher.start_over()
            self._jobs = {
                key: job for key, job in self._jobs.items() if not (job.guessed or job.started)
            }
            self._unread.clear()

    def _fetch_all(self) -> None:
        while (job := self._next()) is not None:
            self._fetch(*job)

    def _process_notes(self, count: int = MAX_NOTES) -> None:
        """Process notes in their order; one thread at a time, since predictors learn the order."""
        hierarchy = self._hierarchy()
        if hierarchy is None:
            return
        hierarchy.events.flush()
        with self._lock:
            while self._notes and count:
                count -= 1
                self._process_note(hierarchy, *self._notes.popleft())
            outcomes, self._outcomes = self._outcomes, []
        # Emitted without the lock: an observer may read, and a read appends a note.
        for outcome in outcomes:
            hierarchy.events.emit(outcome)

    def _process_note(self, hierarchy: Hierarchy, what: _What, key: str) -> None:
        now = self._clock.monotonic()
        if what is _What.READ:
            if self._jobs.pop(key, None) is not None:
                self._record_outcome(key, "late")
        else:
            since = self._unread.pop(key, None)
            if since is None:
                return
            if what is _What.LEFT:
                self._record_outcome(key, "wasted")
                return
            self._patience_seconds += _PATIENCE_WEIGHT * (now - since - self._patience_seconds)
            self._record_outcome(key, "used")
        self._guess(hierarchy, key, now)

    def _guess(self, hierarchy: Hierarchy, key: str, now: float) -> None:
        if self._prefetcher is None:
            return

        def size_of(other: str) -> int | None:
            record = self._below(hierarchy, other)
            return None if record is None or other in self._jobs else record.size

        self._prefetcher.budget_bytes = (
            hierarchy.tiers[TierName.WARM].budget.effective // UNREAD_SHARE
        )
        self._prefetcher.observe(key, now)
        self._probed = (self._probed + 1) % PROBE
        if self._eager:
            self._eager -= 1
        elif self._probed:
            return
        for guess in self._prefetcher.propose(key, size_of):
            self._eager = EAGER_NOTES
            self._jobs[guess.key] = _Job(size_of(guess.key) or 0, guessed=True)
            self._wake_event.add()

    def _below(self, hierarchy: Hierarchy, key: str) -> Record | None:
        """Return the record of a key that may be brought up to warm, None for any other."""
        found = hierarchy.catalog.lookup(key)
        if isinstance(found, Record) and found.terms.admits(TierName.WARM):
            return None if found.terms.pinned else found
        return None

    def _record_outcome(self, key: str, outcome: str) -> None:
        if self._prefetcher is not None:
            self._prefetcher.record_outcome(key, outcome)
        self._outcomes.append(Prefetched(key, self._clock.monotonic(), TierName.WARM, outcome))

    def _next(self) -> tuple[str, _Job] | None:
        """Return the key that has waited longest, None without any."""
        with self._lock:
            for key, job in self._jobs.items():
                if not job.started:
                    job.started = True
                    return key, job
        return None

    def _fetch(self, key: str, job: _Job) -> None:
        hierarchy = self._hierarchy()
        if hierarchy is None:
            return
        moved = self._bring_up(hierarchy, key, self._colder(hierarchy) if job.guessed else None)
        with self._lock:
            if self._jobs.get(key) is not job:
                return  # A reader was faster: it counts as late already.
            del self._jobs[key]
            if moved:
                self._unread[key] = self._clock.monotonic()
            elif self._prefetcher is not None:
                self._prefetcher.withdraw(key)
        if moved:
            self._await_reader(hierarchy, key)

    def _bring_up(
        self, hierarchy: Hierarchy, key: str, may_evict: Callable[[Entry | Record], bool] | None
    ) -> bool:
        record = self._below(hierarchy, key)
        if record is None:
            return False
        try:
            return hierarchy.try_move(record, TierName.WARM, Cause.PREFETCH, may_evict=may_evict)
        except TierFullError:
            return False  # All values in warm are warmer than a guess.
        except (MemoriesError, OSError) as error:
            hierarchy.events.emit(Failed(key, self._clock.monotonic(), "fetch ahead", error))
            return False

    def _colder(self, hierarchy: Hierarchy) -> Callable[[Entry | Record], bool]:
        """Return a function that tells whether a victim is colder than a guess.

        A value that has been idle for some time is expected to be idle for as long again; a guess
        is read within `_patience_seconds`.
        """
        now, hit_clock = self._clock.monotonic(), hierarchy.tiers[TierName.WARM].hit_clock

        def colder(victim: Entry | Record) -> bool:
            if not isinstance(victim, Entry) or victim.key in self._unread:
                return False
            return now - hit_clock.time_of(victim.stamp) > self._patience_seconds

        return colder

    def _await_reader(self, hierarchy: Hierarchy, key: str) -> None:
        """Record the first read of a fetched value; later reads cost nothing more."""
        entries = hierarchy.catalog.entries
        found = entries.get(key)
        if found is None:
            self._add_notes([(_What.LEFT, key)])
            return
        entry = found.inner if isinstance(found, ExpiringEntry) else found
        plain = entry.tick

        def first() -> int:
            # Looked up again: a function that holds the entry which holds it would be a cycle.
            now = entries.get(key)
            now = now.inner if isinstance(now, ExpiringEntry) else now
            if now is not None and now.tick is first:
                now.tick = plain
            self._add_notes([(_What.FIRST, key)])
            return plain()

        entry.tick = first
        if entry.hits > entry.arrived_hits:
            # It was read between its arrival and now.
            self._add_notes([(_What.FIRST, key)])
