"""Finds the row of a key in a run of the index, by the hash table inside it."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from xxhash import xxh3_64_intdigest

from memories.backends.disk.log_format import IndexRow, decode_record
from memories.compiled import mypyc_attr

# row length, segment, offset, beyond, extent, oldest, kind
ROW = struct.Struct("<IIIIIIB")
BLOCK_BITS: Final = 12
OFFSET_BITS: Final = 44
DAMAGED: Final[tuple[type[Exception], ...]] = (
    msgspec.MsgspecError,
    struct.error,
    IndexError,
    UnicodeDecodeError,
    RecursionError,
)
_ROW_BYTES: Final[int] = ROW.size
_OFFSET_MASK: Final = (1 << OFFSET_BITS) - 1
T = TypeVar("T")
# Names of this module, which compiled code finds without a look-up.
_unpack: Final[Callable[..., tuple[Any, ...]]] = ROW.unpack_from
_decode: Final[Callable[[bytes], Any]] = decode_record
_digest: Final[Callable[[bytes], Any]] = xxh3_64_intdigest
_Row: Final[Callable[..., Any]] = IndexRow


@mypyc_attr(native_class=False)  # The compiler would make another kind of class of it.
class RunDamagedError(Exception):
    """A run of the index is not what was written; it never leaves this package."""


def read_mended(read: Callable[[], T], mend: Callable[[], object]) -> T:
    """Return what `read` finds in the index; where that is damaged, what it finds after `mend`."""
    try:
        return read()
    except RunDamagedError:
        mend()
        return read()


class RunTable:
    """The hash table of a run: for each key a word that says where its row lies.

    Args:
        path: The file of the run.
        data: Its bytes.
        words: The table.
        verified: One byte for each block of the file: whether it was verified.
        verify: Verifies a block.
        row_at: Returns the row at an offset, and verifies all of it.
        first: Where the table begins in the file.
    """

    __slots__ = ("_data", "_first", "_mask", "_path", "_row_at", "_verified", "_verify", "_words")

    def __init__(
        self,
        path: Path,
        data: Any,
        words: Any,
        verified: Any,
        verify: Callable[[int], None],
        row_at: Callable[[int], Any],
        first: int,
    ) -> None:
        self._path = path
        self._data = data
        self._words = words
        self._verified = verified
        self._verify = verify
        self._row_at = row_at
        self._first = first
        self._mask = len(words) - 1

    def row(self, key: str) -> IndexRow | None:
        """Return the row of a key, None if the run has none.

        Raises:
            RunDamagedError: a part of the run on the way to it is damaged.
        """
        verified, words, data = self._verified, self._words, self._data
        first, mask = self._first, self._mask
        digest: Any = _digest(key.encode())
        slot: int = digest & mask
        tag: int = digest >> OFFSET_BITS
        start = slot
        try:
            while True:
                block = (first + slot * 8) >> BLOCK_BITS
                if not verified[block]:
                    self._verify(block)
                word: Any = words[slot]
                if word >> OFFSET_BITS == tag and word:
                    offset: int = word & _OFFSET_MASK
                    # Fast path: the row lies within one verified block. Others are checked.
                    fields = _unpack(data, offset)
                    end: int = offset + fields[0]
                    last = (end - 1) >> BLOCK_BITS
                    if last == offset >> BLOCK_BITS and verified[last]:
                        record: Any = _decode(data[offset + _ROW_BYTES : end])
                        if record.key == key:
                            _, segment, at, beyond, extent, oldest, kind = fields
                            found: IndexRow = _Row(
                                record, kind, segment, at, extent, oldest, beyond
                            )
                            return found
                    else:
                        found = self._row_at(offset)
                        if found.record.key == key:
                            return found
                elif not word:
                    return None
                slot = (slot + 1) & mask
                if slot == start:
                    raise RunDamagedError(f"the table of {self._path} has no empty slot")
        except DAMAGED as error:  # The sums hold of what an attacker wrote.
            raise RunDamagedError(f"a row of {self._path} cannot be read: {error}") from error


def newest_row(
    tables: Sequence[dict[str, IndexRow]], runs: Sequence[Any], key: str
) -> IndexRow | None:
    """Return the newest row of `key`, a tombstone too, in tables and runs that are newest first."""
    for table in tables:
        row: IndexRow | None = table.get(key)
        if row is not None:
            return row
    for run in runs:
        row = run.row(key)
        if row is not None:
            return row
    return None
