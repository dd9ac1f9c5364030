"""The way between the host's pageable memory and a device: a few pinned chunks, used in turn.

Not a device and not a policy. The one idea: a chunk is filled while the device still works on the
others, and never touched again before the device says that it is through with it. Whatever the size
of a value, no more memory is pinned than the chunks, and many small buffers share a chunk.
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
Fence = Callable[[], None]  # Returns when what it was made for has been done.


class Lane(ABC):
    """The asynchronous copies of one device, in the order in which they were asked for."""

    @abstractmethod
    def pin(self, nbytes: int) -> ByteArray:
        """Return memory of the host that the device can reach by itself."""

    @abstractmethod
    def push(self, chunk: ByteArray, target: Any, offset: int) -> Fence:
        """Start copying a chunk into device memory."""

    @abstractmethod
    def pull(self, source: Any, offset: int, chunk: ByteArray) -> Fence:
        """Start copying device memory into a chunk."""


class Stretch(NamedTuple):
    """Bytes of one buffer, and where in a chunk they go."""

    at: int
    buffer: memoryview


class Load(NamedTuple):
    """What one chunk carries: from where in the device's memory, how much, and which stretches."""

    offset: int
    nbytes: int
    stretches: list[Stretch]


class Staging:
    """A ring of pinned chunks; one transfer at a time goes through it."""

    def __init__(self, lane: Lane, *, chunk_bytes: int = CHUNK_BYTES, chunks: int = CHUNKS) -> None:
        self._lane = lane
        self._chunk_bytes = chunk_bytes
        self._count = chunks
        self._chunks: list[ByteArray] = []
        # Held over transfers, unlike the locks of the engine; a forked child never comes here.
        self._lock = new_lock()

    def upload(self, target: Any, pieces: Iterable[tuple[int, memoryview]]) -> None:
        """Copy buffers into device memory; when this returns, all of it is there."""
        with self._lock:
            chunks, fences = self._ring(), [_done] * self._count
            for turn, load in enumerate(loads(pieces, self._chunk_bytes)):
                slot = turn % self._count
                fences[slot]()
                chunk = chunks[slot][: load.nbytes]
                for at, buffer in load.stretches:
                    np.copyto(chunk[at : at + buffer.nbytes], np.frombuffer(buffer, np.uint8))
                fences[slot] = self._lane.push(chunk, target, load.offset)
            for fence in fences:
                fence()

    def download(self, source: Any, pieces: Iterable[tuple[int, memoryview]]) -> None:
        """Copy device memory into writable buffers; when this returns, they are complete."""
        with self._lock:
            chunks = self._ring()
            flying: list[tuple[Load, ByteArray, Fence]] = []
            for turn, load in enumerate(loads(pieces, self._chunk_bytes)):
                if len(flying) == self._count:
                    _land(*flying.pop(0))
                chunk = chunks[turn % self._count][: load.nbytes]
                flying.append((load, chunk, self._lane.pull(source, load.offset, chunk)))
            for load, chunk, fence in flying:
                _land(load, chunk, fence)

    def _ring(self) -> list[ByteArray]:
        """Return the chunks, pinned at the first transfer."""
        if not self._chunks:
            self._chunks = [self._lane.pin(self._chunk_bytes) for _ in range(self._count)]
        return self._chunks


def loads(pieces: Iterable[tuple[int, memoryview]], chunk_bytes: int) -> Iterator[Load]:
    """Yield what each chunk carries: large buffers cut up, small neighbours together."""
    start, stretches = 0, list[Stretch]()
    for offset, buffer in pieces:
        done = 0
        while done < buffer.nbytes:
            at = offset + done - start
            if stretches and at >= chunk_bytes:
                yield _load(start, stretches)
                stretches = []
            if not stretches:
                start, at = offset + done, 0
            count = min(chunk_bytes - at, buffer.nbytes - done)
            stretches.append(Stretch(at, buffer[done : done + count]))
            done += count
    if stretches:
        yield _load(start, stretches)


def _load(start: int, stretches: list[Stretch]) -> Load:
    at, last = stretches[-1]
    return Load(start, at + last.nbytes, stretches)


def _land(load: Load, chunk: ByteArray, fence: Fence) -> None:
    fence()
    for at, buffer in load.stretches:
        np.copyto(np.frombuffer(buffer, np.uint8), chunk[at : at + buffer.nbytes])


def _done() -> None:
    """Wait for nothing: the chunk has not been used yet."""
