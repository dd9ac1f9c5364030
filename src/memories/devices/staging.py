"""Copy between pageable host memory and a device, through a ring of a few pinned chunks.

A chunk is filled while the device still copies the others, and reused only when its own copy is
complete. The pinned memory is bounded by the chunks, and many small buffers share a chunk.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from memories.foundation.fork_lock import new_lock

CHUNK_BYTES = 16 << 20
CHUNKS = 4

ByteArray = npt.NDArray[np.uint8]
Fence = Callable[[], None]  # Returns when the copy that it belongs to is complete.


class CopyStream(ABC):
    """The asynchronous copies of one device, done in the order in which they were started."""

    @abstractmethod
    def allocate_pinned(self, nbytes: int) -> ByteArray:
        """Return memory of the host that the device can reach by itself."""

    @abstractmethod
    def start_upload(self, chunk: ByteArray, target: Any, offset: int) -> Fence:
        """Start copying a chunk into device memory."""

    @abstractmethod
    def start_download(self, source: Any, offset: int, chunk: ByteArray) -> Fence:
        """Start copying device memory into a chunk."""


class ChunkPart(NamedTuple):
    """Bytes of one buffer, and where in a chunk they go."""

    at: int
    buffer: memoryview


class ChunkLoad(NamedTuple):
    """What one chunk carries: from where in the device's memory, how much, and which parts."""

    offset: int
    nbytes: int
    parts: list[ChunkPart]


class Staging:
    """A ring of pinned chunks; one transfer at a time goes through it."""

    def __init__(
        self, stream: CopyStream, *, chunk_bytes: int = CHUNK_BYTES, chunks: int = CHUNKS
    ) -> None:
        self._stream = stream
        self._chunk_bytes = chunk_bytes
        self._count = chunks
        self._chunks: list[ByteArray] = []
        # Held over transfers, unlike the locks of the engine; a forked child never comes here.
        self._lock = new_lock()

    def upload(self, target: Any, pieces: Iterable[tuple[int, memoryview]]) -> None:
        """Copy buffers into device memory; when this returns, all of it is there."""
        with self._lock:
            chunks, fences = self._ring(), [_done] * self._count
            for turn, load in enumerate(chunk_loads(pieces, self._chunk_bytes)):
                slot = turn % self._count
                fences[slot]()
                chunk = chunks[slot][: load.nbytes]
                for at, buffer in load.parts:
                    np.copyto(chunk[at : at + buffer.nbytes], np.frombuffer(buffer, np.uint8))
                fences[slot] = self._stream.start_upload(chunk, target, load.offset)
            for fence in fences:
                fence()

    def download(self, source: Any, pieces: Iterable[tuple[int, memoryview]]) -> None:
        """Copy device memory into writable buffers; when this returns, they are complete."""
        with self._lock:
            chunks = self._ring()
            in_flight: list[tuple[ChunkLoad, ByteArray, Fence]] = []
            for turn, load in enumerate(chunk_loads(pieces, self._chunk_bytes)):
                if len(in_flight) == self._count:
                    _finish_download(*in_flight.pop(0))
                chunk = chunks[turn % self._count][: load.nbytes]
                in_flight.append(
                    (load, chunk, self._stream.start_download(source, load.offset, chunk))
                )
            for load, chunk, fence in in_flight:
                _finish_download(load, chunk, fence)

    def _ring(self) -> list[ByteArray]:
        """Return the chunks, pinned at the first transfer."""
        if not self._chunks:
            self._chunks = [
                self._stream.allocate_pinned(self._chunk_bytes) for _ in range(self._count)
            ]
        return self._chunks


def chunk_loads(pieces: Iterable[tuple[int, memoryview]], chunk_bytes: int) -> Iterator[ChunkLoad]:
    """Yield what each chunk carries: large buffers cut up, small neighbours together."""
    start, parts = 0, list[ChunkPart]()
    for offset, buffer in pieces:
        done = 0
        while done < buffer.nbytes:
            at = offset + done - start
            if parts and at >= chunk_bytes:
                yield _chunk_load(start, parts)
                parts = []
            if not parts:
                start, at = offset + done, 0
            count = min(chunk_bytes - at, buffer.nbytes - done)
            parts.append(ChunkPart(at, buffer[done : done + count]))
            done += count
    if parts:
        yield _chunk_load(start, parts)


def _chunk_load(start: int, parts: list[ChunkPart]) -> ChunkLoad:
    at, last = parts[-1]
    return ChunkLoad(start, at + last.nbytes, parts)


def _finish_download(load: ChunkLoad, chunk: ByteArray, fence: Fence) -> None:
    fence()
    for at, buffer in load.parts:
        np.copyto(np.frombuffer(buffer, np.uint8), chunk[at : at + buffer.nbytes])


def _done() -> None:
    """Wait for nothing: the chunk has not been used yet."""
