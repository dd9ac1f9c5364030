"""What a backend has on this machine: a locked directory with the database in it."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import weakref
from pathlib import Path

from memories.backends.bucket.local_db import WAL_BYTES, LocalDb
from memories.errors import StorageError, StoreLockedError
from memories.foundation.forks import after_fork
from memories.foundation.regular_file import open_regular


class LocalDirectory:
    """The directory of one backend: locked, so that only one backend of one process uses it.

    Args:
        path: Where it is; None for a private temporary one, which `close` removes.
        full: Whether each commit waits for the disk.
        wal_bytes: How long the write-ahead log may become before it is copied into the map.

    Raises:
        StoreLockedError: another backend or process has it open.
        StorageError: the database cannot be opened.
    """

    def __init__(self, path: Path | None, *, full: bool, wal_bytes: int = WAL_BYTES) -> None:
        self.durable = path is not None
        self._private = None if path is not None else Path(tempfile.mkdtemp(prefix="memories-"))
        directory = path or self._private
        assert directory is not None
        self._lock = DirectoryLock(directory)
        try:
            self.db = LocalDb(
                directory / "glacier.sqlite",
                full=full,
                disposable=not self.durable,
                wal_bytes=wal_bytes,
            )
        except BaseException:
            self._release()
            raise

    def close(self) -> None:
        """Close the database and release the lock. Idempotent."""
        self.db.close()
        self._release()

    def _release(self) -> None:
        self._lock.release()
        if self._private is not None:
            shutil.rmtree(self._private, ignore_errors=True)


class DirectoryLock:
    """A lock on a file of `directory`, which ends with the process or by `release`."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = directory / "glacier.lock"
        try:
            self._fd = open_regular(path, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise StorageError(f"{path} cannot be opened: {error.strerror}") from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._fd)
            raise StoreLockedError(
                f"another manager or process has {directory} open: close it there, or open this "
                "one read-only"
            ) from error
        _held.add(self)

    def release(self) -> None:
        """Release it, also where a child that is being started has a copy. Idempotent."""
        if self._fd >= 0:
            fcntl.flock(self._fd, fcntl.LOCK_UN)
        self.abandon()

    def abandon(self) -> None:
        """Close this process's descriptor without unlocking: after a fork the parent holds it."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


_held: weakref.WeakSet[DirectoryLock] = weakref.WeakSet()

# A forked child shares the lock, and the lock would outlive the parent if the child kept it.
after_fork(_held, DirectoryLock.abandon)
