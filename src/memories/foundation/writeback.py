"""Early write-back: the disk begins to write a file before the file is complete.

It guarantees nothing, but makes the sync that must follow shorter; on a system without such a call
it does nothing.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache

from memories.foundation.system import c_function

WRITEBACK_BYTES = 8 << 20  # The length of the pieces that are handed to the disk.
_SYNC_FILE_RANGE_WRITE = 2  # Begin to write, without waiting.


def begin_writeback(descriptor: int, offset: int, length: int) -> None:
    """Have the disk begin to write these bytes of a file, where the system supports it.

    A failure is reported by the sync that follows: this call does not clear the error.
    """
    if begin := _sync_file_range():
        begin(descriptor, offset, length)


@cache
def _sync_file_range() -> Callable[[int, int, int], object] | None:
    call = c_function("sync_file_range")
    if call is None:
        return None
    begin, whole = call, ctypes.c_int64  # What is handed over would else be an int of 32 bits.
    return lambda fd, at, length: begin(fd, whole(at), whole(length), _SYNC_FILE_RANGE_WRITE)
