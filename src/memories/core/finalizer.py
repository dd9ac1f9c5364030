"""Ends managers that were not closed: garbage-collected ones, and those open at the exit.

The end runs in a thread of its own and has a limited time, and what was not done by then is
reported in one line. Garbage collection may start within any call of any thread, so the collected
manager must not end there; and a disk or a bucket that hangs must not keep the process alive.

No thread can be started during the exit of the interpreter. One is therefore started beforehand: it
waits as long as any manager is open, and starts the thread of each end, or runs the end itself.
"""

from __future__ import annotations

import sys
import threading
import warnings
import weakref
from collections.abc import Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Protocol

from memories.foundation.clock import SystemClock
from memories.foundation.forks import after_fork
from memories.foundation.keys import some_of
from memories.foundation.logging import logger
from memories.foundation.periodic import STOP_SECONDS, BackgroundThread, Latch

END_SECONDS = 8.0  # At the exit, for everything but writing values; ten in all with the rest.
LAST_WRITE_SECONDS = 2.0  # How long the exit waits for a write that exceeded its time.
NAMED_KEYS = 5


class Finalizable(Protocol):
    """What a finalizer ends."""

    @property
    def current_step(self) -> str:
        """A description of what ends at the moment."""

    @property
    def saves_at_end(self) -> bool:
        """Whether values that are only in RAM must be written before the end."""

    def unwritten(self) -> list[str]:
        """Return the keys whose values are only in RAM, without those that may be dropped."""

    def write_volatile(self, seconds: float) -> None:
        """Write what is only in RAM, for at most `seconds`."""

    def abandon(self) -> None:
        """End every part; the last of them calls `Finalizer.over`."""


class Finalizer:
    """Ends one manager that was not closed, once.

    Args:
        target: What ends.
        title: What the messages call it.
        directory: The directory that stays locked until it has ended.
        flush_seconds: How long its values may take to be written.
    """

    def __init__(
        self, target: Finalizable, *, title: str, directory: Path | None, flush_seconds: float
    ) -> None:
        self._target = target
        self._title = title
        self._directory = directory
        self._flush_seconds = flush_seconds
        self._saves = False  # As it was when the end was requested: the end itself changes it.
        self._seconds = 0.0
        self._asked = self._warned = self._named = False
        self._written, self._ended = Latch(), Latch()
        # Finalizers run youngest first, so this one runs before that of a private directory.
        self._at_exit = weakref.finalize(_open, _end_all)
        _open.add(self)
        _finalizer_thread.start()

    def ask(self) -> None:
        """Request the end; from any thread, also from a destructor."""
        if not self._asked:
            self._asked, self._saves = True, self._target.saves_at_end
            self._seconds = self._flush_seconds if self._saves else 0.0
            _finalizer_thread.requests.put(self)

    @property
    def seconds(self) -> float:
        """Return how long values may take to be written."""
        return self._seconds

    def warn(self) -> None:
        """Warn that a manager with values to save was not closed."""
        if self._saves and not self._warned:
            self._warned = True
            warnings.warn(
                f"{self._title} was not closed: call cleanup(), or use it in a `with` statement",
                ResourceWarning,
                stacklevel=2,
            )

    def over(self) -> None:
        """Record that the target has ended."""
        self.forget()
        if not _open:
            _finalizer_thread.stop()
        self._ended.set()

    def forget(self) -> None:
        """Stop watching the target: it has ended, or it belongs to the parent process."""
        self._at_exit.detach()
        _open.discard(self)

    def run(self) -> None:
        """Write what is to be saved, then end the target."""
        target = self._target
        if self._seconds:
            until = _monotonic() + self._seconds
            try:
                target.write_volatile(self._seconds)
                late = "they were stored while it was ending"
                reason = late if _monotonic() < until else _TOO_LONG
            except Exception as error:
                reason = str(error)
            self.report_unwritten(reason)
        self._written.set()
        try:
            target.abandon()
        except Exception as error:
            logger.warning("%s did not end well: %s", self._title, error)
        self._ended.set()

    def wait_for_directory(self, directory: Path) -> None:
        """Wait for the end if it was requested and unlocks `directory`."""
        if self._asked and self._directory == directory:
            self._ended.wait(END_SECONDS)

    def wait_written(self, until: float) -> None:
        """Wait until what is to be saved is written."""
        if self._seconds and not self._written.wait(max(0.0, until - _monotonic())):
            self.report_unwritten(_TOO_LONG)
            if not self._target.unwritten():
                _print(
                    f"{self._title} was still copying a restored snapshot after "
                    "exit_flush_seconds: it holds what it held before that"
                )
            self._ended.set()  # Nothing waits for it any longer.

    def wait_ended(self, until: float) -> None:
        """Wait for the end."""
        if not self._ended.wait(max(0.0, until - _monotonic())):
            _print(
                f"{self._title} did not end in time at the interpreter's exit, waiting for "
                f"{self._target.current_step}; durable values stay durable, and the next manager "
                "of the store continues"
            )

    def report_unwritten(self, reason: str) -> None:
        """Report the values that are lost, once."""
        keys = self._target.unwritten()
        if keys and not self._named:
            self._named = True
            _print(
                f"{_count(keys)} of {self._title} were only in RAM and are lost, for "
                f"{reason}: {some_of(keys, NAMED_KEYS)}"
            )


