"""One sorted, immutable run of the index on disk: rows in key order, and a hash table over them.

A file is written once and only ever unlinked, so a reader needs no lock and survives both a merge
and a fork. Each block is verified when it is first touched; damage raises `RunDamagedError`, and
the index is rebuilt from the log.
"""

from __future__ import annotations

import re
import struct
from bisect import bisect_right
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from xxhash import xxh3_64_intdigest

from memories.backends.disk.files import Files, read_exactly
from memories.backends.disk.log_format import IndexRow, decode_record
from memories.backends.disk.run_table import BLOCK_BITS, DAMAGED, ROW, RunDamagedError, RunTable
from memories.errors import CorruptDataError
from memories.model.record import Record
from memories.sealing.blob import HEADER_BYTES, BlobReader, private_memory

BLOCK = 1 << BLOCK_BITS
_MIN_ROW = ROW.size + 3  # Its record begins with the key.

MAGIC = b"mRun\1\0\0\0"
# magic, number, rows, slots, then where sections start: offsets, table, expiry, sums; and a sum
# over the sums and this footer.
FOOTER = struct.Struct("<8sQQQQQQQQ")
# The name of a field in a record: `omit_defaults` leaves it out where there is no metadata.
_DESCRIBED = re.compile(re.escape(msgspec.msgpack.encode("metadata")), re.DOTALL)
FIRST_ROW = 64  # No row starts at 0, so that no word of the table is 0.


