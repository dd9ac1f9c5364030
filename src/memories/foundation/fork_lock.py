"""Locks that are free in a forked child, and file locks that are waited for with a limit."""

from __future__ import annotations

import fcntl
import os
import threading
import time
import weakref
from collections.abc import Callable
from operator import call
from typing import Any, Self

from memories.errors import BusyError
from memories.foundation.forks import after_fork

FILE_SECONDS = 30.0  # Longer than any holder of a file lock works on the file.
_LOOK_SECONDS = 0.01

_locks: weakref.WeakSet[Any] = weakref.WeakSet()
after_fork(_locks, lambda lock: lock._at_fork_reinit())
_collecting: dict[int, list[threading.RLock]] = {}  # By thread: the locks of what it makes.


def new_lock(*, outermost: bool = False) -> threading.RLock:
    """Return a reentrant lock that is free in a forked child.

    The only thread of the child did not hold it, and the guarded state is at worst in the middle of
    one short update. The lock is reentrant because a signal handler or a destructor may run while
    its own thread holds it, and would wait for ever. What it calls is refused (`HeldLocks`).

    An `outermost` lock is one that a thread acquires only while it holds no other: calls of the
    manager are made under it, and no holder of another lock waits for it.
    """
    lock = threading.RLock()
    _locks.add(lock)
    collected = _collecting.get(threading.get_ident())
    if collected is not None and not outermost:
        collected.append(lock)
    return lock


class HeldLocks:
    """Tests whether the calling thread holds one of the locks that were made in a `with` block.

    A signal handler, a weak-reference callback or a destructor may run in the middle of any code,
    also while its thread holds a lock. If it waited for another lock, whose holder waits for that
    one, both would wait for ever; and what the lock guards may be half changed.
    """

    def __init__(self) -> None:
        self._tests: tuple[Callable[[], bool], ...] = ()

    def __enter__(self) -> Self:
        _collecting[threading.get_ident()] = []
        return self

    def __exit__(self, *error: object) -> None:
        self._tests = tuple(map(holder_test, _collecting.pop(threading.get_ident(), [])))

    def any_here(self) -> bool:
        """Return whether this thread holds one; some 20 ns for each of them."""
        return True in map(call, self._tests)


def interrupting() -> BusyError:
    """Return the error for a call in the middle of another one of the same thread."""
    return BusyError(
        "this thread is in the middle of another call of the manager, which a signal handler or a "
        "destructor interrupts: set a flag there, or raise"
    )


def holds_none() -> bool:
    """Return False, for an object whose locks are not known yet."""
    return False


def is_held_here(lock: threading.RLock) -> bool:
    """Return whether this thread holds `lock`."""
    return holder_test(lock)()


def holder_test(lock: threading.RLock) -> Callable[[], bool]:
    """Return a function that returns whether the calling thread holds `lock`."""
    test: Callable[[], bool] = lock._is_owned  # type: ignore[attr-defined]
    return test


class OpenDirectory:
    """A descriptor of a directory, closed by `close` or when this object is garbage.

    A failure during the release must not leave a lock on the descriptor behind.
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
    """Lock an open file for this process, waiting for other processes; `path` names the file.

    Raises:
        BusyError: another process has held the lock for too long: it was stopped, or hangs.
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
        "stopped, or its disk does not respond: resume it, or end it"
    )
