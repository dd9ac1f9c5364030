"""Memory of values: seeing it as bytes, and making it private.

Not a pool and not an allocator: NumPy allocates, and a buffer lives as long as its readers. The
one idea is that a read-only memoryview at the end of a base chain is a lock NumPy cannot open.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from memories.codecs.base import NOTHING_FAR, Parts
from memories.foundation import parallel

ALIGNMENT = 64
EMPTY = memoryview(b"")
_STRETCH = 1 << 20  # Of a copy: long enough to be handed out, short enough to share evenly.

ByteArray = npt.NDArray[np.uint8]


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
    """Return whether `buffer` is all of a `bytes` object, as it lies."""
    return type(buffer.obj) is bytes and buffer.c_contiguous and len(buffer.obj) == buffer.nbytes


def is_utf8(text: str) -> bool:
    """Return whether `text` can be described: it holds no lone surrogate."""
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
    """Return where the first byte of `buffer` lies; 0 when it is empty."""
    return int(as_array(buffer).ctypes.data) if buffer.nbytes else 0


def copy_bytes(target: ByteArray, source: memoryview) -> None:
    """Copy `source` into `target` without holding the interpreter lock, shared among threads."""
    if not source.nbytes:
        return
    whole = as_array(source)
    if source.nbytes <= _STRETCH:
        np.copyto(target, whole)
        return

    def copy(start: int) -> None:
        np.copyto(target[start : start + _STRETCH], whole[start : start + _STRETCH])

    parallel.map_items(copy, range(0, source.nbytes, _STRETCH), source.nbytes)


def writable_copy(buffer: memoryview) -> memoryview:
    """Return a private copy of `buffer`."""
    place = allocate(buffer.nbytes)
    copy_bytes(place, buffer)
    return view_bytes(place)


def own_buffer(parts: Parts, index: int) -> memoryview:
    """Return a buffer as memory that a reader may write to: itself where given, else a copy."""
    buffer = parts.buffers[index]
    below = buffer.obj
    # What cannot be written to at all, a map of a file say, is copied whatever was given.
    if index in parts.given and isinstance(below, np.ndarray) and below.flags.writeable:
        whole = view_bytes(below)
        if whole.nbytes == buffer.nbytes:
            return whole
    return writable_copy(buffer)


def fetch(parts: Parts) -> Parts:
    """Return `parts` with copies in the host's memory of whatever lies on a device."""
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

    Buffers that `encode` made itself, and whole `bytes` objects, are kept as they are. With
    `copy=False` the caller hands his buffers over and nothing is copied.
    """
    if copy:
        loose = [i for i, buffer in enumerate(parts.buffers) if not _is_private(parts, i, buffer)]
        return _own(parts, _copy_some(parts, loose))
    return _own(parts, list(parts.buffers))


def thaw(parts: Parts) -> Parts:
    """Return `parts` with private writable copies of all buffers."""
    arenas = _copy_some(parts, range(len(parts.buffers)))
    return parts._replace(buffers=tuple(arenas), owned=frozenset(range(len(arenas))))


def declare_owned(parts: Parts) -> Parts:
    """Return `parts` as belonging to nobody else, on the word of the caller."""
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
