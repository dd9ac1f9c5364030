"""Early write-back: the disk begins to write a file before the file is complete.

Not a sync, and no promise: it keeps the sync that must follow short, and does nothing where the
system has no such call.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache

WRITEBACK_BYTES = 8 << 20  # The disk is kept busy with pieces of this length.
_SYNC_FILE_RANGE_WRITE = 2  # Begin, and wait for nothing.


def begin_writeback(descriptor: int, offset: int, length: int) -> None:
    """Let the disk begin with these bytes of a file, where the system can.

    What fails is reported by the sync that follows: only a call that waits takes an error away.
    """
    if begin := _sync_file_range():
        begin(descriptor, offset, length)


@cache
def _sync_file_range() -> Callable[[int, int, int], object] | None:
    call = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if call is None:
        return None
    call.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
    return lambda fd, offset, length: call(fd, offset, length, _SYNC_FILE_RANGE_WRITE)
