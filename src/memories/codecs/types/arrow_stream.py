"""Checks an Arrow IPC stream before a library in C++ or Rust gets it.

What pyarrow and polars trust: that each buffer lies in its message, without a check in all
versions; that a buffer of a compressed body expands to the size that it claims, for which they
allocate memory; that a column of nulls, which has no bytes at all, is as long as it says; that an
array has as many nulls as it says; that offsets rise and end within the items; that the indices of
a dictionary are inside of it; and polars, that a field with the name of one of its own extensions
holds an address in this process.

Streams of this package are little-endian where the machine is, and never compressed.
"""

from __future__ import annotations

import functools
import struct
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from memories.codecs import allowance
from memories.codecs.types.arrow_flatbuffers import Table
from memories.errors import CorruptDataError

_MARK = 0xFFFFFFFF
_SCHEMA, _DICTIONARY, _BATCH = 1, 2, 3  # Kinds of messages.
_V4, _V5 = 3, 4  # Versions of the metadata.
_MAX_DEPTH = 64
_REMEMBERED = 1 << 18
_EXTENSION = b"ARROW:extension:name"
_ADDRESSES = b"POLARS_EXTENSION"  # Extensions of polars whose metadata are addresses.
_NULL, _INT, _FLOAT, _BINARY, _UTF8, _BOOL, _DECIMAL, _DATE, _TIME = range(1, 10)
_TIMESTAMP, _INTERVAL, _LIST, _STRUCT, _UNION, _FIXED_BINARY, _FIXED_LIST, _MAP = range(10, 18)
_DURATION, _LARGE_BINARY, _LARGE_UTF8, _LARGE_LIST, _RUNS = range(18, 23)
_BINARY_VIEW, _UTF8_VIEW, _LIST_VIEW, _LARGE_LIST_VIEW = range(23, 27)
_OFFSETS = {
    _BINARY: np.int32, _UTF8: np.int32, _LIST: np.int32, _MAP: np.int32,
    _LARGE_BINARY: np.int64, _LARGE_UTF8: np.int64, _LARGE_LIST: np.int64,
}  # fmt: skip
_TEXTS = (_BINARY, _UTF8, _LARGE_BINARY, _LARGE_UTF8)
_INLINE = 12  # So many bytes of a view lie in the view itself.
Numbers = npt.NDArray[Any]


class Field(NamedTuple):
    """What the schema says of a column, or of a part of one."""

    kind: int
    width: int  # Bits of an item, if it has a fixed size; the items of a fixed-size list.
    dense: bool  # Of a union.
    children: tuple[Field, ...]
    dictionary: int | None  # The id of the dictionary that its indices are about.
    signed: bool


class _Batch:
    """One message with columns: its nodes and buffers are taken one after the other."""

    def __init__(self, header: Table, body: memoryview) -> None:
        if header.table(3) is not None:
            raise _damaged("it is compressed, which this package never does")
        self.length = header.int64(0)
        self.nodes, self.variadic = iter(header.pairs(1)), iter(header.int64s(4))
        self._buffers, self._next = header.pairs(2), 0
        self._body = body

    def node(self) -> tuple[int, int]:
        """Return length and count of nulls of the next array."""
        length, nulls = next(self.nodes, (-1, 0))
        if not 0 <= nulls <= length:
            raise _damaged(f"an array has {length} items and {nulls} nulls")
        return length, nulls

    def buffer(self, needed: int) -> memoryview:
        """Return the next buffer, which must have so many bytes at least."""
        offset, length = self._buffers[self._next] if self._next < len(self._buffers) else (-1, 0)
        self._next += 1
        if offset < 0 or length < 0 or offset % 8 or offset + length > self._body.nbytes:
            raise _damaged(f"a buffer of {length} bytes at {offset} is not in its message")
        if length < needed:
            raise _damaged(f"a buffer has {length} bytes, and {needed} are needed")
        return self._body[offset : offset + length]

    @property
    def next_nbytes(self) -> int:
        """Return the length of the next buffer; 0 if there is none."""
        return self._buffers[self._next][1] if self._next < len(self._buffers) else 0

    def numbers(self, count: int, kind: Any) -> Numbers:
        """Return the next buffer as `count` numbers."""
        nbytes = count * np.dtype(kind).itemsize
        return np.frombuffer(self.buffer(nbytes)[:nbytes], kind)

    def end(self) -> None:
        """Raise if anything is left."""
        # Early versions of polars count the buffers of texts behind a dictionary, too.
        if next(self.nodes, None) is not None or self._next < len(self._buffers):
            raise _damaged("a message has more arrays than its schema")


