"""One process, and one backend in it, per directory.

Not the lock of the bucket: that is `writer.py`. This one keeps two openings of one store apart.
"""

from __future__ import annotations

import fcntl
import os
import weakref
from pathlib import Path

from memories.errors import StoreLockedError
from memories.foundation.forks import after_fork


class DirectoryLock:
    """A lock on a file of `directory`, which ends with the process or by `release`."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = directory / "glacier.lock"
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._fd)
            raise StoreLockedError(
                f"Another manager or process has {directory} open. Close it there, or open this "
                "one read-only."
            ) from error
        _held.add(self)

    def release(self) -> None:
        """Give the lock up. Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


_held: weakref.WeakSet[DirectoryLock] = weakref.WeakSet()

# A forked child shares the lock, and the lock would outlive the parent if the child kept it.
after_fork(_held, DirectoryLock.release)
