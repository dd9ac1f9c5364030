"""pyarrow tables, record batches, arrays and scalars, as Arrow IPC streams.

Not Feather and not Parquet: nothing is converted, and reading copies nothing. The one idea: the IPC
writer trims slices and keeps dictionaries, so what is stored is what is seen.
"""

from __future__ import annotations

from typing import Any

from memories.codecs.base import Codec, Parts, Sharing
from memories.codecs.memory import allocate, view_bytes
from memories.codecs.packages import package
from memories.codecs.registry import add
from memories.errors import CorruptDataError, UnsupportedTypeError


class ArrowCodec(Codec):
    """What Arrow can hold as a table; immutable, so all readers share it."""

    sharing = Sharing.SHARED

    def __init__(self, name: str) -> None:
        self.name = name  # type: ignore[misc]

    def encode(self, value: Any) -> Parts:
        """Write an IPC stream, which is one copy of what the value shows."""
        return Parts(self.name, None, (write_stream(_table(self.name, value)),), frozenset({0}))

    def decode(self, parts: Parts, *, writable: bool = False) -> Any:
        """Read the stream in place, and check that every offset and text in it is sound."""
        del writable
        (buffer,) = parts.buffers
        return _untable(self.name, read_stream(buffer))


def write_stream(table: Any) -> memoryview:
    """Return `table` as an IPC stream.

    Raises:
        UnsupportedTypeError: it has a type that IPC does not know.
    """
    pa = package("pyarrow")
    measure = pa.MockOutputStream()
    try:
        _write(pa, table, measure)
        # A stream that grows as it is written would copy itself again and again.
        arena = allocate(measure.size())
        _write(pa, table, pa.FixedSizeBufferWriter(pa.py_buffer(arena)))
    except pa.ArrowException as error:
        raise UnsupportedTypeError(f"Arrow cannot serialise this table: {error}") from error
    return view_bytes(arena)


def _write(pa: Any, table: Any, sink: Any) -> None:
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)


def read_stream(buffer: memoryview) -> Any:
    """Return the table in an IPC stream, over its memory.

    Raises:
        CorruptDataError: it is no sound stream.
    """
    pa = package("pyarrow")
    try:
        with pa.ipc.open_stream(pa.py_buffer(buffer)) as reader:
            table = reader.read_all()
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise CorruptDataError(f"a stored Arrow table is damaged: {error}") from error
    return table


def _table(name: str, value: Any) -> Any:
    pa = package("pyarrow")
    if name == "pyarrow.table":
        return value
    if name == "pyarrow.batch":
        return pa.Table.from_batches([value])
    if name == "pyarrow.schema":
        return value.empty_table()
    if name == "pyarrow.scalar":
        value = pa.array([value.as_py()], value.type)
    return pa.table({"": value})


def _untable(name: str, table: Any) -> Any:
    pa = package("pyarrow")
    if name == "pyarrow.table":
        return table
    if name == "pyarrow.schema":
        return table.schema
    if name == "pyarrow.batch":
        batches = table.to_batches()
        if len(batches) > 1:
            raise CorruptDataError("a stored record batch is several")
        return batches[0] if batches else table.schema.empty_table().combine_chunks().to_batches()
    column = table.column(0)
    if name == "pyarrow.chunked":
        return column
    if name == "pyarrow.scalar":
        return column[0]
    return column.chunk(0) if column.num_chunks else pa.array([], column.type)


def register() -> None:
    """Register the codecs of pyarrow."""
    pa = package("pyarrow")
    add(ArrowCodec("pyarrow.table"), pa.Table)
    add(ArrowCodec("pyarrow.batch"), pa.RecordBatch)
    add(ArrowCodec("pyarrow.chunked"), pa.ChunkedArray)
    add(ArrowCodec("pyarrow.schema"), pa.Schema)
    add(ArrowCodec("pyarrow.array"), *_subclasses(pa.Array))
    add(ArrowCodec("pyarrow.scalar"), *_subclasses(pa.Scalar))


def _subclasses(kind: Any) -> list[type]:
    found = []
    for sub in kind.__subclasses__():
        if sub.__module__.startswith("pyarrow"):
            found.extend([sub, *_subclasses(sub)])
    return found