class _FinalizerThread:
    """The thread that starts a thread for each requested end, or runs the end where it cannot.

    It takes no lock, which an interrupt could leave locked: two such threads do no harm.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget the thread and the requests: in a forked child neither is there."""
        self.requests: SimpleQueue[Finalizer | None] = SimpleQueue()  # None: check whether to stop.
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread, unless it runs; call it after something was added to `_open`."""
        if self._thread is None or not self._thread.is_alive():
            thread = BackgroundThread(self._serve, "finalizer")
            thread.start()
            self._thread = thread

    def stop(self) -> None:
        """End the thread, unless another manager was opened meanwhile."""
        thread = self._thread
        self.requests.put(None)
        if thread not in (None, threading.current_thread()) and not _open:
            thread.join(STOP_SECONDS)

    def _serve(self) -> None:
        while True:
            request = self.requests.get()
            if request is not None:
                try:
                    BackgroundThread(request.run, "end").start()
                except (RuntimeError, MemoryError):  # No thread can be started at the exit.
                    request.run()
                del request
            elif self._may_stop():
                self.requests.put(None)  # For a second thread, if there is one.
                return

    def _may_stop(self) -> bool:
        """Return whether no manager is open.

        Thread 1 (this one) finds `_open` empty. Thread 2 opens a manager and finds this thread
        alive, so that it starts none. `_open` is therefore checked again after `_thread` is None.
        """
        if not _open:
            self._thread = None
            if not _open:
                return True
            self._thread = threading.current_thread()
        return False


class _Open(set[Finalizer]):
    """The finalizers of managers that have not ended. A class of its own for a weak reference."""


_TOO_LONG = "writing them takes longer than exit_flush_seconds"
_monotonic = SystemClock().monotonic
_open = _Open()
_finalizer_thread = _FinalizerThread()
after_fork([_finalizer_thread], _FinalizerThread.reset)


def wait_for_directory(directory: Path) -> None:
    """Wait, for a limited time, until collected managers have unlocked `directory`."""
    for finalizer in list(_open):
        finalizer.wait_for_directory(directory)


def _end_all() -> None:
    """End every open manager, at the exit of the interpreter."""
    finalizers = list(_open)
    if not finalizers:
        return
    for finalizer in finalizers:
        finalizer.ask()
    began = _monotonic()
    try:
        until = began + max(finalizer.seconds for finalizer in finalizers) + LAST_WRITE_SECONDS
        for finalizer in finalizers:
            finalizer.wait_written(until)
        until = _monotonic() + END_SECONDS
        for finalizer in finalizers:
            finalizer.wait_ended(until)
    except KeyboardInterrupt:
        for finalizer in finalizers:
            finalizer.report_unwritten("the interpreter's exit was interrupted")
    for finalizer in finalizers:
        finalizer.warn()


def _print(line: str) -> None:
    """Write a line to standard error: at the exit no caller is left to catch an exception."""
    if sys.stderr is not None:
        sys.stderr.write(f"memories: {line}\n")
        sys.stderr.flush()


def _count(keys: Sequence[str]) -> str:
    return "1 value" if len(keys) == 1 else f"{len(keys)} values"
