"""Locks that a forked child finds free, and locks on files for which nobody waits for ever."""

from __future__ import annotations

import fcntl
import os
import threading
import time
import weakref
from typing import Any

from memories.errors import BusyError
from memories.foundation.forks import after_fork

FILE_SECONDS = 30.0  # Longer than whoever holds the lock of a file is at work on it.
_LOOK_SECONDS = 0.01

_locks: weakref.WeakSet[Any] = weakref.WeakSet()
after_fork(_locks, lambda lock: lock._at_fork_reinit())


def new_lock() -> threading.RLock:
    """Return a lock that a forked child finds free, and that its own thread may take again.

    The child has one thread, which did not hold it: there is nothing to wait for, and what the
    lock guards is at worst one short update behind. A signal handler, or a destructor, may read
    while its thread holds the lock: it would wait for ever, so it gets in. It may not change
    anything then (`engine.operations`).
    """
    lock = threading.RLock()
    _locks.add(lock)
    return lock


def is_held_here(lock: threading.RLock) -> bool:
    """Return whether this thread holds `lock`."""
    mine: bool = lock._is_owned()  # type: ignore[attr-defined]
    return mine


class OpenDirectory:
    """A descriptor of a directory, which ends with `close` or with whoever holds it.

    A failure in the middle of letting go must not leave the lock behind that hangs on it.
    """

    descriptor = -1

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        """Unlock and close it. Idempotent."""
        if self.descriptor >= 0:
            fcntl.flock(self.descriptor, fcntl.LOCK_UN)
            descriptor, self.descriptor = self.descriptor, -1
            os.close(descriptor)

    def __del__(self) -> None:
        self.close()


def lock_file(descriptor: int, path: str | os.PathLike[str]) -> None:
    """Lock an open file for this process, as soon as no other one has it; `path` names it.

    Raises:
        BusyError: another process has held it for too long: it was stopped, or hangs.
    """
    for _ in range(int(FILE_SECONDS / _LOOK_SECONDS)):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_LOOK_SECONDS)
        else:
            return
    raise BusyError(
        f"another process has held the lock of {os.fspath(path)} for {FILE_SECONDS:.0f} s; it was "
        "stopped, or its disk does not answer: let it go on, or end it"
    )
