"""Single flight: callers that need the same result at the same time share one computation per key.

Nothing is cached: a computation is forgotten when it has finished. If the computing call is
interrupted, or its thread or event loop has ended, one of the waiting callers computes instead.
Two functions that call each other from two threads could wait for each other for ever; a wait that
would close such a circle is refused, and its caller computes the result itself.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

from memories.foundation.call_owner import LOOKS, thread_frames
from memories.foundation.fork_lock import new_lock
from memories.foundation.periodic import AutoResetEvent

if TYPE_CHECKING:
    import asyncio
    from types import FrameType

StackOf = Callable[[threading.Thread], set[int]]
POLL_SECONDS = 0.25  # Between two checks whether the computing call is still there.


class OutcomeKind(Enum):
    """The ways in which a computation ends."""

    RESULT = "result"  # The function returned; the result is stored, or in `content`.
    ERROR = "error"  # The function raised, and would raise for the waiting callers, too.
    ABANDONED = "abandoned"  # The computing call was stopped: another one must compute.


class FlightOutcome(NamedTuple):
    """The end of a computation, as the waiting callers get it."""

    kind: OutcomeKind
    content: Any = None


ABANDONED = FlightOutcome(OutcomeKind.ABANDONED)
_innermost: ContextVar[Computation | None] = ContextVar("memories_computation", default=None)
_waits = new_lock()  # Guards `waits_for` and `_waiters` of all computations.


class Waiter:
    """A call that waits for a computation, and the outcome it gets."""

    __slots__ = ("_wake", "outcome")

    def __init__(self, wake: Callable[[], Any]) -> None:
        self.outcome = ABANDONED
        self._wake = wake

    def notify(self, outcome: FlightOutcome) -> None:
        """Wake the waiting call with the outcome."""
        self.outcome = outcome
        self._wake()


class Computation:
    """A computation in progress, or about to start; made in the frame of the computing call."""

    __slots__ = (
        "__weakref__",
        "_frame",
        "_loop",
        "_outcome",
        "_pid",
        "_task",
        "_thread",
        "_waiters",
        "finished",
        "locks",
        "outer",
        "waits_for",
    )  # fmt: skip

    def __init__(self, task: asyncio.Task[Any] | None = None) -> None:
        self.outer = _innermost.get()  # The computation that called this one.
        self.waits_for: list[Computation] = []  # Those that a call within it waits for.
        self.finished = False
        self.locks: Any = None  # Those of other processes that it may hold.
        self._outcome = ABANDONED
        self._waiters: list[Waiter] = []
        self._task = None if task is None else weakref.ref(task)
        self._loop = None if task is None else task.get_loop()
        self._frame = id(sys._getframe(1))
        self._thread = threading.current_thread()
        self._pid = os.getpid()

    def is_alive(self, stack_of: StackOf | None = None) -> bool:
        """Return whether the computing call can still finish it.

        `stack_of` returns the addresses of the frames of a thread; a caller may pass a cached one.
        """
        if self._loop is not None and self._task is not None:
            task = self._task()
            running = self._pid == os.getpid() and self._loop.is_running()
            return running and task is not None and not task.done()
        # In a forked child all threads but one have ended, and an interrupt in `finally` may have
        # prevented `finish`. A function that returns while its frames are walked ends the walk
        # early, so a call counts as over only after several walks did not find it.
        walks = (stack_of or _stack_of, *[_stack_of] * (LOOKS - 1))
        return self._thread.is_alive() and any(self._frame in walk(self._thread) for walk in walks)

    def enter(self) -> None:
        """Make this the outer computation of those that are called from here on."""
        _innermost.set(self)

    def finish(self, outcome: FlightOutcome) -> None:
        """Give the outcome to all waiting calls; later calls of this have no effect."""
        if _innermost.get() is self:
            _innermost.set(self.outer)
        with _waits:
            if not self.finished:
                self.finished, self._outcome = True, outcome
            while self._waiters:  # A loop, because an interrupt may come in between.
                self._waiters[-1].notify(self._outcome)
                self._waiters.pop()
            self._outcome = ABANDONED  # An error would refer to a frame that refers to this.

    def wait(self, caller: Computation) -> FlightOutcome | None:
        """Return the outcome; None where `caller` must not wait for it."""
        # The computation of this thread stops while it waits: in a signal handler, for example.
        is_own = self._task is None and self._thread is threading.current_thread()
        if is_own or not _begin_to_wait(caller, self):
            return None
        try:
            wake_event = AutoResetEvent()
            waiter = self._add_waiter(wake_event.set)
            while not wake_event.wait(POLL_SECONDS):
                self._check_alive()
            return waiter.outcome
        finally:
            _end_wait(caller, self)

    async def wait_async(self, caller: Computation) -> FlightOutcome | None:
        """Like `wait`, for a task of any event loop."""
        import asyncio

        if not _begin_to_wait(caller, self):
            return None
        try:
            loop = asyncio.get_running_loop()
            notified: asyncio.Future[None] = loop.create_future()

            def wake() -> None:
                if not notified.done():
                    notified.set_result(None)

            def wake_loop() -> None:
                try:
                    loop.call_soon_threadsafe(wake)
                except RuntimeError:  # The loop is closed, and with it the waiting task.
                    return

            waiter = self._add_waiter(wake_loop)
            # Unlike `wait_for` it leaves the future alone when this task is cancelled.
            while not (await asyncio.wait({notified}, timeout=POLL_SECONDS))[0]:
                self._check_alive()
            return waiter.outcome
        finally:
            _end_wait(caller, self)

    def _add_waiter(self, wake: Callable[[], Any]) -> Waiter:
        waiter = Waiter(wake)
        with _waits:
            self._waiters.append(waiter)
        if self.finished:  # It may have finished before the waiter was added.
            self.finish(ABANDONED)
        return waiter

    def _check_alive(self) -> None:
        if not self.is_alive():
            self.finish(ABANDONED)


def _stack_of(thread: threading.Thread) -> set[int]:
    """Return the addresses of the frames of a thread."""
    is_own = thread.ident == threading.get_ident()
    frame: FrameType | None = sys._getframe() if is_own else thread_frames().get(thread.ident or 0)
    found = set[int]()
    while frame is not None:
        found.add(id(frame))
        frame = frame.f_back
    return found


def dead_among(computations: Iterable[Computation]) -> list[Computation]:
    """Return the computations that cannot finish any more; each stack is walked once.

    A recursion has as many computations as frames, and calls this at every level.
    """
    stack_of = functools.cache(_stack_of)
    return [computation for computation in computations if not computation.is_alive(stack_of)]


class SingleFlight:
    """The computations in progress, by key.

    Attributes:
        finished: How many have finished so far.
    """

    def __init__(self) -> None:
        self.finished = 0
        self._running: dict[str, Computation] = {}
        self._lock = new_lock()

    def register(self, key: str, computation: Computation) -> Computation | None:
        """Register `computation` for `key`; if another one is in progress, return that instead."""
        with self._lock:
            other = self._running.get(key)
            if other is None or other.finished or not other.is_alive():
                self._running[key] = computation
                return None
            return other

    def finish(self, key: str, computation: Computation, outcome: FlightOutcome) -> None:
        """Remove a computation, and give its outcome to the waiting calls."""
        with self._lock:
            self.finished += 1  # First: after the next line another call may look for the result.
            if self._running.get(key) is computation:
                del self._running[key]
        computation.finish(outcome)


def _begin_to_wait(caller: Computation, computation: Computation) -> bool:
    """Record that `caller` waits for `computation`; False if that would close a circle of waits."""
    chain = _chain(caller)
    with _waits:
        if _leads_to(computation, chain):
            return False
        for waiting in chain:
            waiting.waits_for.append(computation)
        return True


def _end_wait(caller: Computation, computation: Computation) -> None:
    with _waits:
        for waiting in _chain(caller):
            waiting.waits_for.remove(computation)


def _chain(computation: Computation) -> list[Computation]:
    chain = []
    outer: Computation | None = computation
    while outer is not None:
        chain.append(outer)
        outer = outer.outer
    return chain


def _leads_to(computation: Computation, chain: list[Computation]) -> bool:
    """Return whether `computation` waits for one of `chain`, directly or through others."""
    targets, seen, todo = set(map(id, chain)), set[int](), [computation]
    while todo:
        current = todo.pop()
        if id(current) in targets:
            return True
        if id(current) not in seen:
            seen.add(id(current))
            todo += current.waits_for
    return False
