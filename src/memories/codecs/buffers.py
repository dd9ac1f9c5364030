"""View the memory of values as bytes, copy it, and make it read-only.

NumPy refuses `setflags(write=True)` on an array whose base is a read-only memoryview; that is how
stored arrays are protected.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from memories.codecs.base import NOTHING_FAR, Parts
from memories.foundation import parallel

ALIGNMENT = 64
EMPTY = memoryview(b"")
_COPY_NBYTES = 1 << 20  # A copy is shared among threads in parts of this size.

ByteArray = np.ndarray[Any, np.dtype[np.uint8]]


def align(count: int) -> int:
    """Return `count` rounded up to a multiple of 64."""
    return -(-count // ALIGNMENT) * ALIGNMENT


def allocate(nbytes: int) -> ByteArray:
    """Return `nbytes` of uninitialised memory that starts at a multiple of 64."""
    block = np.empty(nbytes + ALIGNMENT, np.uint8)
    start = -block.ctypes.data % ALIGNMENT
    return block[start : start + nbytes]


def view_bytes(exporter: Any) -> memoryview:
    """Return the memory of a C-contiguous exporter as a memoryview of format "B"."""
    view = memoryview(exporter)
    return view.cast("B") if view.nbytes else EMPTY


def is_bytes(buffer: memoryview) -> bool:
    """Return whether `buffer` is a view of a whole `bytes` object."""
    return type(buffer.obj) is bytes and buffer.c_contiguous and len(buffer.obj) == buffer.nbytes


def is_utf8(text: str) -> bool:
    """Return whether `text` can be encoded as UTF-8: it has no lone surrogates."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def as_array(buffer: memoryview) -> ByteArray:
    """Return an array of bytes over `buffer`."""
    return np.frombuffer(buffer, np.uint8)


def address(buffer: memoryview) -> int:
    """Return the address of the first byte of `buffer`; 0 when it is empty."""
    return int(as_array(buffer).ctypes.data) if buffer.nbytes else 0


def copy_bytes(target: ByteArray, source: memoryview) -> None:
    """Copy `source` into `target` without holding the interpreter lock, shared among threads."""
    if not source.nbytes:
        return
    whole = as_array(source)
    if source.nbytes <= _COPY_NBYTES:
        np.copyto(target, whole)
        return

    def copy(start: int) -> None:
        np.copyto(target[start : start + _COPY_NBYTES], whole[start : start + _COPY_NBYTES])

    parallel.map_items(copy, range(0, source.nbytes, _COPY_NBYTES), source.nbytes)


def writable_copy(buffer: memoryview) -> memoryview:
    """Return a private copy of `buffer`."""
    place = allocate(buffer.nbytes)
    copy_bytes(place, buffer)
    return view_bytes(place)


def own_buffer(parts: Parts, index: int) -> memoryview:
    """Return a buffer as writable memory of the reader: itself if it is in `given`, else a copy."""
    buffer = parts.buffers[index]
    below = buffer.obj
    # Memory that is never writable, such as a mapped file, is copied in any case.
    if index in parts.given and isinstance(below, np.ndarray) and below.flags.writeable:
        whole = view_bytes(below)
        if whole.nbytes == buffer.nbytes:
            return whole
    return writable_copy(buffer)


def fetch(parts: Parts) -> Parts:
    """Return `parts` with its buffers on devices copied to host memory."""
    if not parts.far:
        return parts
    buffers = list(parts.buffers)
    for index, buffer in parts.far.items():
        buffers[index] = buffer.fetch()
    return parts._replace(
        buffers=tuple(buffers), owned=parts.owned | parts.far.keys(), far=NOTHING_FAR
    )


def freeze(parts: Parts, *, copy: bool = True) -> Parts:
    """Return `parts` with private read-only buffers, all copied into one arena.

    Buffers that `encode` made itself, and whole `bytes` objects, are not copied. With `copy=False`
    nothing is copied: the caller gives up its buffers.
    """
    if copy:
        loose = [i for i, buffer in enumerate(parts.buffers) if not _is_private(parts, i, buffer)]
        return _own(parts, _copy_some(parts, loose))
    return _own(parts, list(parts.buffers))


def thaw(parts: Parts) -> Parts:
    """Return `parts` with private writable buffers: copies, unless they are so already."""
    owned = parts.owned
    rest = [i for i, buffer in enumerate(parts.buffers) if buffer.readonly or i not in owned]
    arenas = _copy_some(parts, rest)
    return parts._replace(buffers=tuple(arenas), owned=frozenset(range(len(arenas))))


def declare_owned(parts: Parts) -> Parts:
    """Return `parts` with all buffers marked as owned, which the caller guarantees."""
    return parts._replace(owned=frozenset(range(len(parts.buffers))))


def _is_private(parts: Parts, index: int, buffer: memoryview) -> bool:
    return index in parts.owned or not buffer.nbytes or is_bytes(buffer)


def _copy_some(parts: Parts, indices: Any) -> list[memoryview]:
    buffers = list(parts.buffers)
    arena = allocate(sum(align(buffers[i].nbytes) for i in indices))
    offset = 0
    for i in indices:
        place = arena[offset : offset + buffers[i].nbytes]
        copy_bytes(place, buffers[i])
        offset += align(buffers[i].nbytes)
        buffers[i] = view_bytes(place)
    return buffers


def _own(parts: Parts, buffers: list[memoryview]) -> Parts:
    frozen = tuple(buffer.toreadonly() for buffer in buffers)
    return parts._replace(buffers=frozen, owned=frozenset(range(len(frozen))))