def check_stream(stream: memoryview, what: str) -> int:
    """Check a stream, and return the rows of all its batches together.

    Raises:
        CorruptDataError: a library could be misled by it; the message names `what`.
    """
    try:
        return _check(stream)
    except CorruptDataError as error:
        raise CorruptDataError(f"a stored {what} is damaged: {error}") from error


def _check(stream: memoryview) -> int:
    """Return the rows of a stream that has stood the check."""
    fields: list[Field] | None = None
    values = dict[int, Field]()
    sizes: dict[int, int] = {}
    rows = 0
    for kind, header, body in _messages(stream):
        if kind == _SCHEMA and fields is None:
            read = _schema if len(header.data) <= _REMEMBERED else _schema.__wrapped__
            fields, values = read(header.data)
        elif kind == _BATCH and fields is not None:
            batch = _Batch(header, body)
            if batch.length < 0:
                raise _damaged("a batch has a negative length")
            for field in fields:
                if _check_array(field, batch, sizes) != batch.length:
                    raise _damaged("a column and its batch differ in length")
            batch.end()
            rows += batch.length
        elif kind == _DICTIONARY and fields is not None:
            _check_dictionary(header, body, values, sizes)
        else:
            raise _damaged(f"a message of kind {kind} is in a wrong place")
    if fields is None:
        raise _damaged("it has no schema")
    return rows


@functools.lru_cache(64)
def _schema(metadata: bytes) -> tuple[list[Field], dict[int, Field]]:
    """Return the columns of a schema, and the values of each dictionary by its id.

    They are remembered, since frames of one kind are read again and again.
    """
    header, values = Table.root(metadata).table(2), dict[int, Field]()
    assert header is not None, "the caller has looked"
    if header.int16(0) != (sys.byteorder == "big"):
        raise _damaged("it was written in another byte order")
    return [_field(one, values, 0) for one in header.tables(1)], values


def _check_dictionary(
    header: Table, body: memoryview, values: dict[int, Field], sizes: dict[int, int]
) -> None:
    number, data = header.int64(0), header.table(1)
    if data is None or number not in values:
        raise _damaged("a dictionary belongs to no column")
    batch = _Batch(data, body)
    count = _check_array(values[number], batch, sizes)
    if count != batch.length:
        raise _damaged("a dictionary and its batch differ in length")
    batch.end()
    sizes[number] = count + (sizes.get(number, 0) if header.flag(2) else 0)


def _messages(stream: memoryview) -> Iterator[tuple[int, Table, memoryview]]:
    """Yield the kind, the header and the body of each message."""
    at = 0
    while at < stream.nbytes:
        if at + 8 > stream.nbytes:
            raise _damaged("it ends within a message")
        mark, nbytes = struct.unpack_from("<Ii", stream, at)
        if mark != _MARK or nbytes < 0 or nbytes % 8:
            raise _damaged("a message does not begin where one should")
        at += 8
        if nbytes == 0:
            return
        message = Table.root(bytes(stream[at : at + nbytes]))
        at += nbytes
        body, header = message.int64(3), message.table(2)
        if body < 0 or body % 8 or at + body > stream.nbytes or header is None:
            raise _damaged(f"a message claims {body} bytes, {max(stream.nbytes - at, 0)} are there")
        if message.int16(0) not in (_V4, _V5):
            raise _damaged("its metadata are of an unknown version")
        yield message.int8(1), header, stream[at : at + body]
        at += body


