"""Compress the numbers of an array with pcodec, which models how they are distributed.

pcodec is optional: it is used where it is installed, and a frame that it compressed needs it. Each
chunk is compressed by itself, over differences to the row before where those are smaller.
"""

from __future__ import annotations

import functools
import importlib.util
import struct
from typing import Any, NamedTuple

import numpy as np

from memories.codecs.arrays import ArrayCodec
from memories.codecs.base import Parts
from memories.codecs.buffers import ByteArray, as_array
from memories.errors import CorruptDataError
from memories.foundation.optional_imports import require
from memories.frames.delta_filter import MAX_DISTANCE, Delta

# The kind of the numbers, the bytes after the last one, and the distance of differences, or 0.
_HEADER = struct.Struct("<2sHI")
HEADER_NBYTES = _HEADER.size
_LEVEL = 8  # Of 12; the others take twice the time for half a percent.
# The numbers of pcodec, by the dtypes that consist of such ones.
_KINDS = {f"{kind}{size}": f"{kind}{size}" for kind in "iu" for size in (2, 4, 8)}
_KINDS |= {"f2": "f2", "f4": "f4", "f8": "f8", "c8": "f4", "c16": "f8", "M8": "i8", "m8": "i8"}
_CODES = {kind.encode(): np.dtype(f"<{kind}") for kind in set(_KINDS.values())}


class Numbers(NamedTuple):
    """How pcodec takes a buffer: as numbers of this kind, or as differences to `step` before."""

    kind: str
    step: int = 0

    @property
    def delta(self) -> Delta | None:
        """Return the filter for the differences, None if there is none."""
        return Delta(int(self.kind[1:]), self.step, False) if self.step else None


@functools.cache
def is_installed() -> bool:
    """Return whether pcodec is installed here."""
    return importlib.util.find_spec("pcodec") is not None


def numbers_of(parts: Parts) -> dict[int, str]:
    """Return the kind of number in those buffers of `parts` that pcodec could take, by index."""
    if parts.codec == ArrayCodec.name:
        found = {0: _kind_of(parts.meta)}
    else:
        nodes = parts.meta.get("nodes", ()) if isinstance(parts.meta, dict) else ()
        found = {
            node[2][0]: _kind_of(node[1])
            for node in nodes
            if node[0] == ArrayCodec.name and len(node[2]) == 1
        }
    return {index: kind for index, kind in found.items() if kind}


def candidates(kind: str, distances: tuple[int, ...]) -> list[Numbers]:
    """Return the ways to try: the numbers, and for integers the differences to the row before.

    pcodec itself finds those to the item before.
    """
    itemsize = int(kind[1:])
    rows = [one for one in distances[1:2] if itemsize < one <= MAX_DISTANCE and not one % itemsize]
    steps = [one // itemsize for one in rows if kind[0] != "f"]
    return [Numbers(kind), *(Numbers(kind, step) for step in steps)]


def pack(chunk: memoryview | ByteArray, numbers: Numbers) -> bytes:
    """Return a chunk compressed; bytes after its last number stay as they are."""
    whole = as_array(chunk) if isinstance(chunk, memoryview) else chunk
    kind = numbers.kind
    if numbers.delta is not None:
        whole, kind = numbers.delta.apply(whole), f"i{kind[1:]}"  # Small numbers of both signs.
    rest = whole.nbytes % int(kind[1:])
    end = whole.nbytes - rest
    head = _HEADER.pack(numbers.kind.encode(), rest, numbers.step) + whole[end:].tobytes()
    if not end:
        return head
    library = _library()
    options = library.ChunkConfig(compression_level=_LEVEL)
    packed: bytes = library.standalone.simple_compress(whole[:end].view(f"<{kind}"), options)
    return head + packed


def check(chunk: memoryview) -> tuple[Numbers, int]:
    """Return how a chunk was compressed, and how many bytes follow its numbers.

    Raises:
        CorruptDataError: its header is damaged.
    """
    if chunk.nbytes < HEADER_NBYTES:
        raise CorruptDataError(f"a chunk of numbers cannot be {chunk.nbytes} bytes long")
    code, rest, step = _HEADER.unpack_from(chunk)
    size = _CODES[code].itemsize if code in _CODES else 0
    if not rest < size or step * size > MAX_DISTANCE or chunk.nbytes < HEADER_NBYTES + rest:
        raise CorruptDataError("the header of a chunk of numbers is damaged")
    return Numbers(code.decode(), step), rest


def unpack(chunk: memoryview, target: ByteArray) -> None:
    """Fill `target` with a chunk decompressed; it must have exactly its size.

    Raises:
        CorruptDataError: the chunk is damaged or of another size.
        MissingPackageError: pcodec is not installed here.
    """
    numbers, rest = check(chunk)
    kind = f"i{numbers.kind[1:]}" if numbers.step else numbers.kind
    end = target.nbytes - rest
    if end < 0 or end % int(kind[1:]):
        raise CorruptDataError("a chunk of numbers is not as long as its frame says")
    target[end:] = as_array(chunk[HEADER_NBYTES : HEADER_NBYTES + rest])
    if end:
        _decompress(bytes(chunk[HEADER_NBYTES + rest :]), target[:end].view(f"<{kind}"))
    if numbers.delta is not None:
        numbers.delta.undo(target)


def _decompress(packed: bytes, target: Any) -> None:
    library = _library()
    try:
        progress = library.standalone.simple_decompress_into(packed, target)
    except (RuntimeError, TypeError, ValueError) as error:
        raise CorruptDataError(f"a chunk of numbers cannot be decompressed: {error}") from error
    except BaseException as error:
        # A panic of pcodec is a BaseException; damaged bytes must not end the process.
        if type(error).__name__ != "PanicException":
            raise
        raise CorruptDataError(f"a chunk of numbers cannot be decompressed: {error}") from None
    if not progress.finished or progress.n_processed != len(target):
        raise CorruptDataError("a chunk of numbers is not as long as its frame says")


def _kind_of(meta: Any) -> str:
    """Return the kind of the numbers of an array, "" where pcodec knows none."""
    dtype = meta.get("dtype") if isinstance(meta, dict) else None
    if not isinstance(dtype, str) or dtype[:1] != "<":
        return ""
    return _KINDS.get(dtype[1:].partition("[")[0], "")


@functools.cache
def _library() -> Any:
    """Return pcodec.

    Raises:
        MissingPackageError: it is not installed; the message says how to install it.
    """
    found = require("pcodec", extra="pcodec")
    require("pcodec.standalone", extra="pcodec")
    return found
