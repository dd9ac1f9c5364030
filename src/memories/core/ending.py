"""Managers that nobody has closed: forgotten ones, and those that are open at the exit.

Not the end itself, which is the engine's. The one idea: who ends unasked is given a thread of its
own and a time, and what was not done in that time is said in one line. For garbage collection may
come in the middle of anything, and neither a disk nor a bucket that hangs may keep a process.

At the interpreter's exit no thread can be begun any more, so that one is there beforehand: it waits
as long as any manager is open, and begins or does what is asked of it.
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

END_SECONDS = 8.0  # At the exit, for everything but writing values down: ten with what is around.
LAST_WRITE_SECONDS = 2.0  # Longer than that nobody waits for a write that time has overtaken.
NAMED_KEYS = 5


class Mortal(Protocol):
    """What ends."""

    @property
    def title(self) -> str:
        """What it is, in words."""

    @property
    def directory(self) -> Path | None:
        """The directory that it locks until it has ended."""

    @property
    def stage(self) -> str:
        """What it is ending just now, in words."""

    @property
    def kept(self) -> bool:
        """Whether what is only in RAM is to stay."""

    @property
    def flush_seconds(self) -> float:
        """For how long that may be written down."""

    def unwritten(self) -> list[str]:
        """Return the keys whose values are only in RAM, and should not be."""

    def write_down(self, seconds: float) -> None:
        """Write them, for as long as that."""

    def end(self) -> None:
        """End every part, and call `over`."""


class Ending:
    """The end of one manager that comes unasked, once."""

    def __init__(self, mortal: Mortal) -> None:
        self._mortal = mortal
        self._kept = False  # As it was when the end was asked for, which changes it.
        self._seconds = 0.0
        self._asked = self._warned = self._named = False
        self._written, self._ended = Latch(), Latch()
        # Finalizers run youngest first, so this one comes before that of a private directory.
        self._at_exit = weakref.finalize(_alive, _end_all)
        _alive.add(self)
        _attendant.come()

    def ask(self) -> None:
        """Have it end soon; from any thread, also from a destructor."""
        if not self._asked:
            self._asked, self._kept = True, self._mortal.kept
            self._seconds = self._mortal.flush_seconds if self._kept else 0.0
            _attendant.asked.put(self)

    @property
    def seconds(self) -> float:
        """Return for how long values may be written down."""
        return self._seconds

    def warn(self) -> None:
        """Say that nobody has closed a manager whose values were to stay."""
        if self._kept and not self._warned:
            self._warned = True
            warnings.warn(
                f"{self._mortal.title} was not closed: call cleanup(), or use it in a `with` "
                "statement",
                ResourceWarning,
                stacklevel=2,
            )

    def over(self) -> None:
        """Learn that it has ended."""
        self.forget()
        if not _alive:
            _attendant.leave()
        self._ended.set()

    def forget(self) -> None:
        """Concern oneself with it no more: it has ended, or it is the parent process's."""
        self._at_exit.detach()
        _alive.discard(self)

    def run(self) -> None:
        """Write what is to stay, then end."""
        mortal = self._mortal
        if self._seconds:
            until = _monotonic() + self._seconds
            try:
                mortal.write_down(self._seconds)
                late = "they were stored while it was ending"
                reason = late if _monotonic() < until else _TOO_LONG
            except Exception as error:
                reason = str(error)
            self._name_unwritten(reason)
        self._written.set()
        try:
            mortal.end()
        except Exception as error:
            logger.warning("%s did not end well: %s", mortal.title, error)
        self._ended.set()

    def frees(self, directory: Path) -> None:
        """Wait for the end if it is under way, and `directory` is free then."""
        if self._asked and self._mortal.directory == directory:
            self._ended.wait(END_SECONDS)

    def wait_written(self, until: float) -> None:
        """Wait until what is to stay is written."""
        if self._seconds and not self._written.wait(max(0.0, until - _monotonic())):
            self._name_unwritten(_TOO_LONG)
            if not self._mortal.unwritten():
                _say(
                    f"{self._mortal.title} was still copying a restored snapshot after "
                    "exit_flush_seconds: it holds what it held before that"
                )
            self._ended.set()  # As far as anybody waits for it.

    def wait_ended(self, until: float) -> None:
        """Wait for the end."""
        mortal = self._mortal
        if not self._ended.wait(max(0.0, until - _monotonic())):
            _say(
                f"{mortal.title} did not end in time at the interpreter's exit, waiting for "
                f"{mortal.stage}; what is durable stays so, and its next manager goes on"
            )

    def _name_unwritten(self, reason: str) -> None:
        keys = self._mortal.unwritten()
        if keys and not self._named:
            self._named = True
            _say(
                f"{_count(keys)} of {self._mortal.title} were only in RAM and are lost, for "
                f"{reason}: {some_of(keys, NAMED_KEYS)}"
            )


class _Attendant:
    """The thread that begins what is asked, or does it where no thread can be begun.

    It takes no lock, which an interrupt could leave taken: two of it do no harm.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Have no thread and nothing asked: also in a forked child, which ends no manager."""
        self.asked: SimpleQueue[Ending | None] = SimpleQueue()  # None: look whether to go.
        self._thread: threading.Thread | None = None

    def come(self) -> None:
        """Be there; whoever needs it is alive before that."""
        if self._thread is None or not self._thread.is_alive():
            thread = BackgroundThread(self._attend, "attendant")
            thread.start()
            self._thread = thread

    def leave(self) -> None:
        """Go, unless somebody has come to life."""
        thread = self._thread
        self.asked.put(None)
        if thread not in (None, threading.current_thread()) and not _alive:
            thread.join(STOP_SECONDS)

    def _attend(self) -> None:
        while True:
            ending = self.asked.get()
            if ending is not None:
                try:
                    BackgroundThread(ending.run, "end").start()
                except (RuntimeError, MemoryError):  # There can be none at the exit.
                    ending.run()
                del ending
            elif self._may_go():
                self.asked.put(None)  # For another one.
                return

    def _may_go(self) -> bool:
        """Return whether nobody is alive, also after it was said that nobody is here."""
        if not _alive:
            self._thread = None
            if not _alive:
                return True
            self._thread = threading.current_thread()
        return False


class _Alive(set[Ending]):
    """Those that have not ended. A class of its own, to be referred to weakly."""


_TOO_LONG = "writing them takes longer than exit_flush_seconds"
_monotonic = SystemClock().monotonic
_alive = _Alive()
_attendant = _Attendant()
after_fork([_attendant], _Attendant.reset)


def await_free(directory: Path) -> None:
    """Wait until those managers of a directory have ended that are garbage, each for a while."""
    for ending in list(_alive):
        ending.frees(directory)


def _end_all() -> None:
    """Let every manager end, for the interpreter does."""
    endings = list(_alive)
    if not endings:
        return
    for ending in endings:
        ending.ask()
    began = _monotonic()
    try:
        until = began + max(ending.seconds for ending in endings) + LAST_WRITE_SECONDS
        for ending in endings:
            ending.wait_written(until)
        until = _monotonic() + END_SECONDS
        for ending in endings:
            ending.wait_ended(until)
    except KeyboardInterrupt:
        for ending in endings:
            ending._name_unwritten("the interpreter's exit was interrupted")
    for ending in endings:
        ending.warn()


def _say(line: str) -> None:
    """Write a line to where errors go: nobody is left to catch one."""
    if sys.stderr is not None:
        sys.stderr.write(f"memories: {line}\n")
        sys.stderr.flush()


def _count(keys: Sequence[str]) -> str:
    return "1 value" if len(keys) == 1 else f"{len(keys)} values"
