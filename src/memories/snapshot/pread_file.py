"""Reads a file at given offsets, checked against its real size.

The structure of a snapshot is read, not mapped: a file that another program truncates meanwhile, or
a medium that fails, is then an error and does not end the process.
"""

from __future__ import annotations

import os
from pathlib import Path

from memories.errors import CorruptDataError, StorageError
from memories.foundation.regular_file import open_regular
from memories.sealing.master_key import EncryptionKey
from memories.sealing.sealed_file import MARK_BYTES, SealedFile, is_sealed

_WINDOW_BYTES = 1 << 20


class PreadFile:
    """A regular file, open for reading; `key` decrypts one that is encrypted, unless it is `raw`.

    Safe to use from many threads.

    Raises:
        StorageError: there is no regular file at `path`, or it cannot be read.
        EncryptionKeyError: it is encrypted, and `key` is not its key.
        CorruptDataError: it is encrypted, and damaged.
    """

    def __init__(self, path: Path, key: EncryptionKey | None = None, *, raw: bool = False) -> None:
        self.path = path
        try:
            self._fd = open_regular(path, os.O_RDONLY, links=True)
        except OSError as error:
            raise StorageError(f"{path} cannot be opened: {error.strerror}") from error
        self.size = os.fstat(self._fd).st_size
        self.sealed: SealedFile | None = None
        self._window = 0, memoryview(b"")
        try:
            if not raw and is_sealed(self._pread(0, MARK_BYTES)):
                self.sealed = SealedFile(self._pread, self.size, key, str(path))
                self.size = self.sealed.nbytes
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._fd

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes.

        Raises:
            CorruptDataError: the file does not hold them (any more).
        """
        if offset + length > self.size:
            raise CorruptDataError("it ends before something that it names")
        if self.sealed is not None:
            return bytes(self.view(offset, length))
        data = self._pread(offset, length)
        if len(data) != length:
            raise CorruptDataError("it has become shorter since it was opened")
        return data

    def view(self, offset: int, length: int) -> memoryview:
        """Return bytes of an encrypted file, read-only; neighbours are decrypted together.

        Raises:
            CorruptDataError: they were altered.
        """
        assert self.sealed is not None, "other files are mapped"
        if length >= _WINDOW_BYTES:
            return self.sealed.read(offset, length)
        start, window = self._window
        if not start <= offset <= offset + length <= start + window.nbytes:
            start, window = offset, self.sealed.read(offset, min(_WINDOW_BYTES, self.size - offset))
            self._window = start, window
        # A copy: a small frame does not keep all of its neighbours in RAM.
        return memoryview(bytes(window[offset - start : offset - start + length]))

    def _pread(self, offset: int, length: int) -> bytes:
        try:
            return os.pread(self._fd, length, offset)
        except OSError as error:
            raise StorageError(f"{self.path} cannot be read: {error.strerror}") from error

    def close(self) -> None:
        """Close the file. Idempotent."""
        fd, self._fd = self._fd, -1  # First: whatever interrupts, no number is closed twice.
        if fd >= 0:
            os.close(fd)
