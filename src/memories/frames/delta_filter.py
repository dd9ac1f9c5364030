"""Replace the items of an array by differences to the item, or the row, before.

Rasters and fields change little from item to item, so that their differences compress better. Each
chunk is filtered by itself, so that a region can be read without the rest. The inverse is a running
sum, at the speed of memory.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from memories.codecs.arrays import Array, ArrayCodec, read_meta
from memories.codecs.base import Parts
from memories.codecs.buffers import ByteArray, as_array
from memories.errors import CorruptDataError

_HEADER = struct.Struct("<BBHI")  # Item size, 1 for XOR, 0, and the distance in items.
HEADER_NBYTES = _HEADER.size
_ITEMS: dict[int, np.dtype[Any]] = {
    1: np.dtype("<u1"),
    2: np.dtype("<u2"),
    4: np.dtype("<u4"),
    8: np.dtype("<u8"),
}
MAX_DISTANCE = 1 << 18  # The first items of a chunk, up to this distance, have no difference.
_NARROW = 128

Distances = tuple[int, ...]  # Bytes from an item to its neighbour, to the next row, and so on.


class Delta(NamedTuple):
    """Each item minus the one `step` items before it; with `xor`, the bits that differ."""

    itemsize: int
    step: int
    xor: bool

    def pack(self) -> bytes:
        """Return the header of a chunk."""
        return _HEADER.pack(self.itemsize, self.xor, 0, self.step)

    def apply(self, chunk: memoryview | ByteArray) -> ByteArray:
        """Return the differences of a chunk; the first `step` items stay."""
        source = _items(chunk, self.itemsize)
        result = np.frombuffer(chunk, np.uint8).copy()
        target = _items(result, self.itemsize)
        operation = np.bitwise_xor if self.xor else np.subtract
        operation(source[self.step :], source[: -self.step], out=target[self.step :])
        return result

    def undo(self, chunk: ByteArray) -> None:
        """Turn differences into items, in place."""
        items = _items(chunk, self.itemsize)
        rows = len(items) // self.step
        operation = np.bitwise_xor if self.xor else np.add
        whole = items[: rows * self.step].reshape(rows, self.step)
        if self.step < _NARROW:
            operation.accumulate(whole, axis=0, out=whole)
        else:  # Adding whole rows uses vector instructions.
            for row in range(1, rows):
                operation(whole[row], whole[row - 1], out=whole[row])
        rest = items[rows * self.step :]
        if rest.size and rows:
            operation(rest, whole[rows - 1][: rest.size], out=rest)


def unpack(chunk: memoryview) -> Delta:
    """Return the filter in the header of a chunk.

    Raises:
        CorruptDataError: the header is damaged.
    """
    if chunk.nbytes < HEADER_NBYTES:
        raise CorruptDataError(f"a chunk of differences cannot be {chunk.nbytes} bytes long")
    itemsize, xor, zero, step = _HEADER.unpack_from(chunk)
    if itemsize not in _ITEMS or xor > 1 or zero or not 1 <= step * itemsize <= MAX_DISTANCE:
        raise CorruptDataError("the header of a chunk of differences is damaged")
    return Delta(itemsize, step, bool(xor))


def candidates(distances: Sequence[int]) -> Iterator[Delta]:
    """Yield the filters to try for an array with these strides in bytes, the smallest first."""
    itemsize = next(size for size in (8, 4, 2, 1) if distances[0] % size == 0)
    for distance in dict.fromkeys(distances):
        if 0 < distance <= MAX_DISTANCE:
            for xor in (False, True):
                yield Delta(itemsize, distance // itemsize, xor)


def distances_of(parts: Parts) -> dict[int, Distances]:
    """Return the distances in those buffers of `parts` that are arrays, by their index.

    They only guide the compression: a wrong distance costs space, and never damages data.
    """
    if parts.codec == ArrayCodec.name:
        return {0: _distances(parts.meta)}
    nodes = parts.meta.get("nodes", ()) if isinstance(parts.meta, dict) else ()
    return {
        node[2][0]: _distances(node[1])
        for node in nodes
        if node[0] == ArrayCodec.name and len(node[2]) == 1
    }


def _distances(meta: Any) -> Distances:
    dtype, shape, order = read_meta(Parts(ArrayCodec.name, meta))
    distances = [dtype.itemsize]
    for extent in shape[:-1] if order == "F" else shape[:0:-1]:
        distances.append(distances[-1] * extent)
    return tuple(distances) if dtype.itemsize else ()


def _items(chunk: memoryview | ByteArray, itemsize: int) -> Array:
    whole = as_array(chunk) if isinstance(chunk, memoryview) else chunk
    items: Array = whole[: whole.nbytes // itemsize * itemsize]
    return items.view(_ITEMS[itemsize])
