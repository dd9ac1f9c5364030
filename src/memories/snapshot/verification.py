"""Reads a whole snapshot once and compares every byte with its checksum.

Headers are computed again from the directory, and heads have their digest in the manifest. Data
of large frames have their sums in the head, which are computed several times as fast as the CRC-32
of all other data. The file is read rather than mapped, so that memory stays bounded, and by
several threads: each takes a stretch of some megabytes, in pieces that stay in a cache.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

import xxhash

from memories.errors import CorruptDataError, UnsupportedTypeError
from memories.foundation.system import advise_sequential
from memories.foundation.worker_pool import WorkerPool
from memories.frames import head as frame_head
from memories.snapshot.checksum import combine, crc32
from memories.snapshot.validation import U64, CentralDirectory
from memories.snapshot.zipformat import ALIGNMENT, Member, local_header

_STRETCH_BYTES = 16 << 20
_WINDOW_BYTES = 1 << 20
_LARGE_BYTES = 256 << 10  # Frames from here on are worth a look into their heads.
_MOST_THREADS = 4

Progress = Callable[[int], object]


class _Front(NamedTuple):
    """The local header and the head of a member; `digest` is None where the head has none."""

    member: Member
    digest: int | None


class _Body(NamedTuple):
    """A part of a member's data; its CRC-32 is compared once the last part is there."""

    member: Member
    length: int
    last: bool


class _Chunk(NamedTuple):
    """A part of a member's data that has an xxh3 of its own; None for padding, which is zeros."""

    member: Member
    length: int
    digest: int | None


_Part = _Front | _Body | _Chunk


class _Stretch(NamedTuple):
    """What lies one after the other from `start` on."""

    start: int
    length: int
    parts: list[_Part]


_Sum = tuple[_Body, int]


class _Windows(threading.local):
    """Memory to read into, one piece for each thread."""

    def __init__(self) -> None:
        self.memory = memoryview(bytearray(_WINDOW_BYTES))


def verify(fd: int, directory: CentralDirectory, digests: U64, progress: Progress | None) -> None:
    """Check every member of the file behind `fd`.

    Raises:
        CorruptDataError: a member is not what was written.
    """
    advise_sequential(fd)
    advance = progress or (lambda count: None)
    threads = min(_MOST_THREADS, os.cpu_count() or 1)
    workers, windows, crc = WorkerPool(threads, "verify"), _Windows(), 0

    def check(stretch: _Stretch) -> tuple[int, list[_Sum]]:
        return stretch.length, _check(fd, stretch, windows)

    try:
        stretches = _stretches(_parts(fd, directory, digests))
        for length, checked in workers.map(check, stretches, ahead=2 * threads):
            for part in checked:
                crc = _add(crc, *part)
            advance(length)
    finally:
        workers.close()
    # What follows the members was checked when the file was opened.
    advance(os.fstat(fd).st_size - directory.manifest.end)


def _add(crc: int, body: _Body, part: int) -> int:
    """Return the sum of a member's data so far; 0 after its last part, which is compared."""
    crc = combine(crc, part, body.length) if crc else part
    if not body.last:
        return crc
    if crc != body.member.crc:
        raise CorruptDataError(f"the data of its member {_shown(body.member)} are damaged")
    return 0


def _stretches(parts: Iterator[_Part]) -> Iterator[_Stretch]:
    """Cut the file into stretches of whole parts."""
    start, length, taken = 0, 0, list[_Part]()
    for part in parts:
        taken.append(part)
        length += _length(part)
        if length >= _STRETCH_BYTES:
            yield _Stretch(start, length, taken)
            start, length, taken = start + length, 0, []
    if taken:
        yield _Stretch(start, length, taken)


def _length(part: _Part) -> int:
    if isinstance(part, _Front):
        return part.member.body_at - part.member.start
    return part.length


def _parts(fd: int, directory: CentralDirectory, digests: U64) -> Iterator[_Part]:
    """Yield the parts of the members, in the order of the file."""
    for index in range(len(directory)):
        member = directory[index]
        # The manifest's own head vouches for itself, and was checked when the file was opened.
        summed = member.head_bytes and index < len(directory) - 1
        digest = int(digests[index]) if summed else None
        yield _Front(member, digest)
        chunks = None
        if digest is not None and member.body_bytes >= _LARGE_BYTES:
            chunks = _chunks(member, os.pread(fd, member.head_bytes, member.head_at), digest)
        yield from _bodies(member) if chunks is None else chunks


