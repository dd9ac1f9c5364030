"""The body of a frame as it is written: pieces one after the other, each with its sums and padding.

Not the head, which `frame` makes of what this returns. Nothing is copied but what is compressed, or
what goes into a caller's buffer.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import NamedTuple

from memories.codecs.buffers import ALIGNMENT, align
from memories.frames import compression, head
from memories.frames.compression import RAW, Method
from memories.frames.head import Piece

_ZEROS = memoryview(bytes(64))
_CACHED = 1 << 18  # Fits into the second-level cache of any processor with room to spare.


class Chunk(NamedTuple):
    """A stretch of a buffer, and where in the body it begins if nothing is compressed."""

    data: memoryview
    method: Method | None
    offset: int


class Stored(NamedTuple):
    """The bytes that a chunk is stored as, and their checksum."""

    data: memoryview
    total: int


class Body:
    """The body as it grows: its segments, padding included.

    `store` gets chunks and their length in all, and returns what each is stored as.
    """

    def __init__(self, store: Callable[[list[Chunk], int], list[Stored]]) -> None:
        self.segments: list[memoryview] = []
        self.nbytes = 0
        self._store = store

    def add(self, buffers: Sequence[memoryview], methods: Sequence[Method | None]) -> list[Piece]:
        """Append buffers and return where each lies."""
        chunks: list[Chunk] = []
        offset = self.nbytes
        for buffer, method in zip(buffers, methods, strict=True):
            chunks += _split(buffer, method, offset)
            offset += align(buffer.nbytes)
        stored = iter(self._store(chunks, offset - self.nbytes))
        return [
            self._append(buffer, method, islice(stored, head.count_chunks(buffer.nbytes)))
            for buffer, method in zip(buffers, methods, strict=True)
        ]

    def add_packed(self, chunks: Sequence[memoryview], raw: int, compressor: int) -> Piece:
        """Append the compressed chunks of `raw` bytes and return where they lie."""
        piece = Piece(
            offset=self.nbytes,
            stored=sum(chunk.nbytes for chunk in chunks),
            raw=raw,
            compressor=compressor,
            sums=struct.pack(f"<{len(chunks)}Q", *map(head.checksum, chunks)),
            lengths=struct.pack(f"<{len(chunks)}I", *(chunk.nbytes for chunk in chunks)),
        )
        self.segments.extend(chunks)
        if piece.stored % ALIGNMENT:
            self.segments.append(_ZEROS[: align(piece.stored) - piece.stored])
        self.nbytes += align(piece.stored)
        return piece

    def _append(self, buffer: memoryview, method: Method | None, stored: Iterable[Stored]) -> Piece:
        lying, sums = zip(*stored, strict=True) if buffer.nbytes else ((), ())
        lengths = [chunk.nbytes for chunk in lying]
        offset, nbytes = self.nbytes, sum(lengths)
        if nbytes:
            self.segments.extend([buffer] if method is None else lying)
        if nbytes % ALIGNMENT:
            self.segments.append(_ZEROS[: align(nbytes) - nbytes])
        self.nbytes += align(nbytes)
        return Piece(
            offset=offset,
            stored=nbytes,
            raw=buffer.nbytes,
            compressor=RAW if method is None else method.code,
            sums=struct.pack(f"<{len(sums)}Q", *sums),
            lengths=b"" if method is None else struct.pack(f"<{len(lengths)}I", *lengths),
        )


def store_apart(chunk: Chunk) -> Stored:
    """Leave a chunk where it is, or compress it."""
    data = chunk.data
    if chunk.method is not None:
        data = memoryview(compression.compress(data, chunk.method))
    return Stored(data, head.checksum(data))


def store_nowhere(chunks: list[Chunk], _: int) -> list[Stored]:
    """Only take up room."""
    return [Stored(chunk.data, 0) for chunk in chunks]


def store_in(room: memoryview) -> Callable[[Chunk], Stored]:
    """Return what copies chunks into a body that lies in `room`, their padding included.

    Each is copied and summed a stretch at a time, while that is in the processor's cache.
    """

    def store(chunk: Chunk) -> Stored:
        total = head.checksummer()
        end = chunk.offset + chunk.data.nbytes
        for start in range(chunk.offset, end, _CACHED):
            stop = min(start + _CACHED, end)
            room[start:stop] = chunk.data[start - chunk.offset : stop - chunk.offset]
            total.update(room[start:stop])
        room[end : align(end)] = _ZEROS[: align(end) - end]
        return Stored(chunk.data, total.intdigest())

    return store


def _split(buffer: memoryview, method: Method | None, offset: int) -> list[Chunk]:
    size = head.chunk_size(buffer.nbytes)
    if 0 < buffer.nbytes <= size:
        return [Chunk(buffer, method, offset)]
    return [
        Chunk(buffer[start : start + size], method, offset + start)
        for start in range(0, buffer.nbytes, size)
    ]
