"""`CodecTests`: the conformance suite of codecs, a class of tests to inherit from.

Set the class attribute `values` to examples for the codec, which must be registered. All tests
compare with `identical`, which distinguishes types and bits.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import struct
import threading
from collections import deque
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

from memories import codecs
from memories.codecs.base import Parts, Sharing
from memories.errors import MemoriesError
from memories.frames import writer
from memories.frames.reader import open_frame

COMPRESSIONS = ("none", "fast", "high", "zstd:1")


def identical(left: Any, right: Any) -> bool:
    """Return whether two values agree type for type, bit for bit and in order.

    Fortran order counts, other memory layouts do not. NaNs are equal if their bits are.
    """
    if type(left) is not type(right):
        return False
    for kind, same in _SAME:
        if isinstance(left, kind):
            return bool(same(left, right))
    if dataclasses.is_dataclass(left):
        return _same_fields(left, right)
    return bool(left == right)


def _same_float(left: Any, right: Any) -> bool:
    return struct.pack("d", left) == struct.pack("d", right)


def _same_array(left: Any, right: Any) -> bool:
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    if left.dtype.hasobject:
        return _same_items(list(left.reshape(-1)), list(right.reshape(-1)))
    if isinstance(left, np.ma.MaskedArray):
        masks = _same_array(np.ma.getmaskarray(left), np.ma.getmaskarray(right))
        return masks and _same_array(left.data, right.data)
    both = left.flags.forc and right.flags.forc
    order = both and left.flags.f_contiguous != right.flags.f_contiguous
    return not order and _bits(left) == _bits(right)


def _bits(array: Any) -> bytes:
    """Return the bits of an array, without the padding between fields."""
    if array.dtype.names is None:
        return bytes(array.tobytes())
    return b"".join(_bits(array[name]) for name in array.dtype.names)


def _same_scalar(left: Any, right: Any) -> bool:
    if isinstance(left, np.str_ | np.bytes_):
        return bool(left == right)
    return _same_array(np.asarray(left), np.asarray(right))


def _same_items(left: Any, right: Any) -> bool:
    if isinstance(left, deque) and left.maxlen != right.maxlen:
        return False
    return len(left) == len(right) and all(map(identical, left, right))


def _same_mapping(left: Any, right: Any) -> bool:
    return _same_items(list(left), list(right)) and all(
        identical(left[key], right[key]) for key in left
    )


def _same_fields(left: Any, right: Any) -> bool:
    names = [field.name for field in dataclasses.fields(left)]
    return all(identical(getattr(left, name), getattr(right, name)) for name in names)


def _same_view(left: Any, right: Any) -> bool:
    return (left.format, left.shape, left.tobytes()) == (right.format, right.shape, right.tobytes())


_SAME: tuple[tuple[Any, Any], ...] = (
    (np.ndarray, _same_array),
    (np.generic, _same_scalar),
    (float, _same_float),
    (
        complex,
        lambda a, b: _same_float(a.real, b.real) and _same_float(a.imag, b.imag),
    ),
    # Signalling NaNs cannot be compared, and equal instants may have different time zones.
    ((decimal.Decimal, dt.datetime, dt.time), lambda a, b: repr(a) == repr(b)),
    (dict, _same_mapping),
    ((list, tuple, deque), _same_items),
    (memoryview, _same_view),
    (SimpleNamespace, lambda a, b: _same_mapping(vars(a), vars(b))),
)


def through_frame(value: Any, compression: str = "none", key: str = "key") -> Any:
    """Return `value` packed into the bytes of a frame and decoded again."""
    packed = writer.pack(codecs.encode(value), key=key, version=1, compression=compression)
    return codecs.decode(open_frame(packed.join(), key=key).parts())


class CodecTests:
    """The contract of a codec for each of `values`; override `same` if `==` is not enough."""

    values: tuple[Any, ...] = ()

    def same(self, left: Any, right: Any) -> bool:
        """Return whether two values are the same in type and content."""
        return identical(left, right)

    def test_there_is_something_to_test(self) -> None:
        """A suite without values would pass whatever the codec did."""
        assert self.values

    def test_a_value_survives_its_parts(self) -> None:
        """`decode(encode(x))` is `x`, from private buffers and from writable ones."""
        for value in self.values:
            parts = codecs.encode(value)
            assert self.same(value, codecs.decode(codecs.freeze(parts)))
            assert self.same(value, codecs.decode(parts, writable=True))

    @pytest.mark.parametrize("compression", COMPRESSIONS)
    def test_a_value_survives_a_frame(self, compression: str) -> None:
        """A value is the same after a file or a bucket, with any compression."""
        for value in self.values:
            assert self.same(value, through_frame(value, compression))

    def test_a_value_survives_being_held(self) -> None:
        """A volatile tier's payload gives the value to every reader, repeatedly."""
        for value in self.values:
            how, payload, nbytes = codecs.own_value(value)
            assert nbytes >= 0
            for _ in range(2):
                got = payload.open() if how is Sharing.FRESH else payload
                assert self.same(value, got)

    def test_the_description_is_data(self) -> None:
        """`meta` is part of every frame, so msgpack must encode and decode it unchanged."""
        for value in self.values:
            meta = codecs.encode(value).meta
            packed = msgspec.msgpack.encode(meta)
            assert packed == msgspec.msgpack.encode(msgspec.msgpack.decode(packed))

    def test_the_buffers_are_plain_bytes(self) -> None:
        """Code that writes them to a disk expects C-contiguous bytes."""
        for value in self.values:
            for buffer in codecs.encode(value).buffers:
                assert buffer.format == "B"
                assert buffer.ndim == 1
                assert buffer.c_contiguous

    def test_encoding_changes_nothing(self) -> None:
        """A stored value stays usable for the caller."""
        for value in self.values:
            before = codecs.decode(codecs.thaw(codecs.encode(value)))
            codecs.encode(value)
            assert self.same(before, value)

    def test_many_threads_may_encode_and_decode(self) -> None:
        """One codec serves all threads of a process."""
        wrong: list[Any] = []

        def work() -> None:
            for value in self.values:
                if not self.same(value, codecs.decode(codecs.freeze(codecs.encode(value)))):
                    wrong.append(value)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []

    def test_missing_buffers_are_an_error_of_ours(self) -> None:
        """Damaged parts give a value or a `MemoriesError`, never another error."""
        for value in self.values:
            parts = codecs.encode(value)
            if codecs.carries_code(parts.codec):
                continue
            for buffers in ((), tuple(b[:-1] for b in parts.buffers), parts.buffers * 2):
                try:
                    codecs.decode(Parts(parts.codec, parts.meta, buffers))
                except MemoriesError:
                    continue
