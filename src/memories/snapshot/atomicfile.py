"""A file that appears under its name whole and durable, or not at all.

Only its owner can read it, also where it replaces a file that others could read.
It is written without a name where the file system supports that, so that even a killed process
leaves nothing; early write-back keeps the final fsync short.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import stat
from collections.abc import Sequence
from pathlib import Path

from memories.errors import StorageError
from memories.foundation.regular_file import require_own_link
from memories.foundation.system import name_file, open_unnamed, sync
from memories.foundation.writeback import WRITEBACK_BYTES, begin_writeback
from memories.sealing import sealed_file
from memories.sealing.master_key import EncryptionKey

Buffer = bytes | bytearray | memoryview

_GATHER_BYTES = 1 << 20


class AtomicFile:
    """Collects a file's bytes, and puts it at `path` by `commit`.

    One thread at a time. Until `commit` returns, whatever was at `path` is untouched; leaving the
    `with` block without a commit discards what was written.

    Raises:
        StorageError: the directory or the disk refused something.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._target = Path(os.path.realpath(path))
        self._given = path
        self._directory = -1
        self._fd = -1
        self._name: str | None = None
        self._pending = bytearray()
        self._written = 0  # Bytes handed to the kernel.
        self._flushed = 0  # Bytes whose write-back has been started.
        try:
            self._open()
        except OSError as error:
            self.close()
            raise self._failure("cannot be created", error) from error

    def _open(self) -> None:
        require_own_link(self._given)
        try:
            mode = self._target.stat().st_mode
        except FileNotFoundError:
            mode = stat.S_IFREG
        if not stat.S_ISREG(mode):
            raise OSError(errno.EEXIST, "something other than a regular file lies there")
        self._directory = os.open(self._target.parent, os.O_RDONLY | os.O_DIRECTORY)
        self._collect()
        unnamed = open_unnamed(self._target.parent)
        if unnamed is not None:
            self._fd = unnamed
        else:
            name = f"{self._stem()}{secrets.token_hex(4)}.partial"
            flags = os.O_CREAT | os.O_EXCL | os.O_RDWR
            self._fd = os.open(name, flags, 0o600, dir_fd=self._directory)
            self._name = name
            fcntl.flock(self._fd, fcntl.LOCK_EX)

    def _stem(self) -> str:
        return f".{self._target.name[:200]}."

    def _collect(self) -> None:
        """Remove what killed writers of this path left behind."""
        ours = re.compile(re.escape(self._stem()) + r"[0-9a-f]{8}\.partial")
        for path in self._target.parent.iterdir():
            if ours.fullmatch(path.name):
                _unlink_unlocked(path.name, self._directory)

    @property
    def offset(self) -> int:
        """Return where the next byte will lie."""
        return self._written + len(self._pending)

    def write(self, buffers: Sequence[Buffer]) -> None:
        """Append `buffers`. Small ones are gathered, large ones go out at once."""
        for buffer in buffers:
            if len(buffer) >= _GATHER_BYTES:
                self._flush()
                self._put(buffer)
            else:
                self._pending += buffer
                if len(self._pending) >= _GATHER_BYTES:
                    self._flush()

    def skip(self, count: int) -> None:
        """Leave a hole of `count` bytes, to be filled by `fill`."""
        self._flush()
        self._written += count

    def fill(self, offset: int, data: Buffer) -> None:
        """Write `data` into a hole that `skip` left."""
        try:
            _pwrite(self._fd, memoryview(data), offset)
        except OSError as error:
            raise self._failure("cannot be written", error) from error

    def commit(self) -> None:
        """Make the file durable and put it at the path, replacing what lies there."""
        self._flush()
        try:
            sync(self._fd)
            if self._name is not None or not self._link(self._target.name):
                self._replace()
            sync(self._directory)
        except OSError as error:
            raise self._failure("cannot be completed", error) from error

    def _link(self, name: str) -> bool:
        """Give the nameless file a name; False if something has it already."""
        try:
            name_file(self._fd, name, self._directory)
        except FileExistsError:
            return False
        return True

    def _replace(self) -> None:
        if self._name is None:
            # Only a file that has a name can replace another one; the lock says it is in use.
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            self._name = f"{self._stem()}{secrets.token_hex(4)}.partial"
            self._link(self._name)
        directory = self._directory
        os.rename(self._name, self._target.name, src_dir_fd=directory, dst_dir_fd=directory)
        self._name = None

    def close(self) -> None:
        """Discard what was not committed. Idempotent."""
        if self._name is not None:
            _unlink(self._name, self._directory)
            self._name = None
        # Each is forgotten first: whatever fails or interrupts, no number is closed twice.
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
        fd, self._directory = self._directory, -1
        if fd >= 0:
            os.close(fd)

    def _flush(self) -> None:
        if self._pending:
            pending, self._pending = self._pending, bytearray()
            self._put(pending)

    def _put(self, data: Buffer) -> None:
        try:
            _pwrite(self._fd, memoryview(data), self._written)
        except OSError as error:
            raise self._failure("cannot be written", error) from error
        self._written += len(data)
        if self._written - self._flushed >= WRITEBACK_BYTES:
            begin_writeback(self._fd, self._flushed, self._written - self._flushed)
            self._flushed = self._written

    def _failure(self, what: str, error: OSError) -> StorageError:
        return StorageError(
            f"{self._target} {what}: {error.strerror or error}; what was there before is unchanged"
        )

    def __enter__(self) -> AtomicFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class SealedOutput:
    """The content of an `AtomicFile`, encrypted on its way; offsets are those of the content.

    Raises:
        EncryptionKeyError: the key cannot be read.
    """

    def __init__(self, file: AtomicFile, key: EncryptionKey) -> None:
        header, self._blob = sealed_file.begin(key)
        self._file, self.offset = file, 0
        file.write([header])

    def write(self, buffers: Sequence[Buffer]) -> None:
        """Append `buffers`, encrypted."""
        for buffer in buffers:
            view = memoryview(buffer)
            for at in range(0, view.nbytes, WRITEBACK_BYTES):
                part = view[at : at + WRITEBACK_BYTES]
                self._file.write([self._blob.add(part)])
                self.offset += part.nbytes

    def commit(self) -> None:
        """End the content, and put the file at its path."""
        self._file.write([self._blob.end()])
        self._file.commit()


def _pwrite(fd: int, data: memoryview, offset: int) -> None:
    while data:
        count = os.pwrite(fd, data, offset)
        data = data[count:]
        offset += count


def _unlink(name: str, directory: int) -> None:
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        pass  # Another writer of the same path has collected it.


def _unlink_unlocked(name: str, directory: int) -> None:
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
    except OSError:
        return  # Gone, or not one of ours.
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _unlink(name, directory)
    except BlockingIOError:
        pass  # Its writer is alive.
    finally:
        os.close(fd)
