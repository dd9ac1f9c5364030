"""Find the bytes of a stored value that a region touches, and build the region from them.

A region of an array is indexed by ints, slices, `...` and `None`. NumPy computes the offset and the
strides of the view, on an array that has the shape and strides of the stored one but no memory.
Bytes are an array of one axis, of which a region is what `value[index]` would be.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from memories.codecs.arrays import Array
from memories.codecs.buffers import allocate
from memories.errors import InvalidOptionError
from memories.foundation import parallel

# Codecs whose only buffer is the content of a value that can be cut, and what a part of it is.
CUT: dict[str, type[bytes | bytearray]] = {"bytes": bytes, "bytearray": bytearray}


class Window(NamedTuple):
    """Offset, shape and strides of a view in the memory of the whole array."""

    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    itemsize: int

    @property
    def bounds(self) -> tuple[int, int]:
        """Return the first byte touched and the one after the last."""
        if 0 in self.shape or not self.itemsize:
            return 0, 0
        steps = [(n - 1) * s for n, s in zip(self.shape, self.strides, strict=True)]
        low = self.offset + sum(step for step in steps if step < 0)
        high = self.offset + sum(step for step in steps if step > 0) + self.itemsize
        return low, high


def locate(shape: tuple[int, ...], dtype: np.dtype[Any], order: str, index: Any) -> Window:
    """Return the window of `array[index]` in an array with this shape, dtype and order.

    Raises:
        InvalidOptionError: the index is not made of ints, slices, `...` and `None`.
        IndexError: it is out of bounds.
    """
    steps = check_steps(index)
    strides = _strides(shape, dtype.itemsize, order)
    anchor = np.empty(1, np.uint8)
    whole = np.lib.stride_tricks.as_strided(anchor, shape, strides)
    view = whole[steps]  # No memory is read.
    return Window(view.ctypes.data - anchor.ctypes.data, view.shape, view.strides, dtype.itemsize)


def check_steps(index: Any) -> tuple[Any, ...]:
    """Return the index of a region of an array as a tuple that never gives a scalar.

    Raises:
        InvalidOptionError: it is not made of ints, slices, `...` and `None`.
    """
    steps = index if isinstance(index, tuple) else (index,)
    if not all(_is_basic(step) for step in steps):
        raise InvalidOptionError(
            f"region={index!r:.200} must be made of ints, slices, ... and None, like "
            "numpy.s_[a:b, ...]"
        )
    # With a trailing `...` even an index of ints only returns a view.
    return steps if ... in steps else (*steps, ...)


def check_cut(index: Any) -> Any:
    """Return the index of a region of bytes.

    Raises:
        InvalidOptionError: it is neither an int nor a slice.
    """
    if not isinstance(index, slice | int | np.integer) or isinstance(index, bool):
        raise InvalidOptionError(
            f"region={index!r:.200} of bytes must be a slice or an int, like slice(0, 1024)"
        )
    return index


def no_region(key: str, codec: str) -> InvalidOptionError:
    """Return the error for a value that has no regions."""
    return InvalidOptionError(
        f"region= needs a plain NumPy array, bytes or a bytearray, and {key[:200]!r} holds "
        f"{_kind_of(codec)}: read it without region="
    )


def touched(window: Window, grain: int) -> list[tuple[int, int]]:
    """Return the byte ranges that the view touches; gaps shorter than `grain` are included."""
    low, high = window.bounds
    if low == high:
        return []
    axes = sorted(
        ((abs(s), n) for n, s in zip(window.shape, window.strides, strict=True) if n > 1),
        reverse=True,
    )
    starts, extent = [low], high - low
    for stride, count in axes:
        if stride < grain:
            break
        starts = [start + stride * i for start in starts for i in range(count)]
        extent -= stride * (count - 1)
    return [(start, start + extent) for start in sorted(starts)]


def view(buffer: memoryview, window: Window, dtype: np.dtype[Any]) -> Array:
    """Return the region as a read-only view of the whole array's buffer."""
    if 0 in window.shape or not dtype.itemsize:
        return _locked(np.empty(window.shape, dtype))
    memory = np.frombuffer(buffer, np.uint8)
    return np.ndarray(
        window.shape, dtype, buffer=memory, offset=window.offset, strides=window.strides
    )


def gather(
    window: Window,
    dtype: np.dtype[Any],
    chunk: int,
    load: Callable[[int, Any], None],
    nbytes: int,
) -> Array:
    """Return the region as a read-only array of its own, loading only the chunks it touches.

    `load(i, target)` fills `target` with chunk `i`, in any thread; all chunks but the last have
    `chunk` bytes.
    """
    low, high = window.bounds
    first = low // chunk
    # Pages without a loaded chunk are never touched, so they take no memory.
    scratch = allocate(min(-(-high // chunk) * chunk, nbytes) - first * chunk)
    chunks = chunks_of(window, chunk)
    parallel.map_items(
        lambda i: load(i, scratch[(i - first) * chunk : (i - first + 1) * chunk]),
        chunks,
        len(chunks) * chunk,
    )
    if low == high:
        return _locked(np.empty(window.shape, dtype))
    offset = window.offset - first * chunk
    region: Array = np.ndarray(
        window.shape, dtype, buffer=scratch, offset=offset, strides=window.strides
    )
    return _locked(region.copy())


def chunks_of(window: Window, chunk: int) -> list[int]:
    """Return the numbers of the chunks that the view touches, in order."""
    found: dict[int, None] = {}
    for start, stop in touched(window, chunk):
        found.update(dict.fromkeys(range(start // chunk, -(-stop // chunk))))
    return list(found)


def _locked(array: Array) -> Array:
    array.setflags(write=False)
    return array


def _is_basic(step: Any) -> bool:
    if isinstance(step, bool | np.bool_):
        return False
    return step is None or step is ... or isinstance(step, int | np.integer | slice)


def _kind_of(codec: str) -> str:
    """Return in words what a codec stores: only the codec says it before a value is decoded."""
    if codec == "tree":
        return "a dict, a list or another structure"
    library, _, kind = codec.partition(".")
    names = {"frame": "DataFrame", "series": "Series", "objects": "array of objects"}
    return f"a value of {library} ({names.get(kind, kind)})" if kind else f"a value ({codec})"


def _strides(shape: tuple[int, ...], itemsize: int, order: str) -> tuple[int, ...]:
    strides, step = [], itemsize
    for extent in shape if order == "F" else reversed(shape):
        strides.append(step)
        step *= extent
    return tuple(strides if order == "F" else reversed(strides))
