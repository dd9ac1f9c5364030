"""Codecs of the pandas arrays over Arrow memory: columns of text, and `ArrowDtype`.

A column of text is encoded as its offsets, its bytes and a bit mask, without a copy of the first
two. All other arrays are IPC streams.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from memories.codecs.allowance import Allowance
from memories.codecs.base import Codec, Parts
from memories.codecs.buffers import EMPTY, as_array, view_bytes
from memories.codecs.expect import expect, expect_dict
from memories.codecs.registry import add
from memories.codecs.types import arrow
from memories.errors import CorruptDataError
from memories.foundation.optional_imports import package

_WIDTHS = {"string": np.int32, "large_string": np.int64}
_OFFSETS, _TEXT, _MASK = range(3)  # The buffers.
_OWN_MASK, _OWN_ALL = frozenset({_MASK}), frozenset({_OFFSETS, _TEXT, _MASK})
_HIGH_BITS = 0x8080808080808080


class PandasTextCodec(Codec):
    """Text as one plain Arrow array: offsets, UTF-8, and a mask of the valid items."""

    name = "pandas.text"

    def encode(self, value: Any) -> Parts:
        """List the buffers of the array; several chunks are concatenated first."""
        data = value.__arrow_array__()
        kind = str(data.type)
        if kind not in _WIDTHS:
            return STREAMS.encode(value)
        pieces, owned = getattr(data, "num_chunks", None), _OWN_MASK
        if pieces is None:
            array = data
        elif pieces == 1:
            array = data.chunk(0)
        else:
            array, owned = package("pyarrow").concat_arrays(data.chunks), _OWN_ALL
        offsets, text = _text_of(array, _WIDTHS[kind])
        first, last = offsets[0], offsets[-1]
        if first:  # A slice of a longer array.
            offsets, owned = offsets - first, owned | {_OFFSETS}
        buffers = (view_bytes(offsets), text[first:last], _mask_of(array))
        meta = {"kind": kind, "count": len(array), "nan": is_nan(value.dtype.na_value)}
        return Parts(self.name, meta, buffers, owned)

    def decode(self, parts: Parts, *, writable: bool = False) -> Any:
        """Return an array over the buffers, with all offsets and texts checked."""
        del writable
        pa = package("pyarrow")
        meta = expect_dict(parts.meta, ("kind", "count", "nan"), "a column of text")
        kind, count = expect(meta["kind"], str, "a kind of text"), meta["count"]
        offsets, text, mask = parts.buffers
        if kind not in _WIDTHS or type(count) is not int or count < 0:
            raise CorruptDataError("a stored column of text has a damaged description")
        if mask.nbytes not in (0, -(-count // 8)):
            raise CorruptDataError("a stored column of text and its mask differ in length")
        _check_offsets(offsets, text.nbytes, count, _WIDTHS[kind])
        whole = [pa.py_buffer(mask) if mask.nbytes else None, pa.py_buffer(offsets)]
        column = pa.Array.from_buffers(pa.type_for_alias(kind), count, [*whole, pa.py_buffer(text)])
        if not _is_ascii(text):
            _validate(pa, column)
        return _text(pa.chunked_array([column]), expect(parts.meta["nan"], bool, "a flag"))


class PandasArrowCodec(Codec):
    """Any of these arrays, as an Arrow IPC stream."""

    name = "pandas.arrow"

    def encode(self, value: Any) -> Parts:
        """Write the Arrow array as an IPC stream."""
        stream = arrow.write_stream(package("pyarrow").table({"": value.__arrow_array__()}))
        text = None
        if isinstance(value.dtype, package("pandas").StringDtype):
            text = "nan" if is_nan(value.dtype.na_value) else "na"
        return Parts(self.name, text, (stream,), frozenset({0}))

    def decode(self, parts: Parts, *, writable: bool = False) -> Any:
        """Return the extension array over the memory of the stream."""
        del writable
        (buffer,) = parts.buffers
        with Allowance(parts):
            table = arrow.read_stream(view_bytes(buffer))
        if table.num_columns != 1:
            raise CorruptDataError(f"a stored column consists of {table.num_columns} columns")
        data = table.column(0)
        if parts.meta is None:
            return package("pandas").arrays.ArrowExtensionArray(data)
        if parts.meta not in ("nan", "na"):
            raise CorruptDataError("a stored column of text has a damaged description")
        return _text(data, parts.meta == "nan")


STREAMS = PandasArrowCodec()


def is_nan(value: Any) -> bool:
    """Return whether missing texts are NaN, and not `pandas.NA`."""
    return isinstance(value, float)


def text_dtype(storage: str, nan: bool) -> Any:
    """Return the dtype of a column of text, whose missing texts are NaN or `pandas.NA`."""
    kind = package("pandas").StringDtype
    return kind(storage, na_value=np.nan) if nan else kind(storage)


def text_arrays(storage: str) -> list[type]:
    """Return the array types for text in this storage; before pandas 3 one per missing value."""
    pandas = package("pandas")
    name = {"pyarrow": "ArrowStringArray", "python": "StringArray"}[storage]
    found: list[type] = [getattr(pandas.arrays, name)]
    try:
        kind = text_dtype(storage, nan=True).construct_array_type()
    except (ValueError, ImportError):
        return found  # Arrow is not installed.
    return found if kind in found else [*found, kind]


def _text(data: Any, nan: bool) -> Any:
    return text_dtype("pyarrow", nan).__from_arrow__(data)


def _text_of(array: Any, kind: Any) -> tuple[Any, memoryview]:
    """Return the offsets of a text array, and the text buffer."""
    _, offsets, text = array.buffers()
    if offsets is None or not offsets.size:
        return np.zeros(1, kind), EMPTY
    start = array.offset and array.offset * np.dtype(kind).itemsize
    numbers = np.frombuffer(offsets, kind, len(array) + 1, start)
    return numbers, view_bytes(text) if text is not None else EMPTY


def _mask_of(array: Any) -> memoryview:
    """Return one bit for each item, set if it is valid; an empty buffer if all items are."""
    if not array.null_count:
        return EMPTY
    there = array.is_valid().to_numpy(zero_copy_only=False)
    return view_bytes(np.packbits(there, bitorder="little"))


def _check_offsets(offsets: memoryview, nbytes: int, count: int, kind: Any) -> None:
    """Refuse offsets outside of the text, or not in rising order.

    Raises:
        CorruptDataError: they are not `count` + 1 rising ones from 0 to `nbytes`.
    """
    if offsets.nbytes == (count + 1) * np.dtype(kind).itemsize:
        numbers = np.frombuffer(offsets, kind)
        if numbers[0] == 0 and numbers[-1] == nbytes and bool((numbers[1:] >= numbers[:-1]).all()):
            return
    raise CorruptDataError("the offsets of a stored column of text are damaged")


def _is_ascii(text: memoryview) -> bool:
    """Return whether all bytes are ASCII, eight bytes at a time."""
    whole = text.nbytes // 8 * 8
    words = np.frombuffer(text[:whole], np.uint64)
    rest = bool((as_array(text[whole:]) < 0x80).all()) if text.nbytes > whole else True
    return rest and not int(np.bitwise_or.reduce(words)) & _HIGH_BITS


def _validate(pa: Any, column: Any) -> None:
    try:
        column.validate(full=True)
    except pa.ArrowException as error:
        raise CorruptDataError(f"a stored column of text is damaged: {error}") from error


def register() -> None:
    """Register the codecs of Arrow's memory in pandas."""
    add(STREAMS, package("pandas").arrays.ArrowExtensionArray)
    add(PandasTextCodec(), *text_arrays("pyarrow"))
