"""Background threads: each calls one method at an interval, or when it is woken.

A thread refers to its owner weakly and ends when the owner is garbage. It survives every exception
of the method. A thread that could not be started, or that died, is started again: by the next call
of `start`, or after the next call of any other periodic thread. Tasks whose result a caller waits
for belong in `worker_pool`.

This module has its own events because an interrupt can leave the lock of `threading.Event` or
`threading.Condition` locked: they acquire it in Python code, and a signal handler may raise between
the acquisition and the `with` block.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from queue import Empty, SimpleQueue

from memories.errors import ClosedError, MemoriesError
from memories.foundation.fork_lock import new_lock
from memories.foundation.forks import after_fork
from memories.foundation.logging import logger

START_SECONDS = 5.0  # A thread that does not run by then died at its start, for lack of memory.
STOP_SECONDS = 30.0
RETRY_SECONDS = 1.0
MIN_IDLE_SECONDS, MAX_IDLE_SECONDS = 1.0, 8.0


def idle_poll_seconds(quiet_seconds: float) -> float:
    """Return how long to sleep before the next poll, after `quiet_seconds` without activity.

    For activity that cannot wake a thread, such as hits in RAM: waking one costs more than the hit.
    """
    return min(max(quiet_seconds / 8, MIN_IDLE_SECONDS), MAX_IDLE_SECONDS)


class AutoResetEvent:
    """An event that each successful `wait` resets.

    Safe to set from any thread, from a destructor and from a signal handler.
    """

    __slots__ = ("_tokens",)

    def __init__(self) -> None:
        self._tokens: SimpleQueue[None] = SimpleQueue()

    def set(self) -> None:
        """Set the event, unless it is set."""
        if self._tokens.empty():
            self._tokens.put(None)

    def add(self) -> None:
        """Set the event once more, so that one more waiting thread is woken."""
        self._tokens.put(None)

    def is_set(self) -> bool:
        """Return whether the event is set."""
        return not self._tokens.empty()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait up to `seconds` for the event and reset it; return whether it was set."""
        try:
            self._tokens.get(timeout=seconds)
        except Empty:
            return False
        return True


class Latch:
    """An event that is set once, for ever, and wakes every waiting thread."""

    __slots__ = ("_event", "_set")

    def __init__(self) -> None:
        self._event = AutoResetEvent()
        self._set = False

    def set(self) -> None:
        """Set the latch and wake every thread that waits."""
        self._set = True
        self._event.set()

    def is_set(self) -> bool:
        """Return whether the latch is set."""
        return self._set

    def wait(self, seconds: float) -> bool:
        """Wait up to `seconds`, and return whether the latch is set."""
        if not self._set and self._event.wait(seconds):
            self._event.set()  # For the next thread that waits.
        return self._set


class BackgroundThread(threading.Thread):
    """A thread whose `start` returns in bounded time.

    `Thread.start` waits until the new thread runs, and a thread that has no memory for its first
    call never does.
    """

    def __init__(self, target: Callable[[], object], name: str, *, daemon: bool = True) -> None:
        super().__init__(target=target, name=f"memories-{name}", daemon=daemon)
        self._started = _StartedLatch()

    def start(self) -> None:
        """Start the thread.

        Raises:
            RuntimeError: no more threads can be started, or this one died at its start.
        """
        super().start()
        if not self._started.is_set():
            raise RuntimeError("can't start new thread: it had no memory for its first call")

    def join_within(self, seconds: float = STOP_SECONDS) -> bool:
        """Wait up to `seconds` for the end of the thread and return whether it ended.

        Called from the thread itself, it returns True at once.
        """
        if self is threading.current_thread() or not self.is_alive():
            return True
        self.join(seconds)
        return not self.is_alive()


class _StartedLatch(Latch):
    """Replaces the event for which `Thread.start` waits, with a limit to the wait."""

    __slots__ = ()

    def wait(self, seconds: float | None = None) -> bool:
        return super().wait(START_SECONDS if seconds is None else seconds)

    def _at_fork_reinit(self) -> None:
        """Do nothing: the latch has no lock that a forked child could find locked."""


