"""The bytes of one run of the index, each block of them verified when it is first touched.

It knows rows by their offset, not by key. Damage raises `RunDamagedError`.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import msgspec
from xxhash import xxh3_64_intdigest

from memories.backends.disk.log_format import IndexRow, decode_record

BLOCK_BITS = 12
BLOCK = 1 << BLOCK_BITS
# row length, segment, offset, extent, oldest, kind
ROW = struct.Struct("<IIQIIB")
ROW_BYTES = ROW.size
unpack_fields = ROW.unpack_from
new_row = tuple.__new__  # What `IndexRow(...)` does, without its argument parsing.


class RunDamagedError(Exception):
    """A run of the index is not what was written; it never leaves this package."""


class Blocks:
    """The rows and tables of a run, without the sums and the footer."""

    def __init__(self, path: Path, data: Any, *, rows_end: int, end: int, sums: memoryview) -> None:
        self._path = path
        self._data = data
        self._rows_end = rows_end
        self._end = end
        self._sums = sums
        self.verified = bytearray(len(sums))

    def length(self, offset: int) -> int:
        """Verify the row at `offset` and return its length."""
        self.touch(offset, 4)
        length = int.from_bytes(self._data[offset : offset + 4], "little")
        if length < ROW.size or offset + length > self._rows_end:
            raise RunDamagedError(f"{self._path} has a row of {length} bytes at {offset}")
        self.touch(offset, length)
        return length

    def row_at(self, offset: int) -> IndexRow:
        """Return the row at `offset`."""
        verified, data = self.verified, self._data
        if not (verified[offset >> BLOCK_BITS] and verified[(offset + 3) >> BLOCK_BITS]):
            self.length(offset)
        length, segment, at, extent, oldest, kind = unpack_fields(data, offset)
        end = offset + length
        if length > BLOCK or not verified[(end - 1) >> BLOCK_BITS]:
            end = offset + self.length(offset)
        try:
            record = decode_record(data[offset + ROW_BYTES : end])
        except msgspec.MsgspecError as error:
            raise RunDamagedError(f"a row of {self._path} cannot be read: {error}") from error
        return new_row(IndexRow, (record, kind, segment, at, extent, oldest))

    def touch(self, offset: int, length: int) -> None:
        """Verify the blocks that some bytes lie in."""
        for block in range(offset // BLOCK, (offset + length - 1) // BLOCK + 1):
            if not self.verified[block]:
                self.verify(block)

    def verify(self, block: int) -> None:
        """Verify one block."""
        start = block * BLOCK
        data = self._data[start : min(start + BLOCK, self._end)]
        if xxh3_64_intdigest(data, block) != self._sums[block]:
            raise RunDamagedError(f"{self._path} is damaged in its block {block}")
        self.verified[block] = 1
