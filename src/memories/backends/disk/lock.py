"""The lock that makes one process, and one manager in it, the writer of a directory.

The kernel holds the lock and drops it with the process. It is taken twice: on the directory itself,
and on the file `LOCK` in it, because some file systems cannot lock a directory. The pid and host in
`LOCK` are for the error message only.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from pathlib import Path

from memories.backends.disk.files import NO_SPACE
from memories.backends.disk.paths import DRAFT
from memories.backends.disk.store_directory import StoreDirectory
from memories.errors import StoreLockedError
from memories.foundation.fork_lock import new_lock
from memories.foundation.regular_file import open_regular, read_regular

_MOST_BYTES = 4096


class WriterLock:
    """An exclusive flock on a directory and on its `LOCK`, held until `release`."""

    def __init__(self, directory: StoreDirectory, path: Path) -> None:
        self.directory, self._path = directory, path
        self._descriptor = -1
        self.doubted = False  # Set when `require` has failed, until it succeeds.
        self._renewing = new_lock()  # Two threads that renew the lock would lock each other out.
        try:
            self._whole = self._lock_directory()
            self._descriptor = self._lock_file()
        except BaseException:
            self.release()
            raise

    def require(self) -> None:
        """Check that no other writer could have opened the store; costs two system calls.

        A `LOCK` that was removed is made again: the lock on the directory kept others out.

        Raises:
            StorageError: the directory is not there.
            StoreLockedError: another writer may have opened it meanwhile.
        """
        self.doubted = True
        self.directory.require()
        with self._renewing:
            self._require_file()
        self.doubted = False

    def _require_file(self) -> None:
        mine = os.fstat(self._descriptor)
        try:
            there = self._path.lstat()
        except FileNotFoundError:
            there = None
        if there is not None and (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino):
            return
        if not self._whole:
            raise StoreLockedError(
                f"{self._path} was removed, and this file system cannot lock a directory: another "
                "process may have opened the store; close it here, make sure that no other process "
                "writes it, and open it again"
            )
        descriptor, self._descriptor = self._descriptor, self._lock_file()
        os.close(descriptor)

    def release(self) -> None:
        """Release the lock. Idempotent."""
        for descriptor in (self._descriptor, self.directory.descriptor):
            if descriptor >= 0:
                fcntl.flock(descriptor, fcntl.LOCK_UN)
        self.abandon()

    def abandon(self) -> None:
        """Close this process's descriptors without unlocking: after a fork the parent holds it."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
        self.directory.close()

    def _lock_directory(self) -> bool:
        """Lock the directory; return False where the file system cannot."""
        try:
            fcntl.flock(self.directory.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise self._held(_read(self._path)) from error
        except OSError as error:
            # NFS uses a byte-range lock instead, for which the file must be open for writing.
            if error.errno not in (errno.EBADF, errno.EINVAL, errno.ENOTSUP, errno.ENOLCK):
                raise
            return False
        return True

    def _lock_file(self) -> int:
        descriptor = open_regular(self._path, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_nlink > 1:
                old, descriptor = descriptor, self._replacement()
                os.close(old)  # It stays locked until the new one has its name.
            _sign(descriptor)
        except BlockingIOError as error:
            holder = _read(self._path)
            os.close(descriptor)
            raise self._held(holder) from error
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _replacement(self) -> int:
        """Lock a new file in the place of a `LOCK` with a second name: what is written stays here.

        A copy of the store may share it, or a link to a foreign file may have been put here.
        """
        draft = self._path.with_name(self._path.name + DRAFT)
        draft.unlink(missing_ok=True)
        new = open_regular(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        try:
            fcntl.flock(new, fcntl.LOCK_EX | fcntl.LOCK_NB)
            draft.rename(self._path)
        except BaseException:
            os.close(new)
            raise
        return new

    def _held(self, holder: str) -> StoreLockedError:
        return StoreLockedError(
            f"{self._path.parent} is being written by {holder or 'another process'}; "
            "close it there, or open it with read_only=True"
        )

    def __del__(self) -> None:
        # A store that is garbage-collected without `close` does not stay locked.
        if hasattr(self, "_descriptor"):
            self.abandon()


def _read(path: Path) -> str:
    try:
        return read_regular(path, limit=_MOST_BYTES).data.decode("utf-8", "replace").strip()
    except OSError:
        return ""  # It is missing, or not ours: its text is only for the message.


def _sign(descriptor: int) -> None:
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"pid {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
    except OSError as error:
        # On a full disk the text is missing; the kernel holds the lock all the same.
        if error.errno not in NO_SPACE:
            raise
