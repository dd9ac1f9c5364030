"""Hypothesis strategies for every value that `memories` stores exactly.

They generate small values of many types: faults in the support of a type show with small values.
They need the package `hypothesis`.
"""

from __future__ import annotations

import datetime as dt
import enum
import pathlib
import zoneinfo
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp


class Colour(enum.Enum):
    """An enum."""

    RED = 1
    BLUE = "b"


class ArrayAccess(enum.Flag):
    """Flags, which combine."""

    READ = 1
    WRITE = 2


class Pair(NamedTuple):
    """A named tuple."""

    left: Any
    right: Any


@dataclass
class Box:
    """A dataclass."""

    content: Any
    label: str = ""
    notes: list[Any] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class FrozenBox:
    """A frozen dataclass without a `__dict__`."""

    content: Any


def numbers() -> st.SearchStrategy[Any]:
    """Return a strategy for numbers: ints of any size, floats with any NaN payload."""
    payloads = st.binary(min_size=8, max_size=8).map(lambda b: float(np.frombuffer(b, "<f8")[0]))
    return st.one_of(
        st.booleans(),
        st.integers(),
        st.integers(-(2**300), 2**300),
        st.floats(),
        payloads,
        st.complex_numbers(),
        st.decimals(),
        st.fractions(),
    )


def moments() -> st.SearchStrategy[Any]:
    """Return a strategy for dates, times, durations and time zones."""
    zones = st.one_of(
        st.none(),
        st.just(dt.UTC),
        st.sampled_from(["Europe/Berlin", "America/New_York"]).map(zoneinfo.ZoneInfo),
        st.integers(-1000, 1000).map(lambda m: dt.timezone(dt.timedelta(minutes=m))),
    )
    return st.one_of(
        st.dates(),
        st.times(),
        st.timedeltas(),
        st.datetimes(timezones=zones),
        zones,
    )


def leaves() -> st.SearchStrategy[Any]:
    """Return a strategy for immutable values without nested values."""
    texts = st.text(st.characters(exclude_categories=()), max_size=20)
    whole = st.integers(-100, 100)
    return st.one_of(
        st.none(),
        st.just(...),
        numbers(),
        texts,
        st.binary(max_size=40),
        st.sampled_from(
            [Colour.RED, Colour.BLUE, ArrayAccess.READ, ArrayAccess.READ | ArrayAccess.WRITE]
        ),
        st.uuids(),
        moments(),
        texts.filter(lambda s: "\0" not in s).map(pathlib.PurePosixPath),
        st.builds(range, whole, whole, st.integers(1, 9)),
        numpy_scalars(),
    )


def dtypes() -> st.SearchStrategy[np.dtype[Any]]:
    """Return a strategy for dtypes without objects, of both byte orders, structured ones too."""
    flat = st.one_of(
        hnp.boolean_dtypes(),
        hnp.integer_dtypes(),
        hnp.unsigned_integer_dtypes(),
        hnp.floating_dtypes(),
        hnp.complex_number_dtypes(),
        hnp.datetime64_dtypes(),
        hnp.timedelta64_dtypes(),
        hnp.byte_string_dtypes(max_len=5),
        hnp.unicode_string_dtypes(max_len=5),
    )
    void = st.integers(1, 9).map(lambda n: np.dtype(f"V{n}"))
    fields = hnp.array_dtypes(flat, max_size=3, allow_subarrays=True)
    return st.one_of(flat, flat, void, fields, fields.flatmap(_selections))


def _selections(dtype: np.dtype[Any]) -> st.SearchStrategy[np.dtype[Any]]:
    """Return a strategy for dtypes made by selecting fields of `dtype` in any order."""
    names = dtype.names or ()
    chosen = st.lists(st.sampled_from(names), min_size=1, max_size=len(names), unique=True)
    return chosen.map(lambda names: dtype[names])


def numpy_scalars() -> st.SearchStrategy[Any]:
    """Return a strategy for NumPy scalars that are immutable."""
    return (
        dtypes()
        .filter(lambda dtype: dtype.kind != "V")
        .flatmap(lambda dtype: _filled(dtype, (1,)).map(lambda array: array[0]))
    )


