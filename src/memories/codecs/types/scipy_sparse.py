"""The codec of scipy.sparse matrices and arrays, as a structure of plain arrays.

All indices are checked when a matrix is stored and when it is read, since the kernels of scipy use
them unchecked, and the checks of scipy itself overflow. The arrays of a reader are private, since
scipy sorts them in place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from memories.codecs.allowance import spend
from memories.codecs.arrays import expect_array
from memories.codecs.base import Parts
from memories.codecs.expect import expect, expect_dict, expect_fields, expect_shape
from memories.codecs.nested import StructureCodec
from memories.codecs.pickled import PickleCodec
from memories.codecs.registry import add
from memories.errors import CorruptDataError, UnsupportedTypeError
from memories.foundation.optional_imports import package

_NUMBERS = "biufc"
_COMPRESSED = ("csr", "csc", "bsr")
_MAX_AXES = 64
_ROW_NBYTES = 128  # Of two empty lists and the references to them.
_FLAGS = ("_has_canonical_format", "_has_sorted_indices")


class ScipySparseCodec(StructureCodec):
    """All formats of scipy.sparse, matrices and arrays."""

    def encode(self, value: Any) -> Parts:
        """List the arrays; a matrix of anything but numbers is pickled.

        Raises:
            UnsupportedTypeError: an index is outside of the arrays or the shape.
        """
        if value.dtype.kind not in _NUMBERS:
            return PickleCodec().encode(value)
        return super().encode(value)


def _apart(value: Any) -> dict[str, Any]:
    layout = value.format
    structure: dict[str, Any] = {
        "format": layout,
        "matrix": isinstance(value, package("scipy.sparse").spmatrix),
        "shape": list(value.shape),
    }
    arrays: tuple[Any, ...]
    if layout in _COMPRESSED:
        arrays = (value.data, value.indices, value.indptr)
    elif layout == "dia":
        arrays = (value.data, value.offsets)
    else:
        coo = value if layout == "coo" else value.tocoo()
        arrays = (coo.data, *_coords(coo))
    kind = _kind(_lying(layout), structure["matrix"])
    try:
        _build(kind, _lying(layout), arrays, value.shape)
    except (ValueError, IndexError, TypeError) as error:
        raise UnsupportedTypeError(f"a broken sparse matrix cannot be stored: {error}") from error
    flags = {name: bool(vars(value)[name]) for name in _FLAGS if name in vars(value)}
    if layout == "lil":
        # Each row becomes two lists again, which its stored bytes must be in proportion to.
        structure["counts"] = np.bincount(arrays[1], minlength=value.shape[0]).astype(np.int32)
    return {**structure, "arrays": list(arrays), "flags": flags}


def _together(structure: Any) -> Any:
    names = ("format", "matrix", "shape", "arrays", "flags")
    expect_dict(structure, names, "a sparse matrix")
    layout = expect(structure["format"], str, "a format")
    shape = expect_shape(structure["shape"], "a sparse matrix")
    expect(structure["matrix"], bool, "a flag")
    expect(structure["flags"], dict, "the flags of a sparse matrix")
    data, *indices = expect_fields(structure["arrays"], 2, "a sparse matrix", 1 + _MAX_AXES)
    arrays = [np.array(expect_array(data, _NUMBERS, None))]
    arrays += [np.array(expect_array(index, "i")) for index in indices]
    kind = _kind(_lying(layout), structure["matrix"])
    try:
        value = _build(kind, _lying(layout), arrays, shape)
    except (ValueError, IndexError, TypeError) as error:
        raise CorruptDataError(f"a stored sparse matrix is damaged: {error}") from error
    if layout in ("lil", "dok"):
        if layout == "lil":
            spend(_ROW_NBYTES * (1, *shape)[-2], "the rows of a sparse matrix")
        value = value.asformat(layout)
    for name in _FLAGS:
        if structure["flags"].get(name) is True and not _has_flag(value, name):
            raise CorruptDataError("a stored sparse matrix is not sorted as it claims")
    return value


def _build(kind: Any, layout: str, arrays: Sequence[Any], shape: tuple[int, ...]) -> Any:
    """Return the matrix over `arrays`, whose indices keep their dtype.

    Raises:
        ValueError: an index is outside of the arrays or the shape.
    """
    if layout in _COMPRESSED:
        _check_compressed(layout, arrays, shape)
        value = kind(tuple(arrays), shape=shape, copy=False)
        value.check_format(full_check=True)
        _, indices, value.indptr = arrays
        value.indices = indices[: len(value.data)]  # The check has cut off unused room.
        return value
    if layout == "dia":
        # A diagonal outside of the matrix is allowed; scipy adds offsets in 32 bits, unchecked.
        if len(arrays[1]) and np.abs(arrays[1].astype("f8")).max() + max(shape) >= 2**31:
            raise ValueError("the offsets of the diagonals exceed 32 bits")
        value = kind(tuple(arrays), shape=shape, copy=False)
        value.offsets = arrays[1]
        return value
    data, *coords = arrays
    for extent, axis in zip(shape, coords, strict=True):
        if len(axis) != len(data) or (len(axis) and not 0 <= axis.min() <= axis.max() < extent):
            raise ValueError("indices are outside of the shape")
    value = kind((data, tuple(coords)), shape=shape, copy=False)
    if hasattr(value, "coords"):
        value.coords = tuple(coords)
    else:  # scipy before 1.13, which has two axes only.
        value.row, value.col = coords
    return value


def _check_compressed(layout: str, arrays: Sequence[Any], shape: tuple[int, ...]) -> None:
    """Check what the kernels trust: rows that follow each other, and columns within the shape.

    Comparisons, not differences: those overflow in the 32 bits of most indices.

    Raises:
        ValueError: a row begins before the one above it ends, or an index is out of bounds.
    """
    data, indices, starts = arrays
    if indices.ndim != 1 or starts.ndim != 1 or not 1 <= len(shape) <= 2:
        raise ValueError("the indices are not lists of numbers")
    rows, columns = (1, *shape)[-2:]
    if layout == "csc":
        rows, columns = columns, rows
    if layout == "bsr":
        if data.ndim != 3 or min(data.shape[1:]) < 1:
            raise ValueError("the blocks of the matrix are not arrays of two dimensions")
        if rows % data.shape[1] or columns % data.shape[2]:
            raise ValueError("the shape is not a multiple of the blocks")
        rows, columns = rows // data.shape[1], columns // data.shape[2]
    elif data.ndim != 1:
        raise ValueError("the values are not a list of numbers")
    if len(starts) != rows + 1 or starts[0] != 0 or not bool((starts[1:] >= starts[:-1]).all()):
        raise ValueError("the rows do not follow each other")
    count = int(starts[-1])
    if count > min(len(indices), len(data)):  # There may be room for more.
        raise ValueError(f"the rows end at {count} of {len(indices)} indices, {len(data)} values")
    used = indices[:count]
    if count and not 0 <= int(used.min()) <= int(used.max()) < columns:
        raise ValueError("indices are outside of the shape")


def _coords(coo: Any) -> Any:
    return coo.coords if hasattr(coo, "coords") else (coo.row, coo.col)


def _lying(layout: str) -> str:
    """Return the format in which a matrix of this format is stored."""
    return "coo" if layout in ("lil", "dok") else layout


def _has_flag(value: Any, name: str) -> bool:
    public = name.removeprefix("_")
    return bool(getattr(value, public))


def _kind(layout: str, matrix: bool) -> Any:
    known = ("csr", "csc", "bsr", "coo", "dia", "lil", "dok")
    if layout not in known:
        raise CorruptDataError(f"{layout[:20]!r} is not a format of sparse matrices")
    return getattr(package("scipy.sparse"), f"{layout}_{'matrix' if matrix else 'array'}")


def register() -> None:
    """Register the codec of scipy.sparse."""
    sparse = package("scipy.sparse")
    kinds = [
        getattr(sparse, f"{layout}_{kind}")
        for layout in ("csr", "csc", "bsr", "coo", "dia", "lil", "dok")
        for kind in ("matrix", "array")
    ]
    add(ScipySparseCodec("scipy.sparse", _apart, _together), *kinds)