def _field(table: Table, values: dict[int, Field], depth: int) -> Field:
    if depth > _MAX_DEPTH:
        raise _damaged(f"its columns are nested in more than {_MAX_DEPTH} levels")
    try:
        table.text(0).decode()
    except UnicodeDecodeError as error:
        raise _damaged("the name of a column is not UTF-8") from error
    for pair in table.tables(6):
        if pair.text(0) == _EXTENSION and pair.text(1).startswith(_ADDRESSES):
            raise _damaged("a column claims to hold addresses in this process")
    kind, details = table.int8(2), table.table(3)
    if details is None:
        raise _damaged("a column has no type")
    children = tuple(_field(child, values, depth + 1) for child in table.tables(5))
    signed = kind == _INT and details.flag(1)
    dense = kind == _UNION and details.int16(0) == 1
    field = Field(kind, _width(kind, details), dense, children, None, signed)
    dictionary = table.table(4)
    if dictionary is None:
        return field
    number, index = dictionary.int64(0), dictionary.table(1)
    if number in values and values[number] != field:
        raise _damaged("two columns of different types share a dictionary")
    values[number] = field
    width = 32 if index is None else index.int32(0)
    if width not in (8, 16, 32, 64):
        raise _damaged(f"indices cannot have {width} bits")
    return Field(_INT, width, False, (), number, index is None or index.flag(1))


def _width(kind: int, details: Table) -> int:
    """Return the bits of an item of a type of fixed size, or the items of a fixed-size list."""
    if kind in (_INT, _TIME, _DECIMAL):
        default = {_INT: 0, _TIME: 32, _DECIMAL: 128}[kind]
        width = details.int32(2 if kind == _DECIMAL else 1 if kind == _TIME else 0, default)
        allowed: tuple[int, ...] = (8, 16, 32, 64, 128, 256)
        if kind == _DECIMAL and not 1 <= details.int32(0) <= 76:
            raise _damaged(f"a number cannot have {details.int32(0)} digits")
    elif kind == _FLOAT:
        width, allowed = {0: 16, 1: 32, 2: 64}.get(details.int16(0), 0), (16, 32, 64)
    elif kind == _DATE:
        width, allowed = (32 if details.int16(0, 1) == 0 else 64), (32, 64)
    elif kind == _INTERVAL:
        width, allowed = {0: 32, 1: 64, 2: 128}.get(details.int16(0), 0), (32, 64, 128)
    elif kind in (_TIMESTAMP, _DURATION):
        return 64
    elif kind in (_FIXED_BINARY, _FIXED_LIST):
        width = details.int32(0)
        if width < 0:
            raise _damaged(f"an item cannot have {width} parts")
        return 8 * width if kind == _FIXED_BINARY else width
    else:
        return 1 if kind == _BOOL else 0
    if width not in allowed:
        raise _damaged(f"an item cannot have {width} bits")
    return width


