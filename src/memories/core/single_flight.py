"""Single flight: whoever asks for what is being computed waits for it, once per key.

Not a cache: a flight is forgotten when it lands. What happens to the one who computes is his own
affair: if he is interrupted, or his thread or event loop is gone, one of those who wait computes in
his place. A wait that could never end, because the one waited for waits in turn (two functions that
call each other from two threads), is not begun: its caller computes for himself.
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

from memories.foundation.call_owner import thread_frames
from memories.foundation.fork_lock import new_lock
from memories.foundation.periodic import AutoResetEvent

if TYPE_CHECKING:
    import asyncio
    from types import FrameType

StackOf = Callable[[threading.Thread], set[int]]
LOOK_SECONDS = 0.25  # Between two looks at whether the one who computes is still there.


class How(Enum):
    """How a flight ended."""

    RESULT = "result"  # With what was computed, or a way to get at it.
    ERROR = "error"  # The function raised, and would raise for the others as well.
    LEFT = "left"  # Whoever computed was stopped: somebody else has to.


class Outcome(NamedTuple):
    """What those who wait are told."""

    how: How
    content: Any = None


LEFT = Outcome(How.LEFT)
_innermost: ContextVar[Flight | None] = ContextVar("memories_flight", default=None)
_waits = new_lock()  # Guards what flights wait for, across all functions.


class Seat:
    """One who waits for a flight, and what he is told."""

    __slots__ = ("_ring", "outcome")

    def __init__(self, ring: Callable[[], Any]) -> None:
        self.outcome = LEFT
        self._ring = ring

    def tell(self, outcome: Outcome) -> None:
        """Wake him up with how the flight ended."""
        self.outcome = outcome
        self._ring()


class Flight:
    """One computation under way, or about to be; made in the frame of the call that computes."""

    __slots__ = (
        "__weakref__", "_frame", "_loop", "_outcome", "_pid", "_seats", "_task", "_thread",
        "landed", "outer", "waits_for",
    )  # fmt: skip

    def __init__(self, task: asyncio.Task[Any] | None = None) -> None:
        self.outer = _innermost.get()  # The flight during which this one was begun.
        self.waits_for: list[Flight] = []  # For which somebody aboard waits.
        self.landed = False
        self._outcome = LEFT
        self._seats: list[Seat] = []
        self._task = None if task is None else weakref.ref(task)
        self._loop = None if task is None else task.get_loop()
        self._frame = id(sys._getframe(1))
        self._thread = threading.current_thread()
        self._pid = os.getpid()

    def is_alive(self, stack_of: StackOf | None = None) -> bool:
        """Return whether somebody can still bring it to an end.

        `stack_of` says where the frames lie that a thread is in, if somebody knows.
        """
        if self._loop is not None and self._task is not None:
            task = self._task()
            running = self._pid == os.getpid() and self._loop.is_running()
            return running and task is not None and not task.done()
        # In a forked child all threads but one have ended; and an interrupt in `finally` may have
        # kept a call from landing.
        return self._thread.is_alive() and self._frame in (stack_of or _stack_of)(self._thread)

    def take_off(self) -> None:
        """Take what is called from here on as called during this flight."""
        _innermost.set(self)

    def land(self, outcome: Outcome) -> None:
        """Tell everybody how it ended; only the first to say so is heard. Idempotent."""
        if _innermost.get() is self:
            _innermost.set(self.outer)
        with _waits:
            if not self.landed:
                self.landed, self._outcome = True, outcome
            while self._seats:  # An interrupt may have come in between.
                self._seats[-1].tell(self._outcome)
                self._seats.pop()
            self._outcome = LEFT  # An error leads to the frame that holds the flight.

    def wait(self, passenger: Flight) -> Outcome | None:
        """Return how the flight ended; None where `passenger` must not wait for it."""
        # What the same thread computes does not go on while it waits, in a signal handler say.
        mine = self._task is None and self._thread is threading.current_thread()
        if mine or not _begin_to_wait(passenger, self):
            return None
        try:
            wake_event = AutoResetEvent()
            seat = self._take_seat(wake_event.set)
            while not wake_event.wait(LOOK_SECONDS):
                self._look()
            return seat.outcome
        finally:
            _end_wait(passenger, self)

    async def wait_async(self, passenger: Flight) -> Outcome | None:
        """Do the same for a task of any event loop."""
        import asyncio

        if not _begin_to_wait(passenger, self):
            return None
        try:
            loop = asyncio.get_running_loop()
            told: asyncio.Future[None] = loop.create_future()

            def wake() -> None:
                if not told.done():
                    told.set_result(None)

            def ring() -> None:
                try:
                    loop.call_soon_threadsafe(wake)
                except RuntimeError:  # The loop has been closed: he waits no longer.
                    return

            seat = self._take_seat(ring)
            # Unlike `wait_for` it leaves the future alone when this task is cancelled.
            while not (await asyncio.wait({told}, timeout=LOOK_SECONDS))[0]:
                self._look()
            return seat.outcome
        finally:
            _end_wait(passenger, self)

    def _take_seat(self, ring: Callable[[], Any]) -> Seat:
        seat = Seat(ring)
        with _waits:
            self._seats.append(seat)
        if self.landed:  # Just now, perhaps before it was known who waits.
            self.land(LEFT)
        return seat

    def _look(self) -> None:
        if not self.is_alive():
            self.land(LEFT)


def _stack_of(thread: threading.Thread) -> set[int]:
    """Return where the frames lie that a thread is in."""
    mine = thread.ident == threading.get_ident()
    frame: FrameType | None = sys._getframe() if mine else thread_frames().get(thread.ident or 0)
    found = set[int]()
    while frame is not None:
        found.add(id(frame))
        frame = frame.f_back
    return found


def dead_among(flights: Iterable[Flight]) -> list[Flight]:
    """Return those that nobody can bring to an end; each thread's stack is walked once.

    A recursion has as many flights as frames, and looks each time it goes deeper.
    """
    stack_of = functools.cache(_stack_of)
    return [flight for flight in flights if not flight.is_alive(stack_of)]


class Flights:
    """The computations under way, by key."""

    def __init__(self) -> None:
        self._flights: dict[str, Flight] = {}
        self._lock = new_lock()

    def board(self, key: str, flight: Flight) -> Flight | None:
        """Make `flight` the one of `key`; or return the one that is under way already."""
        with self._lock:
            other = self._flights.get(key)
            if other is None or other.landed or not other.is_alive():
                self._flights[key] = flight
                return None
            return other

    def land(self, key: str, flight: Flight, outcome: Outcome) -> None:
        """Forget a flight and tell its passengers; nothing happens if there are none."""
        with self._lock:
            if self._flights.get(key) is flight:
                del self._flights[key]
        flight.land(outcome)


def _begin_to_wait(passenger: Flight, flight: Flight) -> bool:
    """Note that those aboard which `passenger` comes from wait for `flight`, unless it for them."""
    chain = _chain(passenger)
    with _waits:
        if _leads_to(flight, chain):
            return False
        for waiting in chain:
            waiting.waits_for.append(flight)
        return True


def _end_wait(passenger: Flight, flight: Flight) -> None:
    with _waits:
        for waiting in _chain(passenger):
            waiting.waits_for.remove(flight)


def _chain(flight: Flight) -> list[Flight]:
    chain = []
    outer: Flight | None = flight
    while outer is not None:
        chain.append(outer)
        outer = outer.outer
    return chain


def _leads_to(flight: Flight, chain: list[Flight]) -> bool:
    """Return whether `flight` waits for one of `chain`, directly or through others."""
    targets, seen, todo = set(map(id, chain)), set[int](), [flight]
    while todo:
        current = todo.pop()
        if id(current) in targets:
            return True
        if id(current) not in seen:
            seen.add(id(current))
            todo += current.waits_for
    return False