class _Content:
    """The bytes of a run: mapped or read; decrypted block by block where the store is encrypted.

    Decrypted blocks stay in RAM. `load` comes before the first look at a block.
    """

    def __init__(self, path: Path, files: Files, descriptor: int, *, mmap: bool) -> None:
        size = files.size(descriptor)
        stored: Any = (
            files.map(descriptor, size)
            if mmap and size
            else read_exactly(files, descriptor, size, 0)
        )
        self._path, self._stored = path, stored
        self._reader: BlobReader | None = None
        self.size, self.data = size, stored
        if files.seal is not None:
            try:
                number, head = int(path.name.partition(".")[0]), bytes(stored[:HEADER_BYTES])
                self._reader = files.seal.run_reader(number, head, size)
            except CorruptDataError as error:
                raise RunDamagedError(f"{path} cannot be decrypted: {error}") from error
            self.size = self._reader.nbytes
            # No page of it takes RAM before a block in it is decrypted.
            self.data = private_memory(self.size)

    def load(self, block: int) -> None:
        """Decrypt one block, if it is encrypted.

        Raises:
            RunDamagedError: it was altered.
        """
        reader = self._reader
        if reader is None:
            return
        start, end = reader.span(block)
        target = memoryview(self.data)[block * BLOCK : (block + 1) * BLOCK]
        try:
            reader.decrypt_into(block, memoryview(self._stored)[start:end], target)
        except CorruptDataError as error:
            raise RunDamagedError(f"{self._path} is damaged in its block {block}") from error

    def load_all(self, start: int, end: int) -> None:
        """Decrypt the blocks in which some bytes lie."""
        if self._reader is not None:
            for block in range(start // BLOCK, -(-end // BLOCK)):
                self.load(block)


class Blocks:
    """The rows and tables of a run, without the sums and the footer."""

    def __init__(
        self, path: Path, content: _Content, *, rows_end: int, end: int, sums: memoryview
    ) -> None:
        self._path, self._content = path, content
        self._data = content.data
        self._rows_end = rows_end
        self._end = end
        self._sums = sums
        self.verified = bytearray(len(sums))

    def length(self, offset: int) -> int:
        """Verify the row at `offset` and return its length."""
        self.touch(offset, 4)
        length = int.from_bytes(self._data[offset : offset + 4], "little")
        if length < _MIN_ROW or offset + length > self._rows_end:
            raise RunDamagedError(f"{self._path} has a row of {length} bytes at {offset}")
        self.touch(offset, length)
        return length

    def row_at(self, offset: int) -> IndexRow:
        """Return the row at `offset`."""
        verified, data = self.verified, self._data
        try:
            if not (verified[offset >> BLOCK_BITS] and verified[(offset + 3) >> BLOCK_BITS]):
                self.length(offset)
            length, segment, at, beyond, extent, oldest, kind = ROW.unpack_from(data, offset)
            end = offset + length
            if length > BLOCK or not verified[(end - 1) >> BLOCK_BITS]:
                end = offset + self.length(offset)
                _, segment, at, beyond, extent, oldest, kind = ROW.unpack_from(data, offset)
            record = decode_record(data[offset + ROW.size : end])
        except DAMAGED as error:
            raise RunDamagedError(f"a row of {self._path} cannot be read: {error}") from error
        return IndexRow(record, kind, segment, at, extent, oldest, beyond)

    def touch(self, offset: int, length: int) -> None:
        """Verify the blocks that some bytes lie in."""
        if offset < 0 or offset + length > self._end:
            raise RunDamagedError(f"{self._path} leads to {offset}, beyond its end")
        for block in range(offset // BLOCK, (offset + length - 1) // BLOCK + 1):
            if not self.verified[block]:
                self.verify(block)

    def verify(self, block: int) -> None:
        """Verify one block."""
        start = block * BLOCK
        self._content.load(block)
        data = self._data[start : min(start + BLOCK, self._end)]
        if xxh3_64_intdigest(data, block) != self._sums[block]:
            raise RunDamagedError(f"{self._path} is damaged in its block {block}")
        self.verified[block] = 1


class RunFooter(NamedTuple):
    """The end of a run: how many rows it has, and where its sections start."""

    number: int
    rows: int
    slots: int  # Of the hash table: a power of two.
    offsets_at: int
    table_at: int
    expiry_at: int
    sums_at: int
    digest: int  # Of the sums and the rest of the footer.

    @classmethod
    def parse(cls, data: bytes, footer_at: int, path: Path) -> RunFooter:
        """Return the footer that starts at `footer_at`, or raise `RunDamagedError`."""
        if len(data) < FOOTER.size:
            raise RunDamagedError(f"{path} is cut short")
        magic, *fields = FOOTER.unpack(data)
        found = cls(*fields)
        _, rows, slots, offsets_at, table_at, expiry_at, sums_at, _ = found
        sound = (
            magic == MAGIC
            and FIRST_ROW <= offsets_at <= table_at <= expiry_at <= sums_at <= footer_at
            and offsets_at + 8 * rows <= table_at
            and table_at + 8 * slots == expiry_at
            and footer_at - sums_at == 8 * -(-sums_at // BLOCK)
            and slots & (slots - 1) == 0
            and slots > rows
            and (sums_at - expiry_at) % 16 == 0
        )
        if not sound:
            raise RunDamagedError(f"{path} is damaged or cut short")
        return found


class Run:
    """A run, open for reading."""

    def __init__(self, path: Path, files: Files, *, mmap: bool = True) -> None:
        self.path = path
        descriptor = files.open(path)
        try:
            self.bytes = files.size(descriptor)
            content = _Content(path, files, descriptor, mmap=mmap)
        finally:
            files.close(descriptor)
        size, self._data = content.size, content.data
        footer_at = size - FOOTER.size
        content.load_all(max(0, footer_at), size)
        footer = RunFooter.parse(bytes(self._data[max(0, footer_at) : size]), footer_at, path)
        self.number, self.count = footer.number, footer.rows
        self._footer = footer
        view = memoryview(self._data)
        offsets_at, table_at, expiry_at, sums_at = footer[3:7]
        content.load_all(sums_at, size)
        self._offsets = view[offsets_at : offsets_at + 8 * footer.rows].cast("Q")
        self._table = view[table_at : table_at + 8 * footer.slots].cast("Q")
        expiries = (sums_at - expiry_at) // 16
        self._expiry = view[expiry_at : expiry_at + 8 * expiries].cast("d")
        self._expiring = view[expiry_at + 8 * expiries : sums_at].cast("Q")
        self._sums = view[sums_at:footer_at].cast("Q")
        front = view[footer_at : size - 8]
        if xxh3_64_intdigest(bytes(self._sums) + front) != footer.digest:
            raise RunDamagedError(f"the sums of {path} are damaged")
        self._blocks = Blocks(path, content, rows_end=offsets_at, end=sums_at, sums=self._sums)
        blocks = self._blocks
        table = RunTable(
            path, self._data, self._table, blocks.verified, blocks.verify, blocks.row_at, table_at
        )
        self.row: Callable[[str], IndexRow | None] = table.row

    def rows(self, prefix: str = "", after: str = "") -> Iterator[IndexRow]:
        """Yield rows whose keys start with `prefix` and come after `after`, in order."""
        at = self._bisect(max(prefix, after).encode())
        if at == self.count:
            return
        row_at, data, offset = self._blocks.row_at, self._data, self._offset(at)
        for _ in range(at, self.count):
            row = row_at(offset)
            key = row.record.key
            if not key.startswith(prefix):
                return
            if key > after:
                yield row
            offset += int.from_bytes(data[offset : offset + 4], "little")  # To the next row.

    def described(self, after: str = "") -> Iterator[IndexRow]:
        """Yield the rows with metadata whose keys come after `after`, in order.

        The others are not decoded: a record with metadata has the name of that field in it.
        """
        at = self._bisect(after.encode())
        if at == self.count:
            return
        start, end = self._offset(at), self._footer.offsets_at
        self._blocks.touch(start, end - start)
        self._blocks.touch(end, 8 * self.count)
        while (found := _DESCRIBED.search(self._data, start, end)) is not None:
            place = self._offsets[bisect_right(self._offsets, found.start()) - 1]
            row = self._blocks.row_at(place)
            if row.record.terms.metadata and row.record.key > after:
                yield row
            start = place + self._blocks.length(place)

    def raw(self) -> Iterator[tuple[bytes, bytes, float | None]]:
        """Yield keys, rows as they lie, and expiries, in key order; for merging."""
        data, verified, length_of = self._data, self._blocks.verified, self._blocks.length
        if len(self._expiry):
            self._blocks.touch(self._footer.expiry_at, 16 * len(self._expiry))
        expiries = dict(zip(self._expiring, self._expiry, strict=True))
        offset = FIRST_ROW
        for _ in range(self.count):
            end = offset + int.from_bytes(data[offset : offset + 4], "little")
            first, last = offset >> BLOCK_BITS, (end - 1) >> BLOCK_BITS
            # Most rows lie in one block, which one of the rows before has verified.
            if first != last or not verified[first] or end - offset < _MIN_ROW:
                end = offset + length_of(offset)
            row: bytes = data[offset:end]
            yield key_of(row), row, expiries.get(offset)
            offset = end

    def ends(self, at: int) -> float | None:
        """Return when the row ends that ends after so many others; None if there is none."""
        if at >= len(self._expiry):
            return None
        self._blocks.touch(self._footer.expiry_at + 8 * at, 8)
        return self._expiry[at]

    def expired(self, now: float, start: int = 0) -> Iterator[IndexRow]:
        """Yield the rows whose time has ended, earliest first; they may have been replaced.

        `start` of them are left out.
        """
        for at in range(start, len(self._expiry)):
            self._blocks.touch(self._footer.expiry_at + 8 * at, 8)
            self._blocks.touch(self._footer.expiry_at + 8 * (len(self._expiry) + at), 8)
            if self._expiry[at] > now:
                return
            yield self._blocks.row_at(self._expiring[at])

    def verify(self) -> None:
        """Verify every block."""
        for block in range(len(self._sums)):
            self._blocks.verify(block)

    def _offset(self, at: int) -> int:
        self._blocks.touch(self._footer.offsets_at + 8 * at, 8)
        return self._offsets[at]

    def _bisect(self, key: bytes) -> int:
        low, high = 0, self.count if key else 0
        while low < high:
            middle = (low + high) // 2
            offset = self._offset(middle)
            row = self._data[offset : offset + self._blocks.length(offset)]
            if key_of(row) < key:
                low = middle + 1
            else:
                high = middle
        return low


def pack_row(row: IndexRow, encode: Callable[[Record], bytes]) -> bytes:
    """Return a row as it lies in a run."""
    body = encode(row.record)
    length = ROW.size + len(body)
    place = (row.segment, row.offset, row.beyond, row.extent, row.oldest)
    return ROW.pack(length, *place, row.kind) + body


def key_of(row: bytes) -> bytes:
    """Return the key inside a packed row: the first field of its record."""
    at = ROW.size + 1  # A record is a msgpack array of fewer than 16 fields: one byte of head.
    lead = row[at]
    if lead & 0xE0 == 0xA0:
        return row[at + 1 : at + 1 + (lead & 0x1F)]
    if lead == 0xD9:
        return row[at + 2 : at + 2 + row[at + 1]]
    return row[at + 3 : at + 3 + int.from_bytes(row[at + 1 : at + 3], "big")]