def arrays() -> st.SearchStrategy[Any]:
    """Return a strategy for plain arrays of every dtype, shape and memory layout."""
    shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
    return st.tuples(dtypes(), shapes).flatmap(
        lambda drawn: st.builds(_lay_out, _filled(*drawn), st.sampled_from(LAYOUTS))
    )


def object_arrays() -> st.SearchStrategy[Any]:
    """Return a strategy for arrays of Python objects."""
    return st.lists(leaves(), max_size=6).map(_objects)


def masked_arrays() -> st.SearchStrategy[Any]:
    """Return a strategy for masked arrays."""
    return st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=6).map(
        lambda pairs: np.ma.MaskedArray([p[0] for p in pairs], mask=[p[1] for p in pairs])
    )


def values(max_leaves: int = 12) -> st.SearchStrategy[Any]:
    """Return a strategy for values that need no optional package, nested in any way."""
    buffers = st.one_of(
        st.binary(max_size=9).map(bytearray), st.binary(max_size=9).map(lambda b: memoryview(b))
    )
    base = st.one_of(leaves(), arrays(), object_arrays(), masked_arrays(), buffers)
    return st.recursive(base, _nest, max_leaves=max_leaves)


def keys() -> st.SearchStrategy[Any]:
    """Return a strategy for hashable values."""
    return st.one_of(st.text(max_size=5), st.integers(), st.tuples(st.integers(), st.text()))


def _nest(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    lists = st.lists(children, max_size=4)
    mappings = st.dictionaries(keys(), children, max_size=4)
    sets = st.sets(keys(), max_size=4)
    return st.one_of(
        lists,
        lists.map(tuple),
        lists.map(lambda items: deque(items, maxlen=7)),
        mappings,
        mappings.map(OrderedDict),
        mappings.map(lambda items: defaultdict(list, items)),
        st.dictionaries(keys(), st.integers(), max_size=4).map(Counter),
        sets,
        sets.map(frozenset),
        children.map(lambda child: [child, child]),
        st.builds(Pair, children, children),
        st.builds(Box, children, st.text(max_size=3), lists),
        st.builds(FrozenBox, children),
    )


def _objects(items: list[Any]) -> Any:
    array: Any = np.empty(len(items), object)
    for i, item in enumerate(items):
        array[i] = item
    return array


def _filled(dtype: np.dtype[Any], shape: tuple[int, ...]) -> st.SearchStrategy[Any]:
    """Return a strategy for arrays of arbitrary bits, except for text."""
    count = dtype.itemsize * int(np.prod(shape, dtype=int))
    if dtype.names is not None or dtype.kind in "US":
        return hnp.arrays(dtype, shape)
    return st.binary(min_size=count, max_size=count).map(
        lambda data: _from_bits(bytes(data), dtype, shape)
    )


def _from_bits(data: bytes, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Any:
    if dtype.kind == "b":
        data = bytes(byte & 1 for byte in data)
    return (
        np.frombuffer(data, np.uint8).copy().view(dtype).reshape(shape)
        if data
        else np.empty(shape, dtype)
    )


def _every_other(array: Any) -> Any:
    wide = np.empty((*array.shape[:-1], array.shape[-1] * 2), array.dtype)
    wide[..., ::2] = array
    return wide[..., ::2]


LAYOUTS = ("c", "fortran", "strided", "reversed", "transposed", "broadcast", "read-only")


def _lay_out(array: Any, layout: str) -> Any:
    """Return an array of the same dtype in another memory layout."""
    if layout == "fortran":
        return np.asfortranarray(array) if array.ndim else array
    if layout == "strided":
        return _every_other(array) if array.ndim else array
    if layout == "reversed":
        return array[::-1] if array.ndim else array
    if layout == "transposed":
        return array.T
    if layout == "broadcast":
        return np.broadcast_to(array, (2, *array.shape))
    if layout == "read-only":
        array.setflags(write=False)
    return array
