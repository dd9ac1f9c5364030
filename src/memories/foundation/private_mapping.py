"""Maps a part of a file that this process may write to: the pages it writes to become its own.

`mmap` of Python keeps a descriptor for each mapping, and a process has 1024 of them as a rule. The
call of C keeps none.
"""

from __future__ import annotations

import ctypes
import mmap
import weakref
from collections.abc import Callable
from functools import cache
from typing import Any

from memories.foundation.system import c_function

MOST_MAPPINGS = 16_384  # A quarter of what Linux gives a process: libraries need some, too.
_FAILED = ctypes.c_void_p(-1).value
_live: set[int] = set()  # The addresses of all mappings.


def map_private(descriptor: int, length: int, offset: int) -> Any | None:
    """Return the bytes of an open file from `offset` on, writable, as an object with a buffer.

    `offset` is a multiple of `mmap.ALLOCATIONGRANULARITY`. The file never changes, and may be
    closed and removed; it is unmapped with the last view. None where the system cannot do it, or
    too much is mapped already: then the caller reads.
    """
    calls = _calls()
    if calls is None or len(_live) >= MOST_MAPPINGS:
        return None
    map_file, unmap = calls
    address = map_file(
        None, length, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE, descriptor, offset
    )
    if address == _FAILED:
        return None
    mapping = (ctypes.c_ubyte * length).from_address(address)
    _live.add(address)
    weakref.finalize(mapping, _unmap, unmap, address, length).atexit = False
    return mapping


def _unmap(unmap: Callable[..., int], address: int, length: int) -> None:
    _live.discard(address)  # First: the next mapping may get the same address.
    unmap(address, length)


@cache
def _calls() -> tuple[Callable[..., int], Callable[..., int]] | None:
    """Return `mmap` and `munmap` of the C library; None where an offset is not a `long`."""
    found: tuple[Any, Any] = c_function("mmap"), c_function("munmap")
    if None in found or ctypes.sizeof(ctypes.c_long) < ctypes.sizeof(ctypes.c_int64):
        return None
    map_file, unmap = found
    number, size, place = ctypes.c_int, ctypes.c_size_t, ctypes.c_void_p
    map_file.argtypes = [place, size, number, number, number, ctypes.c_long]
    map_file.restype = place
    unmap.argtypes = [place, size]
    return map_file, unmap
