"""Work in the background: a method that a thread of its own runs now and then, or once it is woken.

Not a pool, and nothing whose result a caller waits for. The one idea: a thread is expendable. It
holds its owner weakly and ends with it; it outlives whatever the method raises; and where it could
not be started, or died all the same, it is started again: by whoever asks for it next, or by the
next turn of any other one.

Nothing here takes a lock that an interrupt could leave taken. `threading.Event` and `Condition` do:
they enter their lock in Python, where a signal strikes between the lock and its `with`.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable
from queue import Empty, SimpleQueue

from memories.errors import ClosedError, MemoriesError
from memories.foundation.fork_lock import new_lock
from memories.foundation.logging import logger

BIRTH_SECONDS = 5.0  # A thread that does not run after so long died at birth, for want of memory.
STOP_SECONDS = 30.0
RETRY_SECONDS = 1.0
MIN_DOZE_SECONDS, MAX_DOZE_SECONDS = 1.0, 8.0


def doze_seconds(quiet_seconds: float) -> float:
    """Return how long to sleep before the next look whether anything happens, if nothing has.

    Not for what can wake a sleeper: a hit in RAM wakes nobody, for that would cost more than it.
    """
    return min(max(quiet_seconds / 8, MIN_DOZE_SECONDS), MAX_DOZE_SECONDS)


class Bell:
    """Wakes a thread that waits for it; rung by any, from destructors and signals as well."""

    __slots__ = ("_rings",)

    def __init__(self) -> None:
        self._rings: SimpleQueue[None] = SimpleQueue()

    def set(self) -> None:
        """Ring, unless it rings."""
        if self._rings.empty():
            self._rings.put(None)

    def add(self) -> None:
        """Ring once more, for one more of those who wait."""
        self._rings.put(None)

    def is_set(self) -> bool:
        """Return whether it rings."""
        return not self._rings.empty()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until it rings, and silence it; return whether it rang within `seconds`."""
        try:
            self._rings.get(timeout=seconds)
        except Empty:
            return False
        return True


class Ended:
    """Whether something has ended: set once, and seen by all who wait for it."""

    __slots__ = ("_bell", "_set")

    def __init__(self) -> None:
        self._bell = Bell()
        self._set = False

    def set(self) -> None:
        """Let it have ended."""
        self._set = True
        self._bell.set()

    def is_set(self) -> bool:
        """Return whether it has ended."""
        return self._set

    def wait(self, seconds: float) -> bool:
        """Wait up to `seconds`, and return whether it has ended."""
        if not self._set and self._bell.wait(seconds):
            self._bell.set()  # For the next who waits.
        return self._set


class Runner(threading.Thread):
    """A thread whose birth nobody awaits for ever.

    `Thread.start` waits until the new thread runs. One that finds no memory for its first call
    never does.
    """

    def __init__(self, target: Callable[[], object], name: str, *, daemon: bool = True) -> None:
        super().__init__(target=target, name=f"memories-{name}", daemon=daemon)
        self._started = _Birth()

    def start(self) -> None:
        """Start the thread.

        Raises:
            RuntimeError: there can be no more threads, or it died at birth.
        """
        super().start()
        if not self._started.is_set():
            raise RuntimeError("can't start new thread: it found no memory to begin with")

    def finish(self, seconds: float = STOP_SECONDS) -> bool:
        """Wait for its end; return whether it came within `seconds`. A thread itself: at once."""
        if self is threading.current_thread() or not self.is_alive():
            return True
        self.join(seconds)
        return not self.is_alive()


class _Birth(Ended):
    """What a thread says when it runs, in the place of the event for which `start` would wait."""

    __slots__ = ()

    def wait(self, seconds: float | None = None) -> bool:
        return super().wait(BIRTH_SECONDS if seconds is None else seconds)

    def _at_fork_reinit(self) -> None:
        """Do nothing: there is no lock that a child could find taken."""


