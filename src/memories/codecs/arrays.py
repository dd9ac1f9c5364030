"""The codec of plain NumPy arrays: dtype, shape, order, and the memory as one buffer.

Arrays of objects, masked arrays and subclasses are in `types/numpy_special.py`.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from typing import Any

import numpy as np

from memories.codecs import dtypes
from memories.codecs.base import Codec, Parts, Sharing
from memories.codecs.buffers import ALIGNMENT, EMPTY, allocate, copy_bytes, is_bytes, view_bytes
from memories.errors import CorruptDataError, UnsupportedTypeError

Array = np.ndarray[Any, np.dtype[Any]]
SMALL_BYTES = 4096  # Up to this size a copy is a `bytes` object, which is faster to make.
ORDINARY_DTYPES = tuple(np.dtype(code) for code in "?bBhHiIlLqQefdFD")
# By identity: a dtype with metadata is equal to the plain one, and must be kept.
_ORDINARY = frozenset(map(id, ORDINARY_DTYPES))
# Of a long double of x86, which takes more bytes in memory.
_EXTENDED_BITS, _EXTENDED_BYTES = 63, 10
_NOTHING = {True: memoryview(bytes(ALIGNMENT)), False: memoryview(bytearray(ALIGNMENT))}


def is_flat(value: Array) -> bool:
    """Return whether the dtype of `value` has a plain description, and its items no references."""
    if is_ordinary(value):
        return True
    try:
        dtypes.describe(value.dtype)
    except UnsupportedTypeError:
        return False
    return True


def is_ordinary(value: Array) -> bool:
    """Return whether the dtype is one of NumPy's numbers in native order: a quick `is_flat`."""
    return id(value.dtype) in _ORDINARY


def memory_owner(array: Any) -> Any:
    """Return the object that owns an array's memory: views of a view refer to it directly.

    Over `bytes`, which no weak reference can watch, it is the array: its views refer to that one.
    """
    while True:
        base = array.obj if isinstance(array, memoryview) else getattr(array, "base", None)
        if base is None or type(base) is bytes:
            return array
        array = base


def order_of(value: Array) -> str:
    """Return "F" for an array that is contiguous in Fortran order only, else "C"."""
    return "F" if value.flags.f_contiguous and not value.flags.c_contiguous else "C"


def bytes_of(value: Array) -> memoryview:
    """Return the memory of a contiguous array."""
    if not value.nbytes:
        return EMPTY
    in_c_order = value if value.flags.c_contiguous else value.T
    flat: Any = np.asarray(in_c_order).reshape(-1).view(np.uint8)
    return memoryview(flat)


def without_padding(value: Array) -> Array:
    """Return long doubles as an array in C order, with zeros in the bytes that they do not use.

    What is in these bytes is left over from other values, and differs between equal arrays.
    """
    flat = value.flatten()
    if np.finfo(np.longdouble).nmant == _EXTENDED_BITS:
        flat.view(np.uint8).reshape(-1, np.dtype(np.longdouble).itemsize)[:, _EXTENDED_BYTES:] = 0
    return flat.reshape(value.shape)


def freeze_array(value: Array, *, copy: bool = True) -> Array:
    """Return a read-only copy of `value`; NumPy refuses to make it, or its views, writable.

    C and Fortran order are kept, any other layout becomes C-contiguous. With `copy=False` the
    memory of a contiguous array is shared, and `value` itself becomes read-only.
    """
    small = copy and 0 < value.nbytes <= SMALL_BYTES and is_ordinary(value)
    if small and value.flags.c_contiguous:
        return _freeze_small(value)
    if not is_flat(value):
        raise UnsupportedTypeError(f"an array of dtype {value.dtype} cannot be frozen")
    order = order_of(value)
    if not copy and (value.flags.c_contiguous or value.flags.f_contiguous):
        value.setflags(write=False)
        return over(bytes_of(value), value.dtype, value.shape, order)
    return over(_private_copy(value), value.dtype, value.shape, order)


def over(buffer: memoryview, dtype: np.dtype[Any], shape: tuple[int, ...], order: str) -> Array:
    """Return an array over `buffer`; it is read-only, even if the buffer is writable.

    Raises:
        CorruptDataError: the buffer is not exactly as long as such an array.
    """
    _check_size(buffer, dtype, shape)
    return _lay(buffer.toreadonly(), dtype, shape, order)


