"""Reads the metadata of an Arrow IPC stream: flatbuffers tables, with every offset checked.

Only as much as `arrow_stream` needs, to check a stream before a library in C++ or Rust gets it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final

from memories.errors import CorruptDataError

_U16: Final = struct.Struct("<H").unpack_from
_I16: Final = struct.Struct("<h").unpack_from
_I32: Final = struct.Struct("<i").unpack_from
_U32: Final = struct.Struct("<I").unpack_from
_I64: Final = struct.Struct("<q").unpack_from
_U8: Final = struct.Struct("<B").unpack_from
_PAIR: Final = struct.Struct("<qq")
Unpack = Callable[[Any, int], tuple[Any, ...]]


class Table:
    """A table within `data`; fields that are not there have their default."""

    __slots__ = ("_at", "_data", "_end", "_vtable")

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at  # The data are those of the whole message.
        self._vtable = at - self._read(_I32, at)
        self._end = self._read(_U16, self._vtable)

    @classmethod
    def root(cls, data: bytes) -> Table:
        """Return the outermost table."""
        (at,) = _U32(data) if len(data) >= 4 else (0,)
        return cls(data, at)

    @property
    def data(self) -> bytes:
        """Return the metadata that this table is a part of."""
        return self._data

    def flag(self, field: int) -> bool:
        """Return a boolean, False by default."""
        return bool(self._number(_U8, field, 0))

    def int8(self, field: int) -> int:
        """Return a number of 8 bits, 0 by default."""
        return self._number(_U8, field, 0)

    def int16(self, field: int, default: int = 0) -> int:
        """Return a number of 16 bits."""
        return self._number(_I16, field, default)

    def int32(self, field: int, default: int = 0) -> int:
        """Return a number of 32 bits."""
        return self._number(_I32, field, default)

    def int64(self, field: int) -> int:
        """Return a number of 64 bits, 0 by default."""
        return self._number(_I64, field, 0)

    def table(self, field: int) -> Table | None:
        """Return a table within this one, or None."""
        at = self._place(field)
        return None if at is None else Table(self._data, at + self._read(_U32, at))

    def text(self, field: int) -> bytes:
        """Return a string as bytes, empty by default."""
        start, count = self._vector(field, 1)
        return self._data[start : start + count]

    def tables(self, field: int) -> list[Table]:
        """Return the tables of a vector."""
        start, count = self._vector(field, 4)
        places = range(start, start + 4 * count, 4)
        return [Table(self._data, at + self._read(_U32, at)) for at in places]

    def pairs(self, field: int) -> list[tuple[int, int]]:
        """Return a vector of structs of two numbers of 64 bits each."""
        start, count = self._vector(field, 16)
        return list(_PAIR.iter_unpack(self._data[start : start + 16 * count]))

    def int64s(self, field: int) -> list[int]:
        """Return a vector of numbers of 64 bits."""
        start, count = self._vector(field, 8)
        return list(struct.unpack(f"<{count}q", self._data[start : start + 8 * count]))

    def _place(self, field: int) -> int | None:
        entry = 4 + 2 * field
        offset = self._read(_U16, self._vtable + entry) if entry + 2 <= self._end else 0
        return self._at + offset if offset else None

    def _number(self, unpack: Unpack, field: int, default: int) -> int:
        at = self._place(field)
        return default if at is None else self._read(unpack, at)

    def _vector(self, field: int, width: int) -> tuple[int, int]:
        """Return where the items of a vector begin, and how many they are."""
        at = self._place(field)
        if at is None:
            return 0, 0
        at += self._read(_U32, at)
        count = self._read(_U32, at)
        if at + 4 + width * count > len(self._data):
            raise CorruptDataError("a list in the metadata of a stored Arrow stream has no end")
        return at + 4, count

    def _read(self, unpack: Unpack, at: int) -> int:
        try:
            # A negative offset would count from the end.
            found: int = unpack(self._data, at if at >= 0 else len(self._data))[0]
            return found
        except struct.error as error:
            raise CorruptDataError(
                "the metadata of a stored Arrow stream lead out of it"
            ) from error
