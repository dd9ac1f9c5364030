"""The life of one manager's services: close, abandonment, and what a fork leaves of them.

Services that run threads or hold files end one after the other, in a fixed order. An interrupt may
strike at any line of it: the next call continues with the step that was not completed.
"""

from __future__ import annotations

import errno
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from memories.core.finalizer import Finalizer
from memories.core.services import Services
from memories.engine.lifecycle_state import LifecycleState
from memories.engine.operations import Operations, operation
from memories.errors import StorageError, TierFullError, as_one
from memories.foundation.fork_lock import new_lock
from memories.foundation.forks import after_fork
from memories.foundation.parallel import stop_helpers

if TYPE_CHECKING:
    from memories.core.trace_recorder import TraceRecorder
    from memories.snapshot.tier_restore import TierRestore


class EndStep(NamedTuple):
    """One step of the end, and a description of what ends in it."""

    title: str
    end: Callable[[], object]


_running: set[Lifecycle] = set()  # Those that have not ended.


class Lifecycle:
    """The life of the services of one manager.

    It does not refer to the manager: a manager that the program has dropped can be collected while
    the threads of its services run.

    Attributes:
        services: The services.
        tier_restore: The latest restore of a snapshot, which may still run.
        trace_recorder: The latest recording of a trace, which may still run.
        before_flush: What is called before values that are only in RAM are written.
    """

    def __init__(self, services: Services) -> None:
        self.services = services
        self.tier_restore: TierRestore | None = None
        self.trace_recorder: TraceRecorder | None = None
        self.before_flush: list[Callable[[], object]] = []
        self._hierarchy = services.hierarchy
        self._ends_first: list[EndStep] = []
        self._steps: deque[EndStep] | None = None  # The steps that are left, once the end began.
        self._closing = threading.RLock()
        self._owners: weakref.WeakSet[object] = weakref.WeakSet()
        settings = services.settings
        where = settings.storage_path
        _running.add(self)
        self._finalizer = Finalizer(
            self,
            title="a manager without storage_path" if where is None else f"the store in {where}",
            directory=None if settings.read_only else where,
            flush_seconds=settings.exit_flush_seconds,
        )

    @property
    def operations(self) -> Operations:
        """Return the calls in progress that change the store."""
        return self._hierarchy.operations

    @property
    def closed(self) -> bool:
        """Return whether everything has ended."""
        return self._hierarchy.state is LifecycleState.CLOSED

    @property
    def saves_at_end(self) -> bool:
        """Return whether values that are only in RAM must be written before the end."""
        return self.services.saves_at_end

    @property
    def current_step(self) -> str:
        """Return a description of what ends at the moment."""
        return self._steps[0].title if self._steps else "its values"

    def ends_before(self, end: Callable[[], object], title: str) -> None:
        """Call `end` at the end, before any service that it uses ends."""
        self._ends_first.append(EndStep(title, end))

    @property
    def is_open(self) -> bool:
        """Return whether the store can be written, and its end has not begun."""
        return self._hierarchy.state is LifecycleState.OPEN and self._steps is None

    def owners(self) -> list[object]:
        """Return the managers that use the services, and have not been collected."""
        return list(self._owners)

    def end_with(self, owner: object) -> None:
        """End, in a thread, when `owner` and all other owners have been garbage-collected."""
        self._owners.add(owner)
        weakref.finalize(owner, _owner_collected, self).atexit = False

    def start_recording(self, recorder: TraceRecorder) -> None:
        """Start to record a trace, instead of the one that is being recorded."""
        if self.trace_recorder is not None:
            self.trace_recorder.stop()
        recorder.start()
        self.trace_recorder = recorder

    @operation
    def flush(self) -> None:
        """Give every value a durable copy, and return once all are synced.

        Every backend is synced, also where another one, or some values, failed.
        """
        self._hierarchy.require_writable()
        failures = _failures(
            *self.before_flush,
            self._hierarchy.flush,
            *(backend.sync for backend in self.services.backends),
        )
        try:
            if failures:
                raise as_one(failures)
        finally:
            del failures  # See `_failures`.

    def close(self, *, flush: bool = True) -> None:
        """End everything; values that are only in RAM are written first if the store remains.

        Every step is taken, also where earlier ones fail.

        Raises:
            BusyError: this thread is in the middle of a call, of a function for `modify` too.
            TierFullError: the store has no room for what is only in RAM; nothing has ended.
            StorageError: the disk is full; nothing has ended.
            MemoriesError: something could not be saved; everything has ended.
        """
        self.operations.require_outermost()
        self._close(flush)

    @operation
    def _close(self, flush: bool) -> None:
        with self._closing:
            failures: list[Exception] = []
            if flush and self.saves_at_end:
                # The archive uploads staged values when it ends, so only the disk is synced here.
                failures = _failures(
                    *self.before_flush, self._hierarchy.flush, self.services.backends[0].sync
                )
            for failure in filter(_is_want_of_room, failures):
                raise self._still_open(failure) from failure
            self._end(failures)

    def abandon(self) -> None:
        """End everything without writing what is only in RAM."""
        with self._closing:
            self._end([])

    def write_volatile(self, seconds: float) -> None:
        """Write what is only in RAM, for at most `seconds`."""
        with self._closing:
            if self.saves_at_end:
                until = self.services.clock.monotonic() + seconds
                failures = _failures(
                    *self.before_flush,
                    lambda: self._hierarchy.flush(until),
                    self.services.backends[0].sync,
                )
                if failures:
                    raise as_one(failures)

    def unwritten(self) -> list[str]:
        """Return the keys whose values are only in RAM, without those that may be dropped."""
        return self._hierarchy.unwritten_keys()

    def after_fork(self) -> None:
        """In a forked child: keep reading, use no inherited lock or thread, change nothing."""
        if self._hierarchy.state is not LifecycleState.CLOSED:
            self._hierarchy.after_fork()
            self.services.telemetry.disable_in_child()
            self._finalizer.forget()
            self._closing = new_lock()
            self._ends_first.clear()
            self.before_flush.clear()
            self.tier_restore = self.trace_recorder = None

    def _end(self, failures: list[Exception]) -> None:
        """Take every step that is left, then raise the failures."""
        if self._steps is None:
            self._steps = deque(self._all_steps())
        while self._steps:
            step = self._steps[0]
            try:
                step.end()
            except Exception as error:
                failures.append(error)
            if self._steps and self._steps[0] is step:
                self._steps.popleft()
        if failures:
            raise as_one(failures)

    def _all_steps(self) -> Iterator[EndStep]:
        """Yield the steps in order; after a fork only those of what belongs to this process."""
        services = self.services
        if self._hierarchy.state is not LifecycleState.FORKED:
            yield from self._ends_first
            for title, one in (
                ("a restore", self.tier_restore),
                ("a recording", self.trace_recorder),
                ("prefetching", services.prefetching),
                ("migration", services.migrator),
                ("write-behind", services.write_behind),
                ("telemetry", services.telemetry),
            ):
                if one is not None:
                    yield EndStep(title, one.stop)
        yield EndStep("its values", self._discard_values)
        for backend in reversed(services.backends):
            yield EndStep("the archive" if backend.remote else "the disk", backend.close)
        if services.remove_private is not None:
            yield EndStep("its directory", services.remove_private)
        yield EndStep("its worker threads", stop_helpers)
        yield EndStep("the rest", self._ended)

    def _discard_values(self) -> None:
        self._hierarchy.state = LifecycleState.CLOSED
        self._hierarchy.settlement.settle()
        left = self._hierarchy.catalog.clear()
        for tier in self._hierarchy.tiers.volatile.values():
            tier.victims.discard_batch([entry for entry in left if entry.tier is tier.name])
        self._hierarchy.tiers.release_batch(left)

    def _ended(self) -> None:
        _running.discard(self)
        self._finalizer.over()

    def _still_open(self, error: Exception) -> Exception:
        count = len(self._hierarchy.unwritten_keys())
        still = f"{count} values are only in RAM; the" if count else "the"
        kind = TierFullError if isinstance(error, TierFullError) else StorageError
        return kind(
            f"{error}; {still} manager stays open, so that nothing is lost: make room (delete or "
            "archive keys, or free the disk) and call cleanup() again, or cleanup(flush=False) to "
            "end without what is not durable"
        )


def running() -> list[Lifecycle]:
    """Return those that have not ended."""
    return list(_running)


def _failures(*steps: Callable[[], object]) -> list[Exception]:
    """Take every step, and return the exceptions of those that failed."""
    failures = []
    for step in steps:
        try:
            step()
        except Exception as error:
            failures.append(error)
    try:
        return failures
    finally:
        # The tracebacks refer to this frame: without this, frame, exceptions and the values in
        # them would keep each other alive until a garbage collection.
        del failures


def _is_want_of_room(error: Exception) -> bool:
    """Return whether the failed step succeeds after room was made."""
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return full or isinstance(error, TierFullError)


def _owner_collected(lifecycle: Lifecycle) -> None:
    """End the services of a collected manager; this may run in any thread, within any call."""
    if lifecycle.owners():
        return
    if lifecycle._hierarchy.state in (LifecycleState.OPEN, LifecycleState.READ_ONLY):
        lifecycle._finalizer.ask()
        lifecycle._finalizer.warn()


after_fork(_running, Lifecycle.after_fork)