def _check_array(field: Field, batch: _Batch, sizes: dict[int, int]) -> int:
    """Check the next array of a message and all that is in it; return its length."""
    length, nulls = batch.node()
    kind = field.kind
    if kind == _NULL:
        allowance.spend(length // 8, "a column of nulls")  # polars makes a bit of each.
    elif kind == _RUNS:
        _check_runs(field, batch, sizes)
    elif kind == _UNION:
        _check_union(field, batch, sizes, length)
    else:
        _check_items(field, batch, sizes, length, _validity(batch, length, nulls))
    return length


def _validity(batch: _Batch, length: int, nulls: int) -> memoryview | None:
    """Return one bit for each item; None if all are valid. The nulls must be as many as said."""
    mask = batch.buffer(-(-length // 8) if nulls else 0)
    if not nulls:
        return None
    bits = int.from_bytes(mask[: -(-length // 8)], "little") & ((1 << length) - 1)
    if length - bits.bit_count() != nulls:
        raise _damaged(f"an array does not have the {nulls} nulls that it claims")
    return mask


def _used(items: Numbers, valid: memoryview | None) -> Numbers:
    """Return the items that are not null: what stands for a null may be anything."""
    if valid is None:
        return items
    bits = np.frombuffer(valid, np.uint8)
    used: Numbers = items[np.unpackbits(bits, count=len(items), bitorder="little").astype(bool)]
    return used


def _check_items(
    field: Field, batch: _Batch, sizes: dict[int, int], length: int, valid: memoryview | None
) -> None:
    kind = field.kind
    if kind in _OFFSETS:
        # An array without items may lack even the first offset.
        bare = not length and not batch.next_nbytes
        numbers = batch.numbers(0 if bare else length + 1, _OFFSETS[kind])
        if kind in _TEXTS:
            end = batch.buffer(0).nbytes
        else:
            (child,) = _children(field, 1)
            end = _check_array(child, batch, sizes)
        if len(numbers) and not (
            numbers[0] >= 0 and numbers[-1] <= end and bool((numbers[1:] >= numbers[:-1]).all())
        ):
            raise _damaged("its offsets do not rise from 0 to the end of the items")
    elif kind in (_BINARY_VIEW, _UTF8_VIEW):
        _check_views(batch, length)
    elif kind in (_LIST_VIEW, _LARGE_LIST_VIEW):
        _check_list_views(field, batch, sizes, length)
    elif kind == _STRUCT:
        for child in field.children:
            if _check_array(child, batch, sizes) != length:
                raise _damaged("the fields of a structure differ in length")
    elif kind == _FIXED_LIST:
        (child,) = _children(field, 1)
        if field.width == 0:
            allowance.spend(length, "a column of empty lists")
        if _check_array(child, batch, sizes) < length * field.width:
            raise _damaged("a column of lists has too few items")
    elif field.width:
        data = batch.buffer(-(-length * field.width // 8))
        if field.dictionary is not None:
            _check_indices(field, data, length, valid, sizes)
    elif kind == _FIXED_BINARY:
        allowance.spend(length, "a column of empty items")
        batch.buffer(0)
    else:
        raise _damaged(f"a column has the unknown type {kind}")


def _check_indices(
    field: Field, data: memoryview, length: int, valid: memoryview | None, sizes: dict[int, int]
) -> None:
    assert field.dictionary is not None, "only such a field has indices"
    kind = np.dtype(f"{'i' if field.signed else 'u'}{field.width // 8}")
    numbers = np.frombuffer(data[: length * kind.itemsize], kind)
    used = _used(numbers, valid)
    if len(used) and not 0 <= int(used.min()) <= int(used.max()) < sizes.get(field.dictionary, 0):
        raise _damaged("an index is outside of its dictionary")


def _check_views(batch: _Batch, length: int) -> None:
    """Check all views, those of nulls included: pyarrow follows them when it casts."""
    views = batch.numbers(length, np.dtype("V16")).view(np.int32).reshape(-1, 4)
    count = next(batch.variadic, -1)
    if count < 0:
        raise _damaged("a column of views has no list of its buffers")
    ends = []
    for _ in range(count):
        ends.append(batch.buffer(0).nbytes)  # Raises where there are not so many.
    sizes, places, offsets = views[:, 0], views[:, 2], views[:, 3]
    far = sizes > _INLINE
    places, offsets = places[far], offsets[far].astype(np.int64)
    if len(sizes) and int(sizes.min()) < 0:
        raise _damaged("a text has a negative length")
    if len(places):
        if not 0 <= int(places.min()) <= int(places.max()) < count or int(offsets.min()) < 0:
            raise _damaged("a text lies in no buffer")
        if bool((offsets + sizes[far] > np.array(ends, np.int64)[places]).any()):
            raise _damaged("a text ends after its buffer")


def _check_list_views(field: Field, batch: _Batch, sizes: dict[int, int], length: int) -> None:
    width = np.int32 if field.kind == _LIST_VIEW else np.int64
    starts, counts = batch.numbers(length, width), batch.numbers(length, width)
    (child,) = _children(field, 1)
    end = _check_array(child, batch, sizes)
    if len(starts) and not (
        int(starts.min()) >= 0
        and int(counts.min()) >= 0
        and bool((starts.astype(np.int64) <= end - counts.astype(np.int64)).all())
    ):
        raise _damaged("a list lies outside of the items")


def _check_runs(field: Field, batch: _Batch, sizes: dict[int, int]) -> None:
    """Check the two arrays of a run-end encoding; pyarrow compares the ends with the length."""
    for child in _children(field, 2):
        _check_array(child, batch, sizes)


def _check_union(field: Field, batch: _Batch, sizes: dict[int, int], length: int) -> None:
    """Check the arrays of a union; pyarrow compares types and offsets with them."""
    batch.buffer(length)
    if field.dense:
        batch.buffer(4 * length)
    for child in field.children:
        count = _check_array(child, batch, sizes)
        if not field.dense and count < length:
            raise _damaged("a part of a union is too short")


def _children(field: Field, count: int) -> tuple[Field, ...]:
    if len(field.children) != count:
        raise _damaged(f"a column has {len(field.children)} parts instead of {count}")
    return field.children


def _damaged(what: str) -> CorruptDataError:
    return CorruptDataError(what)
