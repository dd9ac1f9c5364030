"""An open snapshot file: its rows, and its frames as views of the mapped file.

Opening checks the structure and the manifest, never the values: its cost depends on the number of
keys. `verify` reads every byte. It decodes nothing, so nothing that was read can run code.
"""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

from memories.entry import Record
from memories.errors import CorruptDataError, InvalidOptionError, StorageError
from memories.snapshot import manifest, verification
from memories.snapshot.hashes import first_repeated
from memories.snapshot.manifest import Packed, Row, Whole
from memories.snapshot.structure import Directory, RowCheck
from memories.snapshot.zipformat import TAIL_BYTES, local_header, parse_tail


def open_snapshot(path: str | os.PathLike[str]) -> SnapshotFile:
    """Open the snapshot at `path` and check its structure and manifest.

    Raises:
        StorageError: there is no regular file that can be read.
        CorruptDataError: it is no snapshot, or damaged.
    """
    return SnapshotFile(path)


class SnapshotFile:
    """A snapshot, open for reading. Safe to use from many threads.

    Views that `frame` gave stay valid after `close`. Nobody may truncate the file while it is
    open: the system would end the process that reads the missing part.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._fd, self.file_bytes = _open_regular(self.path)
        try:
            self._map = _map(self._fd, self.file_bytes)
            self._load()
        except CorruptDataError as error:
            self.close()
            raise CorruptDataError(f"{self.path} is no sound snapshot. {error}") from error
        except BaseException:
            self.close()
            raise

    def _load(self) -> None:
        tail_at = max(0, self.file_bytes - TAIL_BYTES)
        members, at = parse_tail(bytes(self._map[tail_at:]), self.file_bytes)
        self._directory = Directory(self._map[:tail_at], members, at)
        self._pages, self.root = self._load_manifest(at)
        check = RowCheck(self.root, self._directory)
        for rows in self._decoded_pages():
            check.add(rows)
        if suspects := check.finish():
            key = first_repeated((row.key for row in self.rows()), suspects)
            if key is not None:
                raise CorruptDataError(f"Its manifest holds the key {key!r} twice.")
        self._digests = check.digests

    def _load_manifest(self, directory_at: int) -> tuple[memoryview, manifest.Root]:
        member = self._directory.manifest
        header = local_header(member)
        if member.end != directory_at or member.head_bytes != manifest.HEAD_BYTES:
            raise CorruptDataError("The manifest does not lie before the central directory.")
        if self._map[member.start : member.head_at] != header:
            raise CorruptDataError("The header of the manifest is damaged.")
        head = manifest.decode_head(bytes(self._map[member.head_at : member.body_at]))
        data = self._map[member.body_at : member.end]
        return data, manifest.decode_root(data, head)

    def _decoded_pages(self) -> Iterator[list[Row]]:
        return manifest.decode_pages(self._pages, self.root.pages)

    @property
    def sequence(self) -> int:
        """Return the version up to which every commit is in the snapshot."""
        return self.root.sequence

    @property
    def keys(self) -> int:
        """Return the number of keys."""
        return self.root.keys

    def rows(self) -> Iterator[Row]:
        """Yield what the manifest says of each key, in bounded memory."""
        for rows in self._decoded_pages():
            yield from rows

    def items(self) -> Iterator[tuple[Record, int, int]]:
        """Yield the record of each key, and the offset and length of its frame in this file.

        Raises:
            InvalidOptionError: the frame lies elsewhere (see `rows`).
        """
        for row in self.rows():
            if not isinstance(row.where, (Whole, Packed)):
                raise InvalidOptionError(f"The frame of {row.key!r} does not lie in {self.path}.")
            yield row.record(), row.where.offset, row.where.length

    def frame(self, offset: int, length: int) -> memoryview:
        """Return the bytes at (offset, length), read-only, without a copy."""
        if offset < 0 or length < 0 or offset + length > self.file_bytes:
            raise CorruptDataError(f"{self.path} ends before the frame at {offset}.")
        return self._map[offset : offset + length]

    def fileno(self) -> int:
        """Return the file's descriptor, which stays this object's."""
        return self._fd

    def verify(self, progress: Callable[[int], object] | None = None) -> None:
        """Read the whole file and check every byte of it.

        `progress` is called with the number of bytes read since its last call.

        Raises:
            CorruptDataError: a byte is not what was written.
        """
        try:
            verification.verify(self._fd, self._directory, self._digests, progress)
        except CorruptDataError as error:
            raise CorruptDataError(f"{self.path} is damaged. {error}") from error
        except OSError as error:
            raise StorageError(f"{self.path} cannot be read: {error}") from error

    def close(self) -> None:
        """Let go of the file; views that were given keep their bytes. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def __enter__(self) -> SnapshotFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _open_regular(path: Path) -> tuple[int, int]:
    try:
        # Without O_NONBLOCK, opening a FIFO would wait for a writer for ever.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise StorageError(f"{path} cannot be opened: {error.strerror}.") from error
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        os.close(fd)
        raise StorageError(f"{path} is no regular file.")
    return fd, status.st_size


def _map(fd: int, size: int) -> memoryview:
    if size < TAIL_BYTES:
        raise CorruptDataError("It is too short to be one.")
    return memoryview(mmap.mmap(fd, size, access=mmap.ACCESS_READ))
