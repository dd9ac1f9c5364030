"""Codecs of pandas Series, DataFrame and Index.

A table is encoded as a structure of its columns, which are arrays with codecs of their own, and its
indexes; nothing is converted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from memories.codecs import registry
from memories.codecs.arrays import expect_array
from memories.codecs.base import Parts, Sharing
from memories.codecs.containers import CONTAINERS, hashes_safely
from memories.codecs.expect import expect, expect_dict, expect_fields, expect_frequency
from memories.codecs.nested import StructureCodec
from memories.codecs.registry import add
from memories.codecs.types import pandas_arrays
from memories.codecs.types.pandas_arrays import (
    HashedCodec,
    column_of,
    expect_column,
    expect_hashable,
    expect_index,
    freq_apart,
    without_frequency,
)
from memories.errors import CorruptDataError
from memories.foundation.optional_imports import package

# What readers may share below a shallow copy of their own, besides immutable objects.
_SHAREABLE = frozenset(
    {"list", "tuple", "dict", "ndarray", "pandas.index", "pandas.range", "pandas.text"}
)

_DATED = frozenset({"DatetimeIndex", "TimedeltaIndex"})


class PandasTableCodec(StructureCodec):
    """Series and frames; where it is safe, they are decoded once and readers get shallow copies.

    It is safe since pandas 3, which copies on write, for columns and labels of plain arrays and of
    text, whose memory is read-only. For earlier versions, and for all other columns (of objects, or
    categories with an index of their own), a write would change the table of all readers: such a
    table is decoded for each reader.
    """

    def share(self, parts: Parts) -> Callable[[], Any]:
        """Return what makes shallow copies of one table, itself decoded at the first call."""
        if not _copies_on_write() or not _is_shareable(parts.meta["nodes"]):
            return super().share(parts)
        made: list[Any] = []

        def open_shallow() -> Any:
            if not made:
                made.append(self.decode(parts))
            return made[0].copy(deep=False)

        return open_shallow


def _copies_on_write() -> bool:
    """Return whether pandas copies shared memory before it writes to it."""
    return int(package("pandas").__version__.partition(".")[0]) >= 3


def _is_shareable(nodes: list[Any]) -> bool:
    for name, meta, *_ in nodes:
        if name == "pandas.datetimes":
            if len(meta["nodes"][-1][1]) != 2 or meta["nodes"][-1][1][1] is not None:
                return False  # With a time zone its memory is writable.
        elif name not in _SHAREABLE and not (
            name not in CONTAINERS and registry.codec_named(name).sharing is Sharing.SHARED
        ):
            return False
        if isinstance(meta, dict) and "nodes" in meta and not _is_shareable(meta["nodes"]):
            return False
    return True


def frame_apart(value: Any) -> Any:
    """Return a frame as its index, its columns and what else belongs to it."""
    return {
        "index": value.index,
        "columns": value.columns,
        "data": _data_apart(value),
        "attrs": value.attrs,
        "duplicates": value.flags.allows_duplicate_labels,
    }


def _data_apart(value: Any) -> Any:
    """Return the columns; several of one plain dtype as one block."""
    columns = list(value._iter_column_arrays())  # A series for each takes ten times as long.
    if len(columns) > 1 and _are_numbers_alike(columns):
        return value.to_numpy()
    return [c if isinstance(c, np.ndarray) else without_frequency(c) for c in columns]


def _are_numbers_alike(columns: list[Any]) -> bool:
    """Return whether columns are arrays of numbers of the same dtype."""
    first = columns[0].dtype
    if not isinstance(first, np.dtype) or first.kind not in "biufc":
        return False
    for column in columns:  # To compare it with a dtype of pandas takes far longer.
        if not isinstance(column, np.ndarray) or column.dtype != first:
            return False
    return True


def frame_together(structure: Any, kind: Any = None) -> Any:
    """Return the frame that `frame_apart` took apart, as `kind`, a subclass of DataFrame."""
    pandas = package("pandas")
    _expect_table(structure, "columns")
    index, data = structure["index"], structure["data"]
    if isinstance(data, np.ndarray):
        expect_array(data, "biufc", 2)
        value = pandas.DataFrame(data, index=index, copy=False)
    else:
        expect(data, list, "the columns of a frame")
        columns = {i: _series(pandas, array, index) for i, array in enumerate(data)}
        value = pandas.DataFrame(columns, index=index, copy=False)
    if not isinstance(structure["columns"], pandas.Index):
        raise CorruptDataError("the columns of a stored frame are damaged")
    if kind is not None:
        value = kind(value, copy=False)
    value.columns = structure["columns"]
    return _finish(value, structure)


def series_apart(value: Any) -> Any:
    """Return a series as its index, its data and what else belongs to it."""
    return {
        "index": value.index,
        "name": value.name,
        "data": column_of(value),
        "attrs": value.attrs,
        "duplicates": value.flags.allows_duplicate_labels,
    }


def series_together(structure: Any, kind: Any = None) -> Any:
    """Return the series that `series_apart` took apart, as `kind`, a subclass of Series."""
    _expect_table(structure, "name")
    value = _series(package("pandas"), structure["data"], structure["index"])
    if kind is not None:
        value = kind(value, copy=False)
    value.name = expect_name(structure["name"])
    return _finish(value, structure)


def _series(pandas: Any, data: Any, index: Any) -> Any:
    expect_column(data)
    # Without the dtype, pandas would infer one, and an array of objects might become text.
    return pandas.Series(data, index=index, dtype=data.dtype, copy=False)


def _expect_table(structure: Any, name: str) -> None:
    expect_dict(structure, ("index", "data", "attrs", "duplicates", name), "a table")
    expect_index(structure["index"])
    expect(structure["attrs"], dict, "the attributes of a table")
    expect(structure["duplicates"], bool, "a flag")


def expect_name(name: Any) -> Any:
    """Return the name of a column, which is hashed safely."""
    if not hashes_safely(name):
        raise CorruptDataError("the name of a stored column cannot be hashed safely")
    return name


def _finish(value: Any, structure: Any) -> Any:
    value.attrs.update(structure["attrs"])
    if _copies_on_write() and not _is_writable(structure["data"]):
        # While another table shares its blocks, pandas copies a block before it writes to it.
        # Without this second table, the first write would fail on the read-only memory.
        object.__setattr__(value, "_memories_twin", value.copy(deep=False))
    if not structure["duplicates"]:
        value.flags.allows_duplicate_labels = False
    return value


def _is_writable(data: Any) -> bool:
    arrays = data if isinstance(data, list) else [data]
    return all(isinstance(array, np.ndarray) and array.flags.writeable for array in arrays)


def _index_apart(value: Any) -> Any:
    # The dtype of periods has their frequency; that of dates and times does not.
    dated = type(value).__name__ in _DATED
    return [column_of(value), value.name, freq_apart(value.freq) if dated else None]


def _index_together(structure: Any) -> Any:
    pandas = package("pandas")
    data, name, freq = expect_fields(structure, 3, "an index")
    value = pandas.Index(expect_column(data), dtype=data.dtype, copy=False)
    value.name = expect_name(name)
    if freq is not None:
        value.freq = expect_frequency(freq, pandas.tseries.offsets.BaseOffset)
    return value


def _range_together(structure: Any) -> Any:
    numbers, name = expect_fields(structure, 2, "an index")
    expect(numbers, range, "the range of an index")
    return package("pandas").RangeIndex(numbers, name=expect_name(name))


def _multi_apart(value: Any) -> Any:
    codes = [np.asarray(codes) for codes in value.codes]
    return [list(value.levels), codes, list(value.names), value.sortorder]


def _multi_together(structure: Any) -> Any:
    levels, codes, names, sortorder = expect_fields(structure, 4, "an index of levels")
    codes = [expect_array(code, "i") for code in expect(codes, list, "the codes of an index")]
    for level in expect(levels, list, "the levels of an index"):
        expect_hashable(expect_index(level))
    for name in expect(names, list, "the names of an index"):
        expect_name(name)
    if sortorder is not None:
        expect(sortorder, int, "an order")
    return package("pandas").MultiIndex(levels, codes, sortorder=sortorder, names=names)


def register() -> None:
    """Register the codecs of pandas."""
    pandas_arrays.register()
    pandas = package("pandas")
    add(PandasTableCodec("pandas.frame", frame_apart, frame_together), pandas.DataFrame)
    add(PandasTableCodec("pandas.series", series_apart, series_together), pandas.Series)
    add(
        StructureCodec("pandas.index", _index_apart, _index_together),
        pandas.Index,
        pandas.DatetimeIndex,
        pandas.TimedeltaIndex,
        pandas.PeriodIndex,
        pandas.CategoricalIndex,
        pandas.IntervalIndex,
    )
    add(
        StructureCodec(
            "pandas.range",
            lambda v: [range(v.start, v.stop, v.step), v.name],
            _range_together,
        ),
        pandas.RangeIndex,
    )
    add(HashedCodec("pandas.multi", _multi_apart, _multi_together), pandas.MultiIndex)
