"""Codecs of pyarrow tables, record batches, arrays and scalars, as Arrow IPC streams.

The IPC writer trims slices and keeps dictionaries, so that only visible items are stored. Nothing
is converted, and reading copies nothing. `arrow_stream` says what pyarrow trusts, and checks it
first; what it leaves to pyarrow (UTF-8, the parts of unions and runs) `validate` checks.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from memories.codecs.allowance import Allowance
from memories.codecs.base import Codec, Parts, Sharing
from memories.codecs.buffers import allocate, view_bytes
from memories.codecs.registry import add
from memories.codecs.types.arrow_stream import check_stream
from memories.errors import CorruptDataError, UnsupportedTypeError
from memories.foundation.optional_imports import package


class ArrowCodec(Codec):
    """Anything that Arrow can store as a table; it is immutable, so all readers share it."""

    sharing = Sharing.SHARED

    def __init__(self, name: str) -> None:
        self.name = name  # type: ignore[misc]

    def encode(self, value: Any) -> Parts:
        """Write an IPC stream, which is one copy of the visible items."""
        table = _table(self.name, value)
        extensions = extensions_in(field.type for field in table.schema)
        meta = {"extensions": extensions} if extensions else None
        return Parts(self.name, meta, (write_stream(table),), frozenset({0}))

    def decode(self, parts: Parts, *, writable: bool = False) -> Any:
        """Read the stream in place, and check all offsets and texts in it.

        Raises:
            UnsupportedTypeError: it has extension types that are not registered with Arrow.
        """
        del writable
        (buffer,) = parts.buffers
        batch = self.name == "pyarrow.batch"
        with Allowance(parts):
            read = _read_batch(buffer) if batch else read_stream(buffer)
        wanted = _wanted(parts.meta)
        missing = sorted(set(wanted) - set(extensions_in(field.type for field in read.schema)))
        if missing:
            raise UnsupportedTypeError(
                f"the stored value needs the Arrow types {', '.join(map(repr, missing))}: import "
                "the package that registers them before reading it"
            )
        return read if batch else _untable(self.name, read)


def _wanted(meta: Any) -> list[str]:
    """Return the names of the extension types that a description lists."""
    names = meta["extensions"] if meta is not None else []
    if type(names) is not list or not all(type(name) is str for name in names):
        raise CorruptDataError("the description of a stored Arrow table is damaged")
    return names


def extensions_in(types: Iterable[Any]) -> list[str]:
    """Return the names of the extension types among `types` and within them.

    Raises:
        UnsupportedTypeError: a type cannot be stored.
    """
    names = []
    todo = list(types)
    while todo:
        kind = todo.pop()
        if package("pyarrow").types.is_dictionary(kind):
            if package("pyarrow").types.is_dictionary(kind.value_type):
                raise UnsupportedTypeError(
                    "a dictionary of dictionaries cannot be stored, for Arrow cannot read it back: "
                    "decode it first"
                )
            todo.append(kind.value_type)
        elif isinstance(kind, package("pyarrow").BaseExtensionType):
            names.append(kind.extension_name)
        else:
            todo.extend(kind.field(i).type for i in range(kind.num_fields))
    return sorted(set(names))


def write_stream(table: Any) -> memoryview:
    """Return `table` as an IPC stream.

    Raises:
        UnsupportedTypeError: it has a type that IPC does not know.
    """
    pa = package("pyarrow")
    measure = pa.MockOutputStream()
    try:
        _write(pa, table, measure)
        # A sink that grows while it is written would be copied again and again.
        arena = allocate(measure.size())
        _write(pa, table, pa.FixedSizeBufferWriter(pa.py_buffer(arena)))
    except pa.ArrowException as error:
        raise UnsupportedTypeError(f"Arrow cannot serialise this table: {error}") from error
    return view_bytes(arena)


def _write(pa: Any, table: Any, sink: Any) -> None:
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write(table)


def read_stream(buffer: memoryview) -> Any:
    """Return the table in an IPC stream, over its memory.

    Raises:
        CorruptDataError: it is damaged.
    """
    pa = package("pyarrow")
    check_stream(buffer, "Arrow table")
    try:
        with pa.ipc.open_stream(pa.py_buffer(buffer)) as reader:
            table = reader.read_all()
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise CorruptDataError(f"a stored Arrow table is damaged: {error}") from error
    return table


def _read_batch(buffer: memoryview) -> Any:
    """Return the one record batch in an IPC stream, over its memory; it may have no rows.

    Raises:
        CorruptDataError: it is damaged, or has several batches.
    """
    pa = package("pyarrow")
    check_stream(buffer, "Arrow table")
    try:
        with pa.ipc.open_stream(pa.py_buffer(buffer)) as reader:
            batches = list(reader)
            if not batches:  # Earlier versions wrote batches without rows in this way.
                nothing = [pa.nulls(0, field.type) for field in reader.schema]
                batches = [pa.RecordBatch.from_arrays(nothing, schema=reader.schema)]
        for batch in batches:
            batch.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise CorruptDataError(f"a stored Arrow table is damaged: {error}") from error
    if len(batches) > 1:
        raise CorruptDataError(f"a stored record batch consists of {len(batches)} batches")
    return batches[0]


def _table(name: str, value: Any) -> Any:
    pa = package("pyarrow")
    if name in ("pyarrow.table", "pyarrow.batch"):
        return value
    if name == "pyarrow.schema":
        return value.empty_table()
    if name == "pyarrow.scalar":
        value = _array_of(value)
    return pa.table({"": value})


def _array_of(scalar: Any) -> Any:
    """Return an array of one scalar, without conversion to Python values, which lack nanoseconds.

    Raises:
        UnsupportedTypeError: Arrow cannot make an array of it.
    """
    pa = package("pyarrow")
    kind = scalar.type
    try:
        if not scalar.is_valid:
            return pa.nulls(1, kind)
        if isinstance(scalar, pa.DictionaryScalar):
            index = pa.array([scalar.index], kind.index_type)
            return pa.DictionaryArray.from_arrays(index, scalar.dictionary, ordered=kind.ordered)
        if isinstance(scalar, pa.ExtensionScalar):
            return pa.ExtensionArray.from_storage(kind, _array_of(scalar.value))
        return pa.array([scalar], kind)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise UnsupportedTypeError(
            f"an Arrow scalar of type {kind} cannot be stored alone ({error}): store an array of it"
        ) from error


def _untable(name: str, table: Any) -> Any:
    pa = package("pyarrow")
    if name == "pyarrow.table":
        return table
    if name == "pyarrow.schema":
        return table.schema
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
