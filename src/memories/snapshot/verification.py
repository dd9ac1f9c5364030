"""Reading a whole snapshot once, in file order, and comparing every byte with what vouches for it.

Headers are computed again from the directory, heads have their digest in the manifest, data have
their CRC-32. The file is read rather than mapped, so that memory stays bounded.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor

import xxhash

from memories.errors import CorruptDataError
from memories.snapshot.checksum import crc32
from memories.snapshot.structure import U64, Directory
from memories.snapshot.zipformat import Member, local_header

_CHUNK_BYTES = 4 << 20

Progress = Callable[[int], object]


def verify(fd: int, directory: Directory, digests: U64, progress: Progress | None) -> None:
    """Check every member of the file behind `fd`.

    Raises:
        CorruptDataError: a member is not what was written.
    """
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
    with ThreadPoolExecutor(1, "memories-verify") as reader:
        source = _Source(fd, reader, progress or (lambda count: None))
        for index in range(len(directory)):
            member = directory[index]
            _check_head(source, member, int(digests[index]), last=index == len(directory) - 1)
            if source.crc(member.body_bytes) != member.crc:
                raise CorruptDataError(f"The data of its member {_shown(member)} are damaged.")


def _check_head(source: _Source, member: Member, digest: int, *, last: bool) -> None:
    if source.take(member.head_at - member.start) != local_header(member):
        raise CorruptDataError(f"The header of its member {_shown(member)} is damaged.")
    head = source.take(member.head_bytes)
    # The manifest's own head vouches for itself, and was checked when the file was opened.
    if member.head_bytes and not last and xxhash.xxh3_64_intdigest(head) != digest:
        raise CorruptDataError(f"The head of its member {_shown(member)} is damaged.")


def _shown(member: Member) -> str:
    return repr(member.name.decode(errors="replace"))


class _Source:
    """Reads a file from front to back: one buffer is filled while the other is looked at."""

    def __init__(self, fd: int, reader: Executor, progress: Progress) -> None:
        self._fd = fd
        self._reader = reader
        self._progress = progress
        self._size = os.fstat(fd).st_size
        chunk_bytes = min(_CHUNK_BYTES, self._size)
        self._front, self._back = (memoryview(bytearray(chunk_bytes)) for _ in range(2))
        self._window = self._front[:0]
        self._at = 0
        self._next: Future[int] | None = None

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
        count = self._read() if self._next is None else self._next.result()
        if not count:
            raise CorruptDataError("It has become shorter since it was opened.")
        self._front, self._back = self._back, self._front
        self._window = self._front[:count]
        self._at += count
        self._next = self._reader.submit(self._read) if self._at < self._size else None
        self._progress(count)

    def _read(self) -> int:
        return os.preadv(self._fd, [self._back], self._at)