class ArrayCodec(Codec):
    """Plain `np.ndarray` of every dtype without objects.

    `encode_other` encodes arrays of all other dtypes; without it they are refused.
    """

    name = "ndarray"
    sharing = Sharing.VIEW

    def __init__(self, encode_other: Callable[[Array], Parts] | None = None) -> None:
        self._encode_other = encode_other

    def encode(self, value: Array) -> Parts:
        """Describe an array and its memory; only a strided array is copied."""
        try:
            dtype = dtypes.describe(value.dtype)
        except UnsupportedTypeError:
            if self._encode_other is None:
                raise
            return self._encode_other(value)
        contiguous = value.flags.c_contiguous or value.flags.f_contiguous
        order = order_of(value)
        meta = {"dtype": dtype, "shape": list(value.shape), "order": order}
        if contiguous:
            return Parts(self.name, meta, (bytes_of(value),))
        return Parts(self.name, meta, (_private_copy(value),), frozenset({0}))

    def decode(self, parts: Parts, *, writable: bool = False) -> Array:
        """Return the array over the buffer."""
        dtype, shape, order = read_meta(parts)
        (buffer,) = parts.buffers
        _check_size(buffer, dtype, shape)
        return _lay(buffer if writable else buffer.toreadonly(), dtype, shape, order)

    def prelude(self, parts: Parts) -> bytes:
        """Return the header of an `.npy` file, which the raw buffer completes."""
        return npy_header(*read_meta(parts))


def read_meta(parts: Parts) -> tuple[np.dtype[Any], tuple[int, ...], str]:
    """Return dtype, shape and order of an encoded array."""
    meta = parts.meta
    try:
        dtype, shape, order = dtypes.build(meta["dtype"]), tuple(meta["shape"]), meta["order"]
    except (TypeError, KeyError) as error:
        raise CorruptDataError("the description of an array is damaged") from error
    if order not in ("C", "F") or not all(type(n) is int and n >= 0 for n in shape):
        raise CorruptDataError(f"no array has shape {str(shape)[:80]} and order {order!r}")
    return dtype, shape, order


def expect_array(value: Any, kinds: str, ndim: int | None = 1) -> Array:
    """Return `value` if it is a plain array of these kinds; compiled code does not check that.

    Raises:
        CorruptDataError: it is anything else.
    """
    if type(value) is not np.ndarray or value.dtype.kind not in kinds:
        raise CorruptDataError(f"an array was stored as a {type(value).__name__} of another kind")
    if ndim is not None and value.ndim != ndim:
        raise CorruptDataError(f"an array has {value.ndim} axes and should have {ndim}")
    return value


@functools.lru_cache(256)
def npy_header(dtype: np.dtype[Any], shape: tuple[int, ...], order: str) -> bytes:
    """Return the header that `np.save` would write, padded to a multiple of 64, or b"".

    It is cached, since NumPy takes longer for a header than for a checksum, and many arrays have
    the same shape.
    """
    stream = io.BytesIO()
    try:
        header = {
            "descr": np.lib.format.dtype_to_descr(dtype),
            "fortran_order": order == "F",
            "shape": shape,
        }
        np.lib.format.write_array_header_2_0(stream, header)
    except ValueError:
        # An `.npy` cannot describe fields that overlap, or whose offsets are not in the order of
        # their names; and only a header with characters beyond Latin-1 needs version 3.
        return b""
    raw = stream.getvalue()
    assert len(raw) % ALIGNMENT == 0
    return raw


def _check_size(buffer: memoryview, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    expected = dtype.itemsize
    for extent in shape:
        expected *= extent
    if buffer.nbytes != expected:
        raise CorruptDataError(
            f"an array of shape {str(shape)[:80]} and dtype {dtype} takes {expected} bytes, "
            f"its buffer has {buffer.nbytes}"
        )


def _lay(buffer: memoryview, dtype: np.dtype[Any], shape: tuple[int, ...], order: str) -> Array:
    # An array without bytes needs an exporter too, or NumPy would let it become writable.
    exporter = buffer if buffer.nbytes else _NOTHING[buffer.readonly]
    try:
        # Without this array in between, the result would be the base of every view of it, and
        # setting its shape in place would change the base. `bytes` need no memoryview in between.
        whole: Any = buffer.obj if is_bytes(exporter) else exporter
        memory = np.frombuffer(whole, np.uint8)
        if not buffer.nbytes:
            strides = np.ndarray(shape, dtype, order="F" if order == "F" else "C").strides
            return np.ndarray(shape, dtype, buffer=memory, strides=strides)
        return np.ndarray(shape, dtype, buffer=memory, order="F" if order == "F" else "C")
    except (ValueError, TypeError, MemoryError) as error:
        raise CorruptDataError(f"no array has shape {str(shape)[:80]} and dtype {dtype}") from error


def _freeze_small(value: Array) -> Array:
    """Return what `over` returns for a copy of a C-contiguous array, by few calls."""
    memory: Array = np.frombuffer(value.tobytes(), np.uint8)
    flat = memory.view(value.dtype)
    return flat if value.ndim == 1 else flat.reshape(value.shape)


def _private_copy(value: Array) -> memoryview:
    contiguous = value.flags.c_contiguous or value.flags.f_contiguous
    if contiguous and value.nbytes <= SMALL_BYTES:
        return memoryview(value.tobytes("A"))
    arena = allocate(value.nbytes)
    if contiguous:
        copy_bytes(arena, bytes_of(value))
    else:
        if value.dtype.names is not None:
            arena[:] = 0  # The gaps between fields are not copied and must not leak old memory.
        target: Array = np.ndarray(value.shape, value.dtype, buffer=arena, order="C")
        np.copyto(target, value)
    return view_bytes(arena)
