"""Codecs of NumPy arrays of objects or strings, masked arrays, matrices, scalars and dtypes.

Each of these arrays is encoded as a structure of plain arrays and lists.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from memories.codecs import dtypes
from memories.codecs.allowance import spend
from memories.codecs.arrays import Array, ArrayCodec, is_flat, order_of, without_padding
from memories.codecs.base import Codec, Parts, Sharing
from memories.codecs.expect import (
    expect,
    expect_dict,
    expect_fields,
    expect_instance,
    expect_shape,
)
from memories.codecs.nested import ATOMS, StructureCodec
from memories.codecs.pickled import PickleCodec
from memories.codecs.registry import add, add_at
from memories.errors import CorruptDataError, UnsupportedTypeError
from memories.foundation.optional_imports import package


class NumpyScalarCodec(Codec):
    """NumPy scalars of every dtype."""

    name = "numpy.scalar"
    sharing = Sharing.SHARED

    def encode(self, value: Any) -> Parts:
        """Describe the scalar."""
        if isinstance(value, np.str_ | np.bytes_):
            # An array item loses trailing NULs, the scalar itself has them.
            text = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
            return Parts(self.name, {"dtype": value.dtype.kind, "data": bytes(text)})
        array = np.asarray(value)
        if not is_flat(array):
            return PickleCodec().encode(value)
        if array.dtype.char in "gG":
            array = without_padding(array)
        return Parts(self.name, {"dtype": dtypes.describe(array.dtype), "data": array.tobytes()})

    def decode(self, parts: Parts, *, writable: bool = False) -> Any:
        """Build the scalar; a record is a private copy."""
        del writable
        kind, data = parts.meta["dtype"], parts.meta["data"]
        if type(data) is not bytes:  # `np.bytes_` would take a number as a length to allocate.
            raise CorruptDataError("a stored scalar has no bytes")
        if kind == "U":
            return np.str_(str(data, "utf-8", "surrogatepass"))
        if kind == "S":
            return np.bytes_(data)
        dtype = dtypes.build(kind)
        if len(data) != dtype.itemsize:
            raise CorruptDataError(f"a {dtype} scalar takes {dtype.itemsize} bytes")
        if not data:
            return np.zeros((), dtype)[()]
        return np.frombuffer(data, dtype).copy()[0]


class NumpyDtypeCodec(Codec):
    """Dtypes themselves; those with objects or metadata in them are pickled."""

    name = "numpy.dtype"

    def encode(self, value: np.dtype[Any]) -> Parts:
        """Describe the dtype."""
        try:
            return Parts(self.name, dtypes.describe(value))
        except UnsupportedTypeError:
            return PickleCodec().encode(value)

    def decode(self, parts: Parts, *, writable: bool = False) -> np.dtype[Any]:
        """Build the dtype."""
        del writable
        return dtypes.build(parts.meta)


def _encode_other(value: Array) -> Parts:
    """Encode an array whose dtype has no plain description."""
    kind = value.dtype.char
    if kind == "O" and value.dtype.metadata is None:
        return OBJECTS.encode(value)
    if kind == "T" and _is_plain_na(getattr(value.dtype, "na_object", None)):
        return STRINGS.encode(value)
    return PickleCodec().encode(value)


def _objects_apart(value: Array) -> Any:
    return [list(value.shape), order_of(value), list(value.reshape(-1, order="C"))]


def _objects_together(structure: Any) -> Array:
    extents, order, items = expect_fields(structure, 3, "an array of objects")
    shape = expect_shape(extents, "an array of objects")
    expect(items, list, "the items of an array")
    spend(8 * len(items), "an array of objects")
    flat: Array = np.empty(len(items), object)
    if set(map(type, items)) <= ATOMS:
        flat[:] = items
    else:
        for i, item in enumerate(items):  # A slice assignment would convert nested lists.
            flat[i] = item
    result = flat.reshape(shape)
    return np.asfortranarray(result) if order == "F" else result


def _strings_apart(value: Array) -> Any:
    dtype: Any = value.dtype
    has_na = hasattr(dtype, "na_object")
    flat = value.reshape(-1)
    items = [item if type(item) is str else None for item in flat.tolist()]
    na = dtype.na_object if has_na else None
    return [list(value.shape), has_na, na, dtype.coerce, items, order_of(value)]


def _strings_together(structure: Any) -> Array:
    found = expect_fields(structure, 5, "an array of texts", 6)
    extents, has_na, na, coerce, items, *order = found
    shape = expect_shape(extents, "an array of texts")
    expect(items, list, "the items of an array")
    if not set(map(type, items)) <= {str, type(None)} or not _is_plain_na(na):
        raise CorruptDataError("a text of an array is stored as something else")
    spend(16 * len(items), "an array of texts")
    kind: Any = np.dtypes.StringDType
    dtype = kind(na_object=na, coerce=coerce) if has_na else kind(coerce=coerce)
    result: Array = np.empty(len(items), dtype)
    for i, item in enumerate(items):
        result[i] = na if item is None else item
    result = result.reshape(shape)
    return np.asfortranarray(result) if order == ["F"] else result


def _masked_apart(value: Any) -> Any:
    return {
        "data": np.asarray(value.data),
        "mask": None if value.mask is np.ma.nomask else np.asarray(value.mask),
        "fill": None if value._fill_value is None else np.asarray(value._fill_value),
        "hard": bool(value.hardmask),
        "shared": bool(value.sharedmask),
    }


def _masked_together(structure: Any) -> Any:
    names = ("data", "mask", "fill", "hard", "shared")
    expect_dict(structure, names, "a masked array")
    data, mask = structure["data"], structure["mask"]
    if type(data) is not np.ndarray or type(mask) not in (type(None), np.ndarray):
        raise CorruptDataError("a masked array is stored as something else")
    if mask is not None and mask.shape != data.shape:
        raise CorruptDataError("a stored mask and its array differ in shape")
    result: Any = np.ma.MaskedArray(data, mask=np.ma.nomask if mask is None else mask, copy=False)
    if structure["fill"] is not None:
        result._fill_value = np.array(expect(structure["fill"], np.ndarray, "a fill value"))
    result._hardmask = expect(structure["hard"], bool, "a flag")
    result._sharedmask = expect(structure["shared"], bool, "a flag")
    return result


def _is_plain_na(na: Any) -> bool:
    """Return whether what stands for a missing text is None, text, a number or a pandas.NA."""
    return type(na) in ATOMS or type(na).__module__.partition(".")[0] == "pandas"


def _view(kind: Any) -> Any:
    return lambda data: expect(data, np.ndarray, "an array").view(kind)


def _iinfo(dtype: Any) -> Any:
    return np.iinfo(expect_instance(dtype, np.dtype, "a dtype"))


def _finfo(dtype: Any) -> Any:
    expect_instance(dtype, np.dtype, "a dtype")
    library: Any = package("ml_dtypes") if dtype.type.__module__ == "ml_dtypes" else np
    return library.finfo(dtype)


OBJECTS = StructureCodec("numpy.objects", _objects_apart, _objects_together)
STRINGS = StructureCodec("numpy.strings", _strings_apart, _strings_together)


def register() -> None:
    """Register the codecs of NumPy's other kinds."""
    add(ArrayCodec(_encode_other), np.ndarray, np.memmap)
    for codec in (OBJECTS, STRINGS):
        add(codec)
    # NumPy imports its masked arrays at their first use, which takes longer than all codecs here.
    add_at(
        StructureCodec("numpy.masked", _masked_apart, _masked_together), "numpy.ma", "MaskedArray"
    )
    add(
        StructureCodec("numpy.matrix", np.asarray, _view(np.matrix)),
        np.matrix,
    )
    add(
        StructureCodec("numpy.recarray", lambda v: v.view(np.ndarray), _view(np.recarray)),
        np.recarray,
    )
    add(NumpyScalarCodec(), *_kinds_of(np.generic, "numpy", "ml_dtypes"))
    add(NumpyDtypeCodec(), *_kinds_of(np.dtype, "numpy", "numpy.dtypes"))
    for name, kind, build in (("finfo", np.finfo, _finfo), ("iinfo", np.iinfo, _iinfo)):
        limits: Any = build
        add(StructureCodec(f"numpy.{name}", lambda v: v.dtype, limits, Sharing.SHARED), kind)


def _kinds_of(base: type, *modules: str) -> list[type]:
    """Return `base` and its subclasses, as far as they are defined in these modules."""
    found: list[type] = []
    todo: list[type] = [base]
    while todo:
        kind = todo.pop()
        todo.extend(kind.__subclasses__())
        if kind.__module__ in modules:
            found.append(kind)
    return found
