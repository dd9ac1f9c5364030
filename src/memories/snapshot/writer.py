"""Writes a snapshot file: frames in, one ZIP out.

A large frame becomes a member of its own: its head ends the local header's extra field and its body
is the data, so that it is one contiguous frame and an ordinary ZIP member.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import msgspec
import xxhash

from memories._version import __version__
from memories.errors import InvalidOptionError, MemoriesError, StorageError
from memories.foundation.clock import SystemClock
from memories.frames.store_binding import Statement
from memories.model.record import Record
from memories.sealing.master_key import EncryptionKey
from memories.snapshot import manifest
from memories.snapshot.atomicfile import AtomicFile, SealedOutput
from memories.snapshot.checksum import crc32
from memories.snapshot.manifest import (
    PACKED,
    Base,
    Linked,
    PageBuilder,
    Reference,
    Root,
    Row,
    Where,
    Whole,
    row_of,
)
from memories.snapshot.member_names import MANIFEST, member_name, packed_name
from memories.snapshot.zipformat import (
    ALIGNMENT,
    MAX_HEAD_BYTES,
    Member,
    central_entry,
    local_header,
    tail,
)  # fmt: skip

Segments = Sequence[memoryview]

SMALL_BYTES = 4096
_PADDING = tuple(bytes(-count % ALIGNMENT) for count in range(ALIGNMENT))
_NPY_MAGIC = b"\x93NUMPY"  # What `numpy.load` looks at to tell an array from other members.
_PACK_BYTES = 1 << 20
_WAITING_ROWS = 4096
_CHUNK_BYTES = 1 << 20
_SPOOL_BYTES = 8 << 20


class Item(NamedTuple):
    """One key to be written: its record, and its frame or where the frame lies already.

    A frame is a gather list whose first buffer is the head, or a callable that returns one when
    its turn comes.
    """

    record: Record
    source: Segments | Callable[[], Segments] | Linked | Reference


class SmallItems(NamedTuple):
    """Keys to be written whose frames are small, in their order."""

    records: list[Record]
    frames: list[bytes | memoryview]


class Created(NamedTuple):
    """What `create` wrote."""

    path: Path
    id: bytes
    keys: int
    file_bytes: int


def create(
    path: str | os.PathLike[str],
    items: Iterable[Item | SmallItems],
    *,
    sequence: int,
    bases: Sequence[Base] = (),
    archive: str = "",
    progress: Callable[[int], object] | None = None,
    created_at: float | None = None,
    identity: bytes | None = None,
    stores: Sequence[tuple[bytes, Statement]] = (),
    key: EncryptionKey | None = None,
) -> Created:
    """Write a snapshot of `items` to `path`, replacing what lies there at the very end.

    The items come in the order of their keys. The file is durable when this returns. Whatever goes
    wrong before that, `path` is as it was and nothing else is left. Memory stays bounded by the
    largest gather list, not by the number of keys. `progress` is called with the number of bytes
    written since its last call. `created_at` is now, and `identity` 16 random bytes, unless they
    are given. `archive` names the bucket that references are about, `stores` those whose signed
    values are here. With `key` the file is encrypted.

    Raises:
        StorageError: the disk or the directory refused something.
        InvalidOptionError: the keys are out of order or repeated, or a frame's head is none.
    """
    with AtomicFile(path) as plain:
        file = plain if key is None else SealedOutput(plain, key)
        writer = _Writer(file, Path(path).parent)
        try:
            done = 0
            for item in items:
                writer.add(item)
                if progress and file.offset != done:
                    progress(file.offset - done)
                    done = file.offset
            root = writer.finish(
                Root(
                    id=secrets.token_bytes(16) if identity is None else identity,
                    sequence=sequence,
                    created_at=SystemClock().wall() if created_at is None else created_at,
                    writer=f"memories {__version__}",
                    archive=archive,
                    bases=list(bases),
                    stores=list(stores) or msgspec.UNSET,
                )
            )
        except OSError as error:
            if isinstance(error, MemoriesError):
                raise
            raise StorageError(f"{path} cannot be written: {error}") from error
        finally:
            writer.close()
        file_bytes = file.offset
        file.commit()
    return Created(Path(path), root.id, root.keys, file_bytes)


class _Writer:
    def __init__(self, file: AtomicFile | SealedOutput, directory: Path) -> None:
        self._file = file
        self._pages = PageBuilder()
        # They name keys: those of an encrypted file stay in RAM.
        in_ram = isinstance(file, SealedOutput)
        self._page_file, self._directory_file = _spool(directory, in_ram), _spool(directory, in_ram)
        self._members = 0
        self._packs = 0
        self._pack = bytearray()  # Small frames and their padding.
        # Records in their order, and for each the length of its frame in the pack, which has no
        # place yet, or where its frame is.
        self._records: list[Record] = []
        self._places: list[int | Where] = []
        self._last_key = ""

    def add(self, item: Item | SmallItems) -> None:
        if isinstance(item, SmallItems):
            self._add_small(*item)
            return
        record, source = item
        if record.key <= self._last_key:
            raise _out_of_order(record.key, self._last_key)
        if isinstance(source, (Linked, Reference)):
            self._add_row(record, source)
            return
        segments = source() if callable(source) else source
        length = sum([segment.nbytes for segment in segments])
        if length < SMALL_BYTES:
            self._add_small([record], [b"".join(segments)])
        else:
            self._add_large(record, segments, length)

    def _add_small(self, records: list[Record], frames: list[bytes | memoryview]) -> None:
        last, pack = self._last_key, self._pack
        for record, frame in zip(records, frames, strict=True):
            if record.key <= last:
                raise _out_of_order(record.key, last)
            last, length = record.key, len(frame)
            self._records.append(record)
            self._places.append(length)
            pack += frame
            pack += _PADDING[length % ALIGNMENT]
            if len(pack) >= _PACK_BYTES:
                self._flush_pack()
                pack = self._pack
        self._last_key = last

    def _flush_pack(self) -> None:
        name = packed_name(self._packs).encode()
        member = Member(name, self._file.offset, 0, len(self._pack), crc32(self._pack))
        self._file.write([local_header(member), self._pack])
        self._add_member(member)
        at, rows = member.body_at, list[Row]()
        for record, place in zip(self._records, self._places, strict=True):
            if isinstance(place, int):
                rows.append(row_of(record, (PACKED, at, place)))
                at += place + -place % ALIGNMENT
            else:
                rows.append(row_of(record, place))
        self._put_rows(rows)
        self._packs += 1
        self._pack, self._records, self._places = bytearray(), [], []

    def _add_large(self, record: Record, segments: Segments, length: int) -> None:
        head, *body = segments
        if head.nbytes > MAX_HEAD_BYTES or head.nbytes % ALIGNMENT:
            raise InvalidOptionError(
                f"the frame of {record.key!r} starts with {head.nbytes} bytes, not with a head"
            )
        npy = bool(body) and body[0][: len(_NPY_MAGIC)] == _NPY_MAGIC
        name = member_name(record.key, npy=npy).encode()
        member = Member(name, self._file.offset, head.nbytes, length - head.nbytes, 0)
        if length < 2 * _CHUNK_BYTES or isinstance(self._file, SealedOutput):
            member = self._write_short(self._file, member, head, body)
        else:
            member = self._write_long(self._file, member, head, body)
        self._add_member(member)
        digest = xxhash.xxh3_64_intdigest(head)
        self._add_row(record, Whole(member.head_at, length, digest))

    def _write_short(
        self, file: AtomicFile | SealedOutput, member: Member, head: memoryview, body: Segments
    ) -> Member:
        crc = 0
        for segment in body:
            crc = crc32(segment, crc)
        member = member._replace(crc=crc)
        file.write([local_header(member), head, *body])
        return member

    def _write_long(
        self, file: AtomicFile, member: Member, head: memoryview, body: Segments
    ) -> Member:
        # The header holds the checksum of what follows it, so it is written last: the body is
        # read once, each chunk being written while the processor's cache still holds it.
        file.skip(member.body_at - member.start)
        crc = 0
        for segment in body:
            for at in range(0, segment.nbytes, _CHUNK_BYTES):
                chunk = segment[at : at + _CHUNK_BYTES]
                crc = crc32(chunk, crc)
                file.write([chunk])
        member = member._replace(crc=crc)
        file.fill(member.start, local_header(member) + bytes(head))
        return member

    def _add_member(self, member: Member) -> None:
        self._members += 1
        self._directory_file.write(central_entry(member))

    def _add_row(self, record: Record, where: Where) -> None:
        self._last_key = record.key
        if not self._records:
            self._put_rows([row_of(record, where)])
            return
        self._records.append(record)
        self._places.append(where)
        if len(self._records) >= _WAITING_ROWS:
            self._flush_pack()

    def _put_rows(self, rows: list[Row]) -> None:
        if pages := self._pages.add(rows):
            self._page_file.write(pages)

    def finish(self, root: Root) -> Root:
        """Write the manifest, the central directory and the end of the file."""
        if self._records:
            self._flush_pack()
        self._page_file.write(self._pages.flush())
        root = msgspec.structs.replace(root, keys=self._pages.keys, pages=self._pages.pages)
        self._write_manifest(root)
        directory_at = self._file.offset
        self._copy(self._directory_file)
        directory_bytes = self._file.offset - directory_at
        self._file.write([tail(self._members, directory_at, directory_bytes)])
        return root

    def _write_manifest(self, root: Root) -> None:
        head, encoded = manifest.encode_root(root)
        crc = 0
        for chunk in (*_chunks(self._page_file), encoded):
            crc = crc32(chunk, crc)
        size = self._page_file.tell() + len(encoded)
        member = Member(MANIFEST.encode(), self._file.offset, len(head), size, crc)
        self._file.write([local_header(member), head])
        self._copy(self._page_file)
        self._file.write([encoded])
        self._add_member(member)

    def _copy(self, spool: IO[bytes]) -> None:
        for chunk in _chunks(spool):
            self._file.write([chunk])

    def close(self) -> None:
        self._page_file.close()
        self._directory_file.close()


def _out_of_order(key: str, last: str) -> InvalidOptionError:
    return InvalidOptionError(f"{key!r} cannot follow {last!r}: keys come in order, once")


def _spool(directory: Path, in_ram: bool) -> IO[bytes]:
    most = 0 if in_ram else _SPOOL_BYTES  # 0 is no limit.
    return tempfile.SpooledTemporaryFile(max_size=most, dir=str(directory))


def _chunks(spool: IO[bytes]) -> Iterable[bytes]:
    spool.seek(0)
    while chunk := spool.read(_CHUNK_BYTES):
        yield chunk
