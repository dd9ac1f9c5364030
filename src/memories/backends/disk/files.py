"""The calls that this backend makes to the operating system, in one small class.

A test replaces `Files` to fail the N-th call, or to lose what was not synced. Data files are
written once: no call truncates or overwrites.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from memories.backends.disk.seal import StoreSeal
from memories.errors import StorageError
from memories.foundation.private_mapping import map_private
from memories.foundation.regular_file import open_regular
from memories.foundation.system import allocate, sync, sync_data
from memories.foundation.writeback import WRITEBACK_BYTES, begin_writeback

NO_SPACE = frozenset((errno.ENOSPC, errno.EDQUOT))  # What a full disk says.
_ADVICE = {
    errno.ENOSPC: "the disk is full; free some space, nothing stored before is lost",
    errno.EDQUOT: "the quota is used up; free some space, nothing stored before is lost",
    errno.EROFS: "the file system is read-only; open the store with read_only=True",
    errno.EACCES: "permission was denied; check the owner of the directory",
    errno.EMFILE: "this process has too many open files; raise `ulimit -n`",
    errno.ENFILE: "the system has too many open files",
    errno.EIO: "the disk reported an input/output error; check its health",
}
_GATHER = 512  # Buffers per system call; the kernel's limit is 1024.


class Files:
    """The operating system, and what encrypts the files of a store: None if nothing does."""

    seal: StoreSeal | None = None

    def create(self, path: Path) -> int:
        """Create a file that must not exist yet and return its descriptor, for appending."""
        return open_regular(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND)

    def reopen(self, path: Path) -> int:
        """Open a file to append more to it."""
        return open_regular(path, os.O_RDWR | os.O_APPEND)

    def open(self, path: Path) -> int:
        """Open a file for reading; OSError if something else than a regular file lies there."""
        return open_regular(path, os.O_RDONLY)

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        """Append what the system takes of `data` and return how much that was."""
        return os.write(descriptor, data)

    def writev(self, descriptor: int, buffers: Sequence[bytes | memoryview]) -> int:
        """Append what the system takes of `buffers` and return how much that was."""
        return os.writev(descriptor, buffers)

    def allocate(self, descriptor: int, length: int) -> None:
        """Take `length` bytes on the disk for an empty file."""
        allocate(descriptor, length)

    def read(self, descriptor: int, length: int, offset: int) -> bytes:
        """Read up to `length` bytes at `offset`."""
        return os.pread(descriptor, length, offset)

    def size(self, descriptor: int) -> int:
        """Return the length of an open file."""
        return os.fstat(descriptor).st_size

    def named(self, descriptor: int, path: Path) -> bool:
        """Return whether an open file is still the one that lies at `path`."""
        mine = os.fstat(descriptor)
        try:
            there = path.lstat()
        except FileNotFoundError:
            return False
        return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)

    def sync(self, descriptor: int) -> None:
        """Return once the file's bytes and length survive a power cut."""
        sync_data(descriptor)

    def begin_sync(self, descriptor: int, offset: int, length: int) -> None:
        """Begin to write these bytes to the disk; the `sync` that follows reports failures."""
        begin_writeback(descriptor, offset, length)

    def close(self, descriptor: int) -> None:
        """Close a descriptor."""
        os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """Give a file its final name, atomically."""
        source.rename(target)

    def link(self, source: Path, target: Path) -> None:
        """Give a file a second name."""
        os.link(source, target)

    def unlink(self, path: Path) -> None:
        """Remove a name; open descriptors and mappings keep the file."""
        path.unlink(missing_ok=True)

    def mkdir(self, path: Path) -> None:
        """Create a directory that only its owner can enter, unless it exists."""
        path.mkdir(mode=0o700, exist_ok=True)

    def sync_directory(self, path: Path) -> None:
        """Return once the names in a directory survive a power cut."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            sync(descriptor)
        finally:
            os.close(descriptor)

    def map(self, descriptor: int, length: int, offset: int = 0) -> mmap.mmap:
        """Map `length` bytes of a file from `offset` on, read-only; whole pages come before it."""
        return mmap.mmap(descriptor, length, prot=mmap.PROT_READ, offset=offset)

    def map_private(self, descriptor: int, length: int, offset: int) -> Any | None:
        """Map as `map` does, for one reader, who may write to it; None if it must be read."""
        return map_private(descriptor, length, offset)


class UnsyncedFiles(Files):
    """Files that end with this process: nothing is gained if they survive a power cut."""

    def sync(self, descriptor: int) -> None:
        """Leave it to the system when it writes to the disk."""

    def begin_sync(self, descriptor: int, offset: int, length: int) -> None:
        """Begin nothing: no `sync` follows."""

    def sync_directory(self, path: Path) -> None:
        """Leave it to the system when it writes to the disk."""


def append(files: Files, descriptor: int, buffers: Sequence[bytes | memoryview]) -> int:
    """Append all of `buffers`, however many calls that takes, and return their length."""
    pending = [memoryview(buffer).cast("B") for buffer in buffers if memoryview(buffer).nbytes]
    pending.reverse()
    total = 0
    while pending:
        batch = pending[: -_GATHER - 1 : -1]
        written = files.writev(descriptor, batch)
        total += written
        while pending and written >= pending[-1].nbytes:
            written -= pending.pop().nbytes
        if written:
            pending[-1] = pending[-1][written:]
    return total


def append_early(
    files: Files, descriptor: int, blocks: Iterable[Sequence[bytes | memoryview]]
) -> int:
    """Append as `append` does, to an empty file that is synced next, and begin that meanwhile.

    The buffers of a block are written before the next block is asked for.
    """
    total = begun = 0
    for block in blocks:
        for piece in _pieces(block):
            total += append(files, descriptor, piece)
            if total - begun >= WRITEBACK_BYTES:
                files.begin_sync(descriptor, begun, total - begun)
                begun = total
    return total


def _pieces(buffers: Iterable[bytes | memoryview]) -> Iterator[list[memoryview]]:
    piece: list[memoryview] = []
    held = 0
    for view in (memoryview(buffer) for buffer in buffers):
        flat = view.cast("B") if view.nbytes else memoryview(b"")
        for start in range(0, flat.nbytes, WRITEBACK_BYTES):
            piece.append(flat[start : start + WRITEBACK_BYTES])
            held += piece[-1].nbytes
            if held >= WRITEBACK_BYTES:
                yield piece
                piece, held = [], 0
    if piece:
        yield piece


def read_exactly(files: Files, descriptor: int, length: int, offset: int) -> bytes:
    """Read `length` bytes at `offset`, or fewer where the file ends before."""
    data = files.read(descriptor, length, offset)
    if len(data) == length or not data:
        return data
    parts = [data]
    missing = length - len(data)
    while missing and data:
        data = files.read(descriptor, missing, offset + length - missing)
        parts.append(data)
        missing -= len(data)
    return b"".join(parts)


def sync_file(files: Files, path: Path) -> None:
    """Sync a file that is not open here."""
    descriptor = files.open(path)
    try:
        files.sync(descriptor)
    finally:
        files.close(descriptor)


def storage_error(action: str, root: Path, error: OSError) -> StorageError:
    """Return a `StorageError` that says what failed, where, why, and what to do."""
    advice = _ADVICE.get(error.errno or 0, "check the disk and the directory")
    refused = StorageError(f"could not {action} in {root}: {error.strerror or error}; {advice}")
    refused.errno = error.errno
    return refused
