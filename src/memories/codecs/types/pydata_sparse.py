"""Codecs of the arrays of the package sparse: COO, GCXS and DOK, as structures of plain arrays.

All indices are checked when an array is stored and when it is read, since the compiled functions of
sparse use them unchecked, and rely on their order. The arrays of a reader are private.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from memories.codecs.allowance import spend
from memories.codecs.arrays import Array, expect_array
from memories.codecs.base import Parts
from memories.codecs.expect import expect_fields, expect_shape
from memories.codecs.nested import StructureCodec, encode_as
from memories.codecs.pickled import PickleCodec
from memories.codecs.registry import add
from memories.errors import CorruptDataError, UnsupportedTypeError
from memories.foundation.optional_imports import package

_NUMBERS = "biufc"
_ITEM_NBYTES = 256  # Of an item of a DOK: its key, its number and their place in the dict.


class SparseCodec(StructureCodec):
    """Arrays of numbers in one format; others are pickled.

    `expect` returns the checked fields of a structure.
    """

    def __init__(
        self,
        name: str,
        apart: Callable[[Any], Any],
        expect: Callable[[Any], Any],
        build: Callable[..., Any],
    ) -> None:
        super().__init__(name, apart, lambda structure: build(*expect(structure)))
        self._expect = expect

    def encode(self, value: Any) -> Parts:
        """List the arrays.

        Raises:
            UnsupportedTypeError: an index is outside of the shape, or not in its order.
        """
        if value.dtype.kind not in _NUMBERS:
            return PickleCodec().encode(value)
        structure = self.take_apart(value)
        try:
            self._expect(structure)
        except CorruptDataError as error:
            raise UnsupportedTypeError(
                f"a broken sparse array cannot be stored: {error}"
            ) from error
        return encode_as(self.name, structure)


def _coo_apart(value: Any) -> Any:
    return [list(value.shape), value.coords, value.data, value.fill_value]


def _expect_coo(structure: Any) -> tuple[Any, ...]:
    extents, coords, data, fill = expect_fields(structure, 4, "a sparse array")
    shape = expect_shape(extents, "a sparse array")
    expect_array(data, _NUMBERS), expect_array(coords, "iu", 2)
    if coords.shape != (len(shape), len(data)):
        raise CorruptDataError("a sparse array and its indices differ in length")
    _check_within(coords, shape)
    if len(data) > 1 and not _rises(coords):
        raise CorruptDataError("the indices of a stored sparse array are not in their order")
    return shape, coords, data, _expect_fill(fill, data)


def _build_coo(shape: tuple[int, ...], coords: Array, data: Array, number: Any) -> Any:
    return package("sparse").COO(
        np.array(coords), np.array(data), shape,
        has_duplicates=False, sorted=True, fill_value=number,
    )  # fmt: skip


def _gcxs_apart(value: Any) -> Any:
    axes = [] if value.compressed_axes is None else [int(axis) for axis in value.compressed_axes]
    starts = np.asarray(value.indptr)
    if len(value.shape) < 2 and not len(starts):  # In earlier releases of sparse.
        starts = np.array([0, len(value.data)])
    return [list(value.shape), axes, value.data, value.indices, starts, value.fill_value]


def _expect_gcxs(structure: Any) -> tuple[Any, ...]:
    extents, axes, data, indices, starts, fill = expect_fields(structure, 6, "a sparse array")
    shape = expect_shape(extents, "a sparse array")
    compressed = expect_shape(axes, "a sparse array")
    expect_array(data, _NUMBERS), expect_array(indices, "iu"), expect_array(starts, "iu")
    if len(set(compressed)) != len(compressed) or not all(i < len(shape) for i in compressed):
        raise CorruptDataError("the axes of a stored sparse array are damaged")
    rows = math.prod(shape[axis] for axis in compressed)
    columns = math.prod(extent for axis, extent in enumerate(shape) if axis not in compressed)
    if len(starts) != rows + 1 or len(indices) != len(data):
        raise CorruptDataError("a sparse array and its indices differ in length")
    if starts[0] != 0 or starts[-1] != len(data) or not bool((starts[1:] >= starts[:-1]).all()):
        raise CorruptDataError("the rows of a stored sparse array do not follow each other")
    _check_within(indices[None], (columns,))
    return shape, compressed, (data, indices, starts), _expect_fill(fill, data)


def _build_gcxs(
    shape: tuple[int, ...], axes: tuple[int, ...], arrays: tuple[Array, ...], number: Any
) -> Any:
    kind, (data, indices, starts) = package("sparse").GCXS, map(np.array, arrays)
    if len(shape) < 2:
        return kind((data, indices, []), shape=shape, fill_value=number)
    return kind((data, indices, starts), shape=shape, compressed_axes=axes, fill_value=number)


def _dok_apart(value: Any) -> Any:
    count = len(value.data)
    coords = np.array(list(value.data), np.int64).reshape(count, len(value.shape))
    data = np.array(list(value.data.values()), value.dtype).reshape(count)
    return [list(value.shape), coords, data, value.fill_value]


def _expect_dok(structure: Any) -> tuple[Any, ...]:
    extents, coords, data, fill = expect_fields(structure, 4, "a sparse array")
    shape = expect_shape(extents, "a sparse array")
    expect_array(data, _NUMBERS), expect_array(coords, "i", 2)
    if coords.shape != (len(data), len(shape)):
        raise CorruptDataError("a sparse array and its indices differ in length")
    _check_within(coords.T, shape)
    return shape, coords, data, _expect_fill(fill, data)


def _build_dok(shape: tuple[int, ...], coords: Array, data: Array, number: Any) -> Any:
    spend(_ITEM_NBYTES * len(data), "the items of a sparse array")
    value = package("sparse").DOK(shape, dtype=data.dtype, fill_value=number)
    value.data = dict(zip(map(tuple, coords.tolist()), data, strict=True))
    if len(value.data) != len(data):
        raise CorruptDataError("a sparse array has two items in one place")
    return value


def _expect_fill(fill: Any, data: Array) -> Any:
    """Return what fills an array: a number, or an array of one, of the same dtype."""
    known = isinstance(fill, np.generic) or (type(fill) is np.ndarray and not fill.ndim)
    if not known or fill.dtype.newbyteorder("=") != data.dtype.newbyteorder("="):
        raise CorruptDataError("a sparse array and what fills it differ in type")
    return fill


def _check_within(coords: Array, shape: tuple[int, ...]) -> None:
    for extent, axis in zip(shape, coords, strict=True):
        if len(axis) and not 0 <= int(axis.min()) <= int(axis.max()) < extent:
            raise CorruptDataError("an index of a sparse array is outside of its shape")


def _rises(coords: Array) -> bool:
    """Return whether each place is behind the one before it; numbers of places could overflow."""
    undecided: Array = np.ones(coords.shape[1] - 1, bool)
    for axis in coords:
        if bool((undecided & (axis[1:] < axis[:-1])).any()):
            return False
        undecided &= axis[1:] == axis[:-1]
    return not bool(undecided.any())


def register() -> None:
    """Register the codecs of sparse."""
    sparse = package("sparse")
    add(SparseCodec("sparse.coo", _coo_apart, _expect_coo, _build_coo), sparse.COO)
    add(SparseCodec("sparse.gcxs", _gcxs_apart, _expect_gcxs, _build_gcxs), sparse.GCXS)
    add(SparseCodec("sparse.dok", _dok_apart, _expect_dok, _build_dok), sparse.DOK)
