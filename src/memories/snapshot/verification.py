"""Reading a whole snapshot once and comparing every byte with what vouches for it.

Headers are computed again from the directory, heads have their digest in the manifest, data have
their CRC-32. The file is read rather than mapped, so that memory stays bounded, and by several
threads: each takes a stretch of some megabytes, in pieces that stay in its processor's cache.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import xxhash

from memories.errors import CorruptDataError
from memories.snapshot.checksum import combine, crc32
from memories.snapshot.structure import U64, Directory
from memories.snapshot.zipformat import Member, local_header

_STRETCH_BYTES = 8 << 20
_WINDOW_BYTES = 512 << 10
_MOST_THREADS = 4

Progress = Callable[[int], object]


class _Front(NamedTuple):
    """The local header and the head of a member; `digest` is None where the head has none."""

    member: Member
    digest: int | None


class _Body(NamedTuple):
    """A part of a member's data; its sum is compared once the last part is there."""

    member: Member
    length: int
    last: bool


class _Stretch(NamedTuple):
    """What lies one after the other from `start` on."""

    start: int
    length: int
    parts: list[_Front | _Body]


_Sum = tuple[_Body, int]


def verify(fd: int, directory: Directory, digests: U64, progress: Progress | None) -> None:
    """Check every member of the file behind `fd`.

    Raises:
        CorruptDataError: a member is not what was written.
    """
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
    advance = progress or (lambda count: None)
    threads = min(_MOST_THREADS, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads, "memories-verify") as pool:
        crc, waiting = 0, deque[tuple[int, Future[list[_Sum]]]]()
        stretches = _stretches(directory, digests)
        try:
            while True:
                while len(waiting) < 2 * threads and (stretch := next(stretches, None)):
                    waiting.append((stretch.length, pool.submit(_check, fd, stretch)))
                if not waiting:
                    break
                length, checked = waiting.popleft()
                for part in checked.result():
                    crc = _add(crc, *part)
                advance(length)
        finally:
            for _, future in waiting:
                future.cancel()
    # What follows the members was checked when the file was opened.
    advance(os.fstat(fd).st_size - directory.manifest.end)


def _add(crc: int, body: _Body, part: int) -> int:
    """Return the sum of a member's data so far; 0 after its last part, which is compared."""
    crc = combine(crc, part, body.length) if crc else part
    if not body.last:
        return crc
    if crc != body.member.crc:
        raise CorruptDataError(f"The data of its member {_shown(body.member)} are damaged.")
    return 0


def _stretches(directory: Directory, digests: U64) -> Iterator[_Stretch]:
    """Cut the file into stretches, each of whole fronts and of parts of data."""
    start, length, parts = 0, 0, list[_Front | _Body]()
    for index in range(len(directory)):
        member = directory[index]
        # The manifest's own head vouches for itself, and was checked when the file was opened.
        summed = member.head_bytes and index < len(directory) - 1
        parts.append(_Front(member, int(digests[index]) if summed else None))
        length += member.body_at - member.start
        left = member.body_bytes
        while True:
            taken = min(left, max(0, _STRETCH_BYTES - length))
            left -= taken
            length += taken
            parts.append(_Body(member, taken, last=not left))
            if length >= _STRETCH_BYTES:
                yield _Stretch(start, length, parts)
                start, length, parts = start + length, 0, []
            if not left:
                break
    if parts:
        yield _Stretch(start, length, parts)


def _check(fd: int, stretch: _Stretch) -> list[_Sum]:
    """Check the fronts in a stretch, and return the sums of the data in it."""
    source = _Source(fd, stretch.start, stretch.length)
    sums = []
    for part in stretch.parts:
        if isinstance(part, _Front):
            _check_front(source, *part)
        else:
            sums.append((part, source.crc(part.length)))
    return sums


def _check_front(source: _Source, member: Member, digest: int | None) -> None:
    if source.take(member.head_at - member.start) != local_header(member):
        raise CorruptDataError(f"The header of its member {_shown(member)} is damaged.")
    head = source.take(member.head_bytes)
    if digest is not None and xxhash.xxh3_64_intdigest(head) != digest:
        raise CorruptDataError(f"The head of its member {_shown(member)} is damaged.")


def _shown(member: Member) -> str:
    return repr(member.name.decode(errors="replace"))


class _Source:
    """Reads a stretch of a file from front to back, through one small window."""

    def __init__(self, fd: int, start: int, length: int) -> None:
        self._fd = fd
        self._at = start
        self._left = length
        self._buffer = memoryview(bytearray(min(_WINDOW_BYTES, length)))
        self._window = self._buffer[:0]

    def take(self, count: int) -> bytes:
        """Return the next `count` bytes."""
        return b"".join(map(bytes, self._parts(count)))

    def crc(self, count: int) -> int:
        """Return the CRC-32 of the next `count` bytes."""
        crc = 0
        for part in self._parts(count):
            crc = crc32(part, crc)
        return crc

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
            raise CorruptDataError("It has become shorter since it was opened.")
        self._window = self._buffer[:count]
        self._at += count
        self._left -= count
