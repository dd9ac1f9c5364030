"""The lock that makes one process (and one manager in it) the writer of a directory.

Not a pid file: the kernel holds the lock and drops it with the process. The pid and host inside
are for the error message only.
"""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path

from memories.errors import StoreLockedError


class WriterLock:
    """An exclusive flock on `LOCK`, held until `release`."""

    def __init__(self, path: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(path, flags, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(self._descriptor, 200, 0).decode("utf-8", "replace").strip()
            self.abandon()
            raise StoreLockedError(
                f"{path.parent} is being written by {holder or 'another process'}; "
                "close it there, or open it with read_only=True"
            ) from error
        except OSError:
            self.abandon()
            raise
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"pid {os.getpid()} on {socket.gethostname()}\n".encode(), 0)

    def release(self) -> None:
        """Let another writer in."""
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        self.abandon()

    def abandon(self) -> None:
        """Close this process's descriptor without unlocking: after a fork the parent holds it."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        # A store that is dropped without `close` does not stay locked.
        if hasattr(self, "_descriptor"):
            self.abandon()
