"""Locks on results: of all processes that share a store, one computes a result at a time.

The lock of a key is one byte in a file that all of them open. The kernel releases it when its
process ends, however it ends, and a forked child does not inherit it.
"""

from __future__ import annotations

import fcntl
import os
import stat
import weakref
from pathlib import Path

from xxhash import xxh3_64_intdigest

from memories.core.single_flight import Computation
from memories.errors import StorageError
from memories.foundation.fork_lock import new_lock
from memories.foundation.forks import after_fork
from memories.foundation.logging import logger

FILE_NAME = "shared.computing"


class ComputationLocks:
    """The locks of one store, in this process.

    A lock that cannot be had because of the file system is taken for one that is free: a result is
    then computed twice, and no call fails.

    Args:
        directory: The directory of the store.
        seconds: How long a call waits for the computation of another process.
        nested_seconds: How long it waits within another computation.
    """

    def __init__(self, directory: Path, seconds: float, nested_seconds: float) -> None:
        self.seconds = seconds
        self.nested_seconds = min(seconds, nested_seconds)
        self._path = directory / FILE_NAME
        self._lock = new_lock()
        self._held: dict[str, Computation] = {}
        self._descriptor = -1
        self._closed = False
        _all.add(self)

    def acquire(self, key: str, computation: Computation) -> bool:
        """Acquire the lock of `key`, unless another computation holds it; do not wait."""
        with self._lock:
            # The kernel knows processes only: of this one, several copies of a cached function may
            # compute the same result.
            other = self._held.get(key)
            if other is not None and other is not computation and _is_running(other):
                return False
            if self._closed:
                return True
            # First noted, then locked: an interrupt in between leaves nothing locked.
            self._held[key] = computation
            try:
                descriptor = self._opened()
            except (OSError, StorageError) as error:
                logger.warning("%s cannot be used, results may be computed twice: %s",
                               self._path, error)  # fmt: skip
                return True
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _place_of(key))
            except (BlockingIOError, PermissionError):  # What systems say where it is locked.
                del self._held[key]
                return False
            except OSError as error:
                logger.warning("%s cannot be locked, results may be computed twice: %s",
                               self._path, error)  # fmt: skip
            return True

    def release(self, key: str, computation: Computation) -> None:
        """Release the lock of `key` if `computation` holds it. Idempotent."""
        with self._lock:
            if self._held.get(key) is not computation:
                return
            if self._descriptor >= 0:
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, _place_of(key))
            del self._held[key]

    def close(self) -> None:
        """Release all locks of this process. Idempotent."""
        with self._lock:
            self._closed = True
            self._held.clear()
            descriptor, self._descriptor = self._descriptor, -1
            if descriptor >= 0:
                os.close(descriptor)

    def _opened(self) -> int:
        if self._descriptor < 0:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            descriptor = os.open(self._path, flags, 0o600)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.close(descriptor)
                raise StorageError(f"{self._path} is not a file")
            self._descriptor = descriptor
        return self._descriptor

    def _in_child(self) -> None:
        """Forget what only the parent holds."""
        self._held.clear()


def _is_running(computation: Computation) -> bool:
    return not computation.finished and computation.is_alive()


def _place_of(key: str) -> int:
    """Return the byte of the file that stands for a key; two keys do not meet in practice."""
    return xxh3_64_intdigest(key.encode()) >> 2  # An offset of a file has 63 bits.


_all: weakref.WeakSet[ComputationLocks] = weakref.WeakSet()
after_fork(_all, ComputationLocks._in_child)