class Periodic:
    """Calls `work` in a thread, every `seconds` and whenever it is woken, until stopped.

    Everything may be called from any thread, from a destructor and again. In a forked child it
    does nothing. What `work` raises is logged, kept as `failure` and followed by another try;
    `ClosedError` says that the owner has ended.

    Args:
        work: A bound method, whose object is not kept alive.
        name: What the thread is called, `memories-` in front of it.
        seconds: Between two calls; None for when it is woken only. `work` may change it.
        rest_seconds: At least so long between two calls, woken or not.
        retry_seconds: Until the next call after one that raised.
        bell: What wakes it besides `wake`.

    Attributes:
        failure: What the latest call raised, None once one succeeds.
    """

    def __init__(
        self,
        work: Callable[[], object],
        name: str,
        *,
        seconds: float | None = None,
        rest_seconds: float = 0.0,
        retry_seconds: float = RETRY_SECONDS,
        bell: Bell | None = None,
    ) -> None:
        self.seconds = seconds
        self.failure: BaseException | None = None
        self._rest_seconds, self._retry_seconds = rest_seconds, retry_seconds
        self._name = name
        self._bell = Bell() if bell is None else bell
        self._ended = Ended()
        self._work = weakref.WeakMethod(work, _ringing(self._bell))
        self._lock = new_lock()
        self._thread: Runner | None = None
        self._runs = False
        with _lock:
            _all.add(self)

    @property
    def stopped(self) -> bool:
        """Return whether it was told to end."""
        return self._ended.is_set()

    @property
    def thread(self) -> Runner | None:
        """Return the thread, None before there is one."""
        return self._thread

    def start(self) -> None:
        """Have the thread run, unless it does; where that fails, it is tried again later."""
        if not (self._runs or self.stopped):
            with self._lock:
                self._begin()

    def _begin(self) -> None:
        if self._runs or self.stopped:
            return  # Another was quicker.
        self._thread = Runner(self._run, self._name)
        self._runs = True
        try:
            self._thread.start()
        except (RuntimeError, MemoryError) as error:
            self._runs, self._thread = False, None
            self.failure = error
            _want(self)
            logger.warning("memories-%s is started later: %s", self._name, error)
        except BaseException:
            self._runs = False  # Interrupted: the thread, if there is one, says that it runs.
            raise

    def wake(self) -> None:
        """Have `work` called soon; starts the thread if it does not run."""
        self._bell.set()
        self.start()

    def stop(self, seconds: float = STOP_SECONDS) -> bool:
        """End the thread after the call it is at; return whether it ended within `seconds`."""
        self._ended.set()
        self._bell.set()
        thread = self._thread
        return thread is None or thread.finish(seconds)

    def leave(self) -> None:
        """In a forked child: the thread is the parent's."""
        self._runs, self._thread = True, None  # As if it ran: nobody starts one.

    def _run(self) -> None:
        me = threading.current_thread()
        with self._lock:
            if self._thread is not me:
                return  # It came too late, and another was started.
            self._runs, self.failure = True, None
        try:
            while not self.stopped:
                try:
                    self._bell.wait(self.seconds)
                    if self.stopped or not self._turn():
                        return
                    if self._rest_seconds:
                        self._ended.wait(self._rest_seconds)
                    _start_wanted()
                except BaseException as error:
                    # There was no memory to say what had failed; the next turn is another chance.
                    self.failure = error
                    time.sleep(self._retry_seconds)
        finally:
            self._runs = False
            if self.stopped:
                self._bell.set()  # For others who share it and end, too.
            elif self._work() is not None:
                _want(self)

    def _turn(self) -> bool:
        """Call `work` once; return whether there is to be another turn."""
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
            if not self.stopped:  # Else it was closed under our hands.
                self._keep(error)
                self._ended.wait(self._retry_seconds)
                if self.seconds is None:
                    self._bell.set()
        else:
            self.failure = None
        return not self.stopped

    def _keep(self, error: BaseException) -> None:
        before, self.failure = self.failure, error
        if before is None and isinstance(error, (MemoriesError, OSError)):
            logger.warning("memories-%s failed and tries again: %s", self._name, error)
        elif before is None:
            logger.exception("memories-%s failed and tries again", self._name)
        _forget_frames(error)


_lock = new_lock()
_all: weakref.WeakSet[Periodic] = weakref.WeakSet()
_wanted: weakref.WeakSet[Periodic] = weakref.WeakSet()  # Those that should run and do not.


def _want(one: Periodic) -> None:
    with _lock:
        _wanted.add(one)


def _start_wanted() -> None:
    if not _wanted:
        return
    with _lock:
        wanted = list(_wanted)
        _wanted.clear()
    for one in wanted:
        one.start()


def _ringing(bell: Bell) -> Callable[[object], None]:
    """Return what rings when an owner is gone."""

    def ring(_: object) -> None:
        bell.add()

    return ring


def _forget_frames(error: BaseException | None) -> None:
    """Cut the frames off, which would keep alive what they worked on."""
    if error is not None and error.__traceback__ is not None:
        error.__traceback__ = None
        _forget_frames(error.__cause__)
        _forget_frames(error.__context__)


def _after_fork() -> None:
    for one in list(_all):
        one.leave()


os.register_at_fork(after_in_child=_after_fork)
