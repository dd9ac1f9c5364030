"""An open snapshot file: its rows, and its frames as views of the mapped file.

Opening checks the structure and the manifest, never the values: its cost depends on the number of
keys. `verify` reads every byte. It decodes nothing, so nothing that was read can run code.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from memories.errors import CorruptDataError, InvalidOptionError, StorageError
from memories.model.record import Record
from memories.sealing.master_key import EncryptionKey
from memories.snapshot import manifest, verification
from memories.snapshot.manifest import Packed, Root, SnapshotRow, Whole
from memories.snapshot.pread_file import PreadFile
from memories.snapshot.validation import CentralDirectory, RowCheck
from memories.snapshot.zipformat import TAIL_BYTES, parse_tail

_VERIFIED_BYTES = 8 << 20
_KEPT_ROWS = 65_536  # Decoded once, in some 15 MB; more are decoded again at each use.
_WINDOW_BYTES = 256 << 10  # That are read at once for small frames.


def open_snapshot(path: str | os.PathLike[str], key: EncryptionKey | None = None) -> SnapshotFile:
    """Open the snapshot at `path` and check its structure and manifest.

    Raises:
        StorageError: there is no regular file that can be read.
        CorruptDataError: it is not a snapshot, or it is damaged.
        EncryptionKeyError: it is encrypted, and `key` is not its key.
    """
    return SnapshotFile(path, key)


class SnapshotFile:
    """A snapshot, open for reading. Safe to use from many threads.

    Views that `frame` gave stay valid after `close`. The file must not be truncated while it
    is open: the system would end the process that reads the missing part.
    """

    def __init__(self, path: str | os.PathLike[str], key: EncryptionKey | None = None) -> None:
        self.path = Path(path)
        self._file = PreadFile(self.path, key)
        self._mapped: memoryview | None = None
        self._kept: list[list[SnapshotRow]] = []  # All pages, where they are few.
        try:
            self._load()
        except CorruptDataError as error:
            self.close()
            raise CorruptDataError(f"{self.path} cannot be opened: {error}") from error
        except BaseException:
            self.close()
            raise

    def _load(self) -> None:
        size = self.file_bytes
        tail_at = max(0, size - TAIL_BYTES)
        members, directory_at = parse_tail(self._file.read(tail_at, size - tail_at), size)
        self._directory = CentralDirectory(self._file, members, directory_at, tail_at)
        self.root = self._load_root()
        check, kept = RowCheck(self.root, self._directory), list[list[SnapshotRow]]()
        for rows in self.pages():
            check.add(rows)
            if self.root.keys <= _KEPT_ROWS:
                kept.append(rows)
        self._kept = kept
        check.finish()
        self._digests = check.digests
        self.extents = check.extents
        self.tiers, self.references = check.tiers, check.references

    def _load_root(self) -> Root:
        member, read = self._directory.manifest, self._file.read
        if member.head_bytes != manifest.HEAD_BYTES:
            raise CorruptDataError("its manifest has no head")
        head = manifest.decode_head(read(member.head_at, member.head_bytes))
        if head.root_bytes > member.body_bytes:
            raise CorruptDataError("its manifest is shorter than the root that it declares")
        encoded = read(member.end - head.root_bytes, head.root_bytes)
        return manifest.decode_root(encoded, head, member.body_bytes)

    @property
    def file_bytes(self) -> int:
        """Return the size of the file."""
        return self._file.size

    @property
    def sequence(self) -> int:
        """Return the version up to which every commit is in the snapshot."""
        return self.root.sequence

    @property
    def keys(self) -> int:
        """Return the number of keys."""
        return self.root.keys

    def pages(self) -> Iterator[list[SnapshotRow]]:
        """Yield what the manifest says of each key, in key order, some thousand at a time."""
        if self._kept:
            return iter(self._kept)
        at = self._directory.manifest.body_at
        return manifest.decode_pages(self._file.read, at, self.root.pages)

    def rows(self) -> Iterator[SnapshotRow]:
        """Yield what the manifest says of each key, in key order, in bounded memory."""
        for rows in self.pages():
            yield from rows

    def items(self) -> Iterator[tuple[Record, int, int]]:
        """Yield the record of each key, and the offset and length of its frame in this file.

        Raises:
            InvalidOptionError: the frame lies elsewhere (see `rows`).
        """
        for row in self.rows():
            if not isinstance(row.where, (Whole, Packed)):
                raise InvalidOptionError(f"the frame of {row.key!r} is not in {self.path}")
            yield row.record(), row.where.offset, row.where.length

    @property
    def is_encrypted(self) -> bool:
        """Return whether the file is encrypted."""
        return self._file.sealed is not None

    def frame(self, offset: int, length: int) -> memoryview:
        """Return the bytes at (offset, length), read-only; without a copy unless encrypted.

        Raises:
            CorruptDataError: the file does not reach so far.
        """
        if self._file.sealed is not None:
            return self._file.view(offset, length)
        size = os.fstat(self._file.fileno()).st_size
        if offset < 0 or length < 0 or offset + length > min(size, self.file_bytes):
            raise CorruptDataError(f"{self.path} ends before the frame at {offset}")
        if self._mapped is None:
            mapped = mmap.mmap(self._file.fileno(), self.file_bytes, access=mmap.ACCESS_READ)
            self._mapped = memoryview(mapped)
        return self._mapped[offset : offset + length]

    def frames(self, places: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return the bytes at each (offset, length); neighbours are read in one call.

        Raises:
            CorruptDataError: the file does not reach so far.
            StorageError: it cannot be read.
        """
        found = list[bytes]()
        last = max([offset + length for offset, length in places], default=0)
        data, begin, end = b"", 0, 0
        for offset, length in places:
            if not begin <= offset <= offset + length <= end:
                begin, end = offset, max(offset + length, min(last, offset + _WINDOW_BYTES))
                data = self._file.read(begin, end - begin)
            found.append(data[offset - begin : offset - begin + length])
        return found

    def require_in_place(self) -> None:
        """Raise StorageError unless the file that is open still lies at its path."""
        mine = os.fstat(self._file.fileno())
        try:
            there = self.path.stat()
        except OSError as error:
            raise StorageError(f"{self.path} is gone: {error.strerror}") from error
        if (mine.st_dev, mine.st_ino, mine.st_size) != (there.st_dev, there.st_ino, there.st_size):
            raise StorageError(f"{self.path} was replaced while it was read: try again")

    def fileno(self) -> int:
        """Return the file's descriptor, which stays this object's."""
        return self._file.fileno()

    def verify(self, progress: Callable[[int], object] | None = None) -> None:
        """Read the whole file and check every byte of it.

        `progress` is called with the number of bytes read since its last call.

        Raises:
            CorruptDataError: a byte is not what was written.
        """
        try:
            if self._file.sealed is not None:
                self._verify_sealed(progress or (lambda count: None))
                return
            verification.verify(self._file.fileno(), self._directory, self._digests, progress)
        except CorruptDataError as error:
            raise CorruptDataError(f"{self.path} is damaged: {error}") from error
        except OSError as error:
            raise StorageError(f"{self.path} cannot be read: {error}") from error

    def _verify_sealed(self, progress: Callable[[int], object]) -> None:
        """Decrypt every byte: each chunk has a tag, which no accident and no forger can match."""
        for at in range(0, self.file_bytes, _VERIFIED_BYTES):
            progress(len(self._file.read(at, min(_VERIFIED_BYTES, self.file_bytes - at))))

    def close(self) -> None:
        """Close the file; views that were given stay valid. Idempotent."""
        self._file.close()

    def __enter__(self) -> SnapshotFile:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