def _bodies(member: Member) -> Iterator[_Body]:
    left = member.body_bytes
    while True:
        taken = min(left, _STRETCH_BYTES)
        left -= taken
        yield _Body(member, taken, last=not left)
        if not left:
            return


def _chunks(member: Member, head: bytes, digest: int) -> list[_Chunk] | None:
    """Return the parts of a body as its frame's head has them; None if it does not have all."""
    if xxhash.xxh3_64_intdigest(head) != digest:
        raise CorruptDataError(f"the head of its member {_shown(member)} is damaged")
    try:
        fields = frame_head.read_head(memoryview(head)).fields
        if fields.spill is not None:
            return None
        pieces = frame_head.read_content(fields.content).buffers
        if fields.prelude is not None:
            pieces = [fields.prelude, *pieces]
        frame_head.check_pieces(pieces, member.body_bytes)
        gaps = _gaps(pieces, member.body_bytes)
    except (CorruptDataError, UnsupportedTypeError):
        return None  # It is as it was written; its opening will raise the error.
    if gaps[0] or max(gaps) >= ALIGNMENT:
        return None
    chunks = list[_Chunk]()
    for piece, gap in zip(pieces, gaps[1:], strict=True):
        lengths, sums = piece.chunk_lengths(), piece.chunk_sums()
        chunks += [_Chunk(member, n, total) for n, total in zip(lengths, sums, strict=True)]
        if gap:
            chunks.append(_Chunk(member, gap, None))
    return chunks


def _gaps(pieces: list[frame_head.FramePiece], body_bytes: int) -> list[int]:
    """Return how many bytes lie before, between and behind the pieces."""
    starts = [piece.offset for piece in pieces]
    ends = [piece.offset + piece.stored for piece in pieces]
    return [start - end for start, end in zip([*starts, body_bytes], [0, *ends], strict=True)]


def _check(fd: int, stretch: _Stretch, windows: _Windows) -> list[_Sum]:
    """Check the fronts and chunks in a stretch, and return the CRC-32 of other data in it."""
    source = _Source(fd, stretch.start, stretch.length, windows.memory)
    sums = []
    for part in stretch.parts:
        if isinstance(part, _Front):
            _check_front(source, *part)
        elif isinstance(part, _Body):
            sums.append((part, source.crc(part.length)))
        else:
            _check_chunk(source, part)
    return sums


def _check_chunk(source: _Source, chunk: _Chunk) -> None:
    if chunk.digest is None:
        sound = not any(source.take(chunk.length))
    else:
        sound = source.xxh3(chunk.length) == chunk.digest
    if not sound:
        raise CorruptDataError(f"the data of its member {_shown(chunk.member)} are damaged")


def _check_front(source: _Source, member: Member, digest: int | None) -> None:
    if source.take(member.head_at - member.start) != local_header(member):
        raise CorruptDataError(f"the header of its member {_shown(member)} is damaged")
    head = source.take(member.head_bytes)
    if digest is not None and xxhash.xxh3_64_intdigest(head) != digest:
        raise CorruptDataError(f"the head of its member {_shown(member)} is damaged")


def _shown(member: Member) -> str:
    return repr(member.name.decode(errors="replace"))


class _Source:
    """Reads a stretch of a file from front to back, through one small window."""

    def __init__(self, fd: int, start: int, length: int, memory: memoryview) -> None:
        self._fd = fd
        self._at = start
        self._left = length
        self._buffer = memory
        self._window = memory[:0]

    def take(self, count: int) -> bytes:
        """Return the next `count` bytes."""
        return b"".join(map(bytes, self._parts(count)))

    def crc(self, count: int) -> int:
        """Return the CRC-32 of the next `count` bytes."""
        crc = 0
        for part in self._parts(count):
            crc = crc32(part, crc)
        return crc

    def xxh3(self, count: int) -> int:
        """Return the xxh3_64 of the next `count` bytes."""
        total = xxhash.xxh3_64()
        for part in self._parts(count):
            total.update(part)
        return total.intdigest()

    def _parts(self, count: int) -> Iterator[memoryview]:
        while count:
            if not self._window:
                self._refill()
            part, self._window = self._window[:count], self._window[count:]
            count -= len(part)
            yield part

    def _refill(self) -> None:
        count = os.preadv(self._fd, [self._buffer[: self._left]], self._at)
        if not count:
            raise CorruptDataError("it has become shorter since it was opened")
        self._window = self._buffer[:count]
        self._at += count
        self._left -= count
