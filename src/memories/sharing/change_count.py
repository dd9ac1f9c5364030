"""A number in shared memory that grows with each change: readers see when to look again."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

from memories.errors import StorageError
from memories.foundation.fork_lock import new_lock

FILE_NAME = "shared.count"
_BYTES = 8


class ChangeCount:
    """The number of changes of a store; the writer increments it, all processes read it.

    A change is on the disk before it is counted, and is counted before its call returns. So a
    reader that finds the number unchanged has seen every change whose call has returned.

    Args:
        directory: The directory of the store.
        writes: Whether this process is the writer.

    Raises:
        StorageError: the file cannot be used.
    """

    def __init__(self, directory: Path, *, writes: bool) -> None:
        flags = os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_RDWR | os.O_CREAT if writes else os.O_RDONLY)
        try:
            descriptor = os.open(directory / FILE_NAME, flags, 0o600)
            try:
                if writes and os.fstat(descriptor).st_size < _BYTES:
                    os.ftruncate(descriptor, _BYTES)
                access = mmap.ACCESS_WRITE if writes else mmap.ACCESS_READ
                memory = mmap.mmap(descriptor, _BYTES, access=access)
            finally:
                os.close(descriptor)
        except (OSError, ValueError) as error:
            raise StorageError(f"{directory / FILE_NAME} cannot be used: {error}") from error
        # One aligned word: readers see the number before or after an increment.
        self._number: memoryview | None = memoryview(memory).cast("Q")
        self._lock = new_lock()

    @property
    def now(self) -> int:
        """Return the number; -1 after `close`."""
        number = self._number
        return -1 if number is None else int(number[0])

    def increment(self) -> None:
        """Count a change."""
        with self._lock:
            if self._number is not None:
                self._number[0] = (self._number[0] + 1) & 0xFFFF_FFFF_FFFF_FFFF

    def close(self) -> None:
        """Unmap it, as soon as no other thread reads it."""
        with self._lock:
            self._number = None