class Periodic:
    """Calls `work` in a thread, every `seconds` and whenever it is woken, until stopped.

    Every method may be called from any thread, from a destructor, and repeatedly. In a forked child
    the methods do nothing. An exception of `work` is logged, stored as `failure`, and followed by
    another try; `ClosedError` means that the owner is closed, and ends the thread.

    Args:
        work: A bound method; its object is referred to weakly.
        name: The name of the thread, after `memories-`.
        seconds: The time between two calls; None to call only when woken. `work` may change it.
        rest_seconds: The minimum pause between two calls, even if woken.
        retry_seconds: The pause after a call that raised.
        wake_event: An event that wakes the thread, besides `wake`.

    Attributes:
        failure: The exception of the latest call, None after a call that succeeded.
        runs: Whether the thread runs.
    """

    def __init__(
        self,
        work: Callable[[], object],
        name: str,
        *,
        seconds: float | None = None,
        rest_seconds: float = 0.0,
        retry_seconds: float = RETRY_SECONDS,
        wake_event: AutoResetEvent | None = None,
    ) -> None:
        self.seconds = seconds
        self.failure: BaseException | None = None
        self._rest_seconds, self._retry_seconds = rest_seconds, retry_seconds
        self._name = name
        self._wake_event = AutoResetEvent() if wake_event is None else wake_event
        self._ended = Latch()
        self._work = weakref.WeakMethod(work, _waker(self._wake_event))
        self._lock = new_lock()
        self._thread: BackgroundThread | None = None
        self.runs = False
        with _lock:
            _all.add(self)

    @property
    def stopped(self) -> bool:
        """Return whether `stop` was called, or the owner is gone."""
        return self._ended.is_set()

    @property
    def thread(self) -> BackgroundThread | None:
        """Return the thread, None before the first start."""
        return self._thread

    def start(self) -> None:
        """Start the thread unless it runs; a start that fails is tried again later."""
        if not (self.runs or self.stopped):
            with self._lock:
                self._start_thread()

    def _start_thread(self) -> None:
        if self.runs or self.stopped:
            return  # Another thread has started it.
        self._thread = BackgroundThread(self._run, self._name)
        self.runs = True
        try:
            self._thread.start()
        except (RuntimeError, MemoryError) as error:
            self.runs, self._thread = False, None
            self.failure = error
            _request_start(self)
            logger.warning("memories-%s is started later: %s", self._name, error)
        except BaseException:
            self.runs = False  # Interrupted: if the thread started, it sets `runs` itself.
            raise

    def wake(self) -> None:
        """Have `work` called soon; start the thread if it does not run."""
        self._wake_event.set()
        self.start()

    def stop(self, seconds: float = STOP_SECONDS) -> bool:
        """End the thread after its current call; return whether it ended within `seconds`."""
        self._ended.set()
        self._wake_event.set()
        thread = self._thread
        return thread is None or thread.join_within(seconds)

    def disable_in_child(self) -> None:
        """Start no thread in a forked child: the owner belongs to the parent."""
        self.runs, self._thread = True, None  # As if it ran, so that `start` does nothing.

    def _run(self) -> None:
        me = threading.current_thread()
        with self._lock:
            if self._thread is not me:
                return  # This thread started too late, and another one has replaced it.
            self.runs, self.failure = True, None
        try:
            while not self.stopped:
                try:
                    self._wake_event.wait(self.seconds)
                    if self.stopped or not self._call_work():
                        return
                    if self._rest_seconds:
                        self._ended.wait(self._rest_seconds)
                    _start_requested()
                except BaseException as error:
                    # There was no memory even to log the failure; try again after a pause.
                    self.failure = error
                    time.sleep(self._retry_seconds)
        finally:
            self.runs = False
            if self.stopped:
                self._wake_event.set()  # For other threads that share the event and must end, too.
            elif self._work() is not None:
                _request_start(self)

    def _call_work(self) -> bool:
        """Call `work` once; return whether to go on."""
        work = self._work()
        if work is None:
            self._ended.set()
            return False
        try:
            work()
        except ClosedError:
            self._ended.set()
        except BaseException as error:
            del work
            if not self.stopped:  # Otherwise the failure may come from the owner's end.
                self._record_failure(error)
                self._ended.wait(self._retry_seconds)
                if self.seconds is None:
                    self._wake_event.set()
        else:
            self.failure = None
        return not self.stopped

    def _record_failure(self, error: BaseException) -> None:
        before, self.failure = self.failure, error
        if before is None and isinstance(error, (MemoriesError, OSError)):
            logger.warning("memories-%s failed and tries again: %s", self._name, error)
        elif before is None:
            logger.exception("memories-%s failed and tries again", self._name)
        _clear_tracebacks(error)


_lock = new_lock()
_all: weakref.WeakSet[Periodic] = weakref.WeakSet()
after_fork(_all, Periodic.disable_in_child)
_requested: weakref.WeakSet[Periodic] = weakref.WeakSet()  # Threads that should run but do not.


def _request_start(one: Periodic) -> None:
    with _lock:
        _requested.add(one)


def _start_requested() -> None:
    if not _requested:
        return
    with _lock:
        requested = list(_requested)
        _requested.clear()
    for one in requested:
        one.start()


def _waker(event: AutoResetEvent) -> Callable[[object], None]:
    """Return the callback of a weak reference that wakes the thread when its owner is gone."""

    def wake(_: object) -> None:
        event.add()

    return wake


def _clear_tracebacks(error: BaseException | None) -> None:
    """Remove the tracebacks, whose frames would keep values alive."""
    if error is not None and error.__traceback__ is not None:
        error.__traceback__ = None
        _clear_tracebacks(error.__cause__)
        _clear_tracebacks(error.__context__)
