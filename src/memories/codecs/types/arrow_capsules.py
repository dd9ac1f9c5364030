"""The codec of values that other packages export as Arrow, by the PyCapsule interface.

They are written as an IPC stream, like those of pyarrow, which is needed for it. What their
packages trust `arrow_stream` checks. A stream that can be read only once is not a value: it is
refused, since a value may be encoded twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from memories.codecs.allowance import Allowance
from memories.codecs.base import Codec, Parts, Sharing
from memories.codecs.types import arrow
from memories.codecs.types.arrow_stream import check_stream
from memories.errors import CorruptDataError, UnsupportedTypeError
from memories.foundation.optional_imports import package


class CapsuleCodec(Codec):
    """Immutable values, which `to_table` makes a pyarrow table of, and `from_table` makes again."""

    sharing = Sharing.SHARED

    def __init__(
        self, name: str, to_table: Callable[[Any], Any], from_table: Callable[[Any], Any]
    ) -> None:
        self.name = name  # type: ignore[misc]
        self._to_table = to_table
        self._from_table = from_table

    def encode(self, value: Any) -> Parts:
        """Write an IPC stream, which is one copy of the visible items.

        Raises:
            UnsupportedTypeError: pyarrow does not know a type of the value.
        """
        pa = package("pyarrow")
        try:
            table = _without_panic(self._to_table, value)
        except (pa.ArrowException, TypeError, ValueError, RuntimeError) as error:
            raise UnsupportedTypeError(
                f"pyarrow cannot take over a {type(value).__name__}: {error}"
            ) from error
        arrow.extensions_in(field.type for field in table.schema)
        return Parts(self.name, None, (_stream_of(table),), frozenset({0}))

    def decode(self, parts: Parts, *, writable: bool = False) -> Any:
        """Read the stream in place, with all offsets and texts in it checked."""
        del writable
        (buffer,) = parts.buffers
        with Allowance(parts):
            return _without_panic(self._from_table, arrow.read_stream(buffer))


def _stream_of(table: Any) -> memoryview:
    """Return a table as a stream that can be read back.

    Others export slices as arrays whose first offset is not 0. Before version 21 pyarrow shortens
    the items of some such arrays without counting anew.

    Raises:
        UnsupportedTypeError: it has done so.
    """
    stream = arrow.write_stream(table)
    try:
        check_stream(stream, "Arrow table")
    except CorruptDataError as error:
        raise UnsupportedTypeError(
            f"pyarrow {package('pyarrow').__version__} writes this value so that it cannot be read "
            "back: upgrade pyarrow to 21 or later"
        ) from error
    return stream


def _without_panic(convert: Callable[[Any], Any], value: Any) -> Any:
    """Return `convert(value)`; a panic of arro3, which is a BaseException, is a RuntimeError."""
    try:
        return convert(value)
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise RuntimeError(str(error)) from None


class Exported:
    """One array of pyarrow with the field that describes it, for a package that reads capsules."""

    def __init__(self, field: Any, array: Any) -> None:
        self._field, self._array = field, array

    def __arrow_c_array__(self, requested_schema: Any = None) -> Any:
        """Return the capsules of the field and of the array."""
        del requested_schema
        return self._field.__arrow_c_schema__(), self._array.__arrow_c_array__()[1]


def column_of(field: Any, chunks: Any) -> Any:
    """Return a table of one column, which the field describes."""
    pa = package("pyarrow")
    arrays = pa.chunked_array(chunks, field.type)
    return pa.Table.from_arrays([arrays], schema=pa.schema([field]))


def only_column(table: Any) -> tuple[Any, list[Any]]:
    """Return the field and the chunks of a table of one column.

    Raises:
        CorruptDataError: it has more, or none.
    """
    if table.num_columns != 1:
        raise CorruptDataError(f"a stored Arrow array consists of {table.num_columns} columns")
    return table.schema.field(0), table.column(0).chunks


def only_array(table: Any) -> Exported:
    """Return the array of a table of one column.

    Raises:
        CorruptDataError: the column has several chunks.
    """
    field, chunks = only_column(table)
    if len(chunks) > 1:
        raise CorruptDataError(f"a stored Arrow array consists of {len(chunks)} chunks")
    return Exported(field, chunks[0] if chunks else package("pyarrow").array([], field.type))
