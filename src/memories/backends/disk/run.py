"""One sorted, immutable run of the index on disk: rows in key order, and a hash table over them.

A file is written once and only ever unlinked, so a reader needs no lock and survives both a merge
and a fork. Each block is verified when it is first touched; damage raises `RunDamagedError`, and
the index is built again from the log.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from xxhash import xxh3_64_intdigest

from memories.backends.disk.blocks import (
    BLOCK,
    BLOCK_BITS,
    ROW,
    ROW_BYTES,
    Blocks,
    RunDamagedError,
    new_row,
    unpack_fields,
)
from memories.backends.disk.files import Files, read_exactly
from memories.backends.disk.log_format import IndexRow, decode_record
from memories.model.record import Record

MAGIC = b"mRun\1\0\0\0"
# magic, number, rows, slots, then where sections start: offsets, table, expiry, sums; and a sum
# over the sums and this footer.
FOOTER = struct.Struct("<8sQQQQQQQQ")
OFFSET_BITS = 44
OFFSET_MASK = (1 << OFFSET_BITS) - 1
FIRST_ROW = 64  # No row starts at 0, so that no word of the table is 0.


class Run:
    """A run, open for reading."""

    def __init__(self, path: Path, files: Files, *, mmap: bool = True) -> None:
        self.path = path
        descriptor = files.open(path)
        try:
            size = files.size(descriptor)
            footer_at = size - FOOTER.size
            self._parse(read_exactly(files, descriptor, FOOTER.size, max(0, footer_at)), footer_at)
            self._data: Any = (
                files.map(descriptor, size) if mmap else read_exactly(files, descriptor, size, 0)
            )
        finally:
            files.close(descriptor)
        self.bytes = size
        view = memoryview(self._data)
        self._offsets = view[self._offsets_at : self._offsets_at + 8 * self.count].cast("Q")
        self._table = view[self._table_at : self._table_at + 8 * self._slots].cast("Q")
        expiries = (self._sums_at - self._expiry_at) // 16
        self._expiry = view[self._expiry_at : self._expiry_at + 8 * expiries].cast("d")
        self._expiring = view[self._expiry_at + 8 * expiries : self._sums_at].cast("Q")
        self._sums = view[self._sums_at : footer_at].cast("Q")
        front = view[footer_at : size - 8]
        if xxh3_64_intdigest(bytes(self._sums) + front) != self._digest:
            raise RunDamagedError(f"the sums of {path} are damaged")
        self._blocks = Blocks(
            path, self._data, rows_end=self._offsets_at, end=self._sums_at, sums=self._sums
        )
        self.row: Callable[[str], IndexRow | None] = self._lookup()

    def _parse(self, footer: bytes, footer_at: int) -> None:
        if len(footer) < FOOTER.size:
            raise RunDamagedError(f"{self.path} is cut short")
        magic, number, count, slots, *sections, self._digest = FOOTER.unpack(footer)
        offsets_at, table_at, expiry_at, sums_at = sections
        sound = (
            magic == MAGIC
            and FIRST_ROW <= offsets_at <= table_at <= expiry_at <= sums_at <= footer_at
            and offsets_at + 8 * count <= table_at
            and table_at + 8 * slots == expiry_at
            and footer_at - sums_at == 8 * -(-sums_at // BLOCK)
            and slots & (slots - 1) == 0
        )
        if not sound:
            raise RunDamagedError(f"{self.path} is damaged or cut short")
        self.number: int = number
        self.count: int = count
        self._slots: int = slots
        self._mask = slots - 1
        self._offsets_at, self._table_at = offsets_at, table_at
        self._expiry_at, self._sums_at = expiry_at, sums_at

    def _lookup(self) -> Callable[[str], IndexRow | None]:
        """Return `row`: the row of a key, or None.

        A closure, for this is the hot path: its names are looked up faster than attributes.
        """
        blocks, table, first, mask = self._blocks, self._table, self._table_at, self._mask
        verified, verify, row_at = blocks.verified, blocks.verify, blocks.row_at
        data, unpack, decode, new, cls = self._data, unpack_fields, decode_record, new_row, IndexRow
        tag_bits, offset_mask, bits, head = OFFSET_BITS, OFFSET_MASK, BLOCK_BITS, ROW_BYTES

        def row(key: str) -> IndexRow | None:
            digest = xxh3_64_intdigest(key.encode())
            slot = digest & mask
            tag = digest >> tag_bits
            while True:
                if not verified[(first + slot * 8) >> bits]:
                    verify((first + slot * 8) >> bits)
                word = table[slot]
                if word >> tag_bits == tag and word:
                    offset = word & offset_mask
                    # A row within one verified block is decoded here, any other with more care.
                    length, segment, at, extent, oldest, kind = unpack(data, offset)
                    last = (offset + length - 1) >> bits
                    if last == offset >> bits and verified[last]:
                        record = decode(data[offset + head : offset + length])
                        found: IndexRow = new(cls, (record, kind, segment, at, extent, oldest))
                    else:
                        found = row_at(offset)
                    if found[0].key == key:
                        return found
                elif not word:
                    return None
                slot = (slot + 1) & mask

        return row

    def rows(self, prefix: bytes = b"", beyond: bytes = b"") -> Iterator[tuple[bytes, IndexRow]]:
        """Yield keys and rows that start with `prefix` and come after `beyond`, in order."""
        at = self._bisect(max(prefix, beyond))
        while at < self.count:
            row = self._blocks.row_at(self._offset(at))
            key = row.record.key.encode()
            if not key.startswith(prefix):
                return
            if key > beyond:
                yield key, row
            at += 1

    def raw(self) -> Iterator[tuple[bytes, bytes, float | None]]:
        """Yield keys, rows as they lie, and expiries, in key order; for merging."""
        data = self._data
        expiries = dict(zip(self._expiring, self._expiry, strict=True))
        for at in range(self.count):
            offset = self._offset(at)
            row: bytes = data[offset : offset + self._blocks.length(offset)]
            yield key_of(row), row, expiries.get(offset)

    def ends(self, at: int) -> float | None:
        """Return when the row ends that ends after so many others; None if there is none."""
        if at >= len(self._expiry):
            return None
        self._blocks.touch(self._expiry_at + 8 * at, 8)
        return self._expiry[at]

    def expired(self, now: float, start: int = 0) -> Iterator[IndexRow]:
        """Yield the rows whose time has ended, earliest first; they may have been replaced.

        `start` of them are left out.
        """
        for at in range(start, len(self._expiry)):
            self._blocks.touch(self._expiry_at + 8 * at, 8)
            self._blocks.touch(self._expiry_at + 8 * (len(self._expiry) + at), 8)
            if self._expiry[at] > now:
                return
            yield self._blocks.row_at(self._expiring[at])

    def verify(self) -> None:
        """Verify every block."""
        for block in range(len(self._sums)):
            self._blocks.verify(block)

    def _offset(self, at: int) -> int:
        self._blocks.touch(self._offsets_at + 8 * at, 8)
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
    return ROW.pack(length, row.segment, row.offset, row.extent, row.oldest, row.kind) + body


def key_of(row: bytes) -> bytes:
    """Return the key inside a packed row: the first field of its record."""
    at = ROW.size + 1  # A record is a msgpack array of fewer than 16 fields: one byte of head.
    lead = row[at]
    if lead & 0xE0 == 0xA0:
        return row[at + 1 : at + 1 + (lead & 0x1F)]
    if lead == 0xD9:
        return row[at + 2 : at + 2 + row[at + 1]]
    return row[at + 3 : at + 3 + int.from_bytes(row[at + 1 : at + 3], "big")]
