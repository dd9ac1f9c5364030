"""Reads a file at given offsets, checked against its real size.

The structure of a snapshot is read, not mapped: a file that another program truncates meanwhile, or
a medium that fails, is then an error and does not end the process.
"""

from __future__ import annotations

import os
from pathlib import Path

from memories.errors import CorruptDataError, StorageError
from memories.foundation.regular_file import open_regular


class PreadFile:
    """A regular file, open for reading. Safe to use from many threads.

    Raises:
        StorageError: there is no regular file at `path`, or it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._fd = open_regular(path, os.O_RDONLY, links=True)
        except OSError as error:
            raise StorageError(f"{path} cannot be opened: {error.strerror}") from error
        self.size = os.fstat(self._fd).st_size

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
        try:
            data = os.pread(self._fd, length, offset)
        except OSError as error:
            raise StorageError(f"{self.path} cannot be read: {error.strerror}") from error
        if len(data) != length:
            raise CorruptDataError("it has become shorter since it was opened")
        return data

    def close(self) -> None:
        """Close the file. Idempotent."""
        fd, self._fd = self._fd, -1  # First: whatever interrupts, no number is closed twice.
        if fd >= 0:
            os.close(fd)
