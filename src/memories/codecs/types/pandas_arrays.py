"""Codecs of the extension arrays and scalars of pandas.

Each is encoded as a structure of NumPy arrays, and decoded by its public constructor. What pandas
trusts, and is checked here: the types of its arguments (a number in the place of the ordinals of
periods ends the process; a text in the place of a time zone opens a file); that a frequency is
short; that categories can be hashed without code of their classes. Codes, masks and ends of
intervals it checks itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from memories.codecs.allowance import spend
from memories.codecs.arrays import expect_array
from memories.codecs.base import Parts, Sharing
from memories.codecs.containers import hashes_safely
from memories.codecs.expect import (
    expect,
    expect_fields,
    expect_frequency,
    expect_instance,
    expect_zone,
)
from memories.codecs.nested import StructureCodec
from memories.codecs.pickled import PickleCodec
from memories.codecs.registry import add
from memories.codecs.types import pandas_arrow
from memories.errors import CorruptDataError
from memories.foundation.optional_imports import package

_ANY = "biufcmMSUVO"


class HashedCodec(StructureCodec):
    """A codec of values whose items pandas hashes when they are made."""

    def encode(self, value: Any) -> Parts:
        """Encode the structure; it is pickled where hashing would run code of the items."""
        levels = getattr(value, "levels", None)
        hashed = [value.categories] if levels is None else levels
        if not all(map(hashes_items_safely, hashed)):
            return PickleCodec().encode(value)
        return super().encode(value)


def column_of(values: Any) -> Any:
    """Return the data of a Series or an Index: a NumPy array or an extension array."""
    if isinstance(values.dtype, np.dtype) and values.dtype.kind not in "mM":
        return values.to_numpy()
    return without_frequency(values.array)


def without_frequency(array: Any) -> Any:
    """Return an extension array, if it is of dates or times without its frequency."""
    if _frequency(array) is not None:
        array = array.view()  # The index stores the frequency.
        array.freq = None
    return array


def _frequency(array: Any) -> Any:
    """Return the frequency of an array of dates or times, which it has before pandas 3."""
    return getattr(array, "freq", None) if hasattr(array, "unit") else None


def expect_column(data: Any) -> Any:
    """Return `data` if `column_of` can have returned it.

    Raises:
        CorruptDataError: it is anything else.
    """
    if isinstance(data, package("pandas").api.extensions.ExtensionArray):
        return data
    return expect_array(data, _ANY)


def expect_index(value: Any) -> Any:
    """Return `value` if it is an index of pandas.

    Raises:
        CorruptDataError: it is anything else.
    """
    return expect_instance(value, package("pandas").Index, "an index")


def expect_hashable(index: Any) -> None:
    """Check that pandas can hash the items of an index without code of their classes.

    Raises:
        CorruptDataError: it cannot.
    """
    if not hashes_items_safely(index):
        raise CorruptDataError("the items of a stored index cannot be hashed safely")


def hashes_items_safely(index: Any) -> bool:
    """Return whether the items of an index are hashed by code of the interpreter or of pandas."""
    return index.dtype != object or all(map(hashes_safely, index.to_numpy()))


def _expect_freq(value: Any) -> Any:
    return expect_frequency(value, package("pandas").tseries.offsets.BaseOffset)


def _expect_closed(value: Any) -> Any:
    if value not in ("left", "right", "both", "neither"):
        raise CorruptDataError("an interval is closed on an unknown side")
    return value


def freq_apart(freq: Any) -> Any:
    """Return the short text of an offset, or the offset itself if the text is not complete."""
    if freq is None:
        return None
    try:
        same = package("pandas").tseries.frequencies.to_offset(freq.freqstr) == freq
    except ValueError:
        same = False
    return freq.freqstr if same else freq


def _datetimes_apart(value: Any) -> Any:
    # `asi8` is the count since 1970 in UTC, whatever the zone.
    data = np.asarray(value.asi8).view(f"M8[{value.unit}]")
    freq = _frequency(value)
    tail = [] if freq is None else [freq_apart(freq)]
    return [data, getattr(value.dtype, "tz", None), *tail]


def _datetimes_together(structure: Any) -> Any:
    data, zone, *freq = expect_fields(structure, 2, "an array of dates", 3)
    expect_zone(zone)
    index = package("pandas").DatetimeIndex(expect_array(data, "M"), copy=False)
    if zone is not None:
        index = index.tz_localize("UTC").tz_convert(zone)
    if freq:
        index.freq = _expect_freq(freq[0])
    return index.array


def _timedeltas_apart(value: Any) -> Any:
    data = np.asarray(value.asi8).view(f"m8[{value.unit}]")
    freq = _frequency(value)
    return data if freq is None else [data, freq_apart(freq)]


def _timedeltas_together(structure: Any) -> Any:
    data, *freq = expect_fields(
        structure if isinstance(structure, list) else [structure], 1, "an array of times", 2
    )
    index = package("pandas").TimedeltaIndex(expect_array(data, "m"), copy=False)
    if freq:
        index.freq = _expect_freq(freq[0])
    return index.array


def _periods_together(structure: Any) -> Any:
    pandas = package("pandas")
    ordinals, freq = expect_fields(structure, 2, "an array of periods")
    expect_array(ordinals, "i")
    if ordinals.dtype != np.int64:
        raise CorruptDataError("a period is not stored as 64 bits")
    return pandas.arrays.PeriodArray(ordinals, dtype=pandas.PeriodDtype(_expect_freq(freq)))


def _categorical_together(structure: Any) -> Any:
    codes, categories, ordered = expect_fields(structure, 3, "a categorical")
    expect_array(codes, "i")
    expect_hashable(expect_index(categories))
    return package("pandas").Categorical.from_codes(codes, categories=categories, ordered=ordered)


def _intervals_together(structure: Any) -> Any:
    left, right, closed = expect_fields(structure, 3, "an array of intervals")
    expect_index(left), expect_index(right), _expect_closed(closed)
    return package("pandas").arrays.IntervalArray.from_arrays(left, right, closed=closed)


def _masked_together(structure: Any) -> Any:
    data, mask = expect_fields(structure, 2, "a masked array")
    if expect_array(data, "biuf").shape != expect_array(mask, "b").shape:
        raise CorruptDataError("a stored mask and its array differ in length")
    arrays = package("pandas").arrays
    kinds = {"b": arrays.BooleanArray, "f": arrays.FloatingArray}
    return kinds.get(data.dtype.kind, arrays.IntegerArray)(data, mask)


def _strings_apart(value: Any) -> Any:
    items = [item if isinstance(item, str) else None for item in value.to_numpy(dtype=object)]
    return [items, pandas_arrow.is_nan(value.dtype.na_value)]


def _strings_together(structure: Any) -> Any:
    items, nan = expect_fields(structure, 2, "a column of text")
    if not set(map(type, expect(items, list, "the items of a column"))) <= {str, type(None)}:
        raise CorruptDataError("a text of a column is stored as something else")
    spend(16 * len(items), "a column of text")
    return package("pandas").array(items, dtype=pandas_arrow.text_dtype("python", nan))


def register() -> None:
    """Register the codecs of pandas' arrays and scalars."""
    pandas = package("pandas")
    arrays = pandas.arrays
    structures = (
        ("datetimes", _datetimes_apart, _datetimes_together, [arrays.DatetimeArray]),
        ("timedeltas", _timedeltas_apart, _timedeltas_together, [arrays.TimedeltaArray]),
        ("periods", _periods_apart, _periods_together, [arrays.PeriodArray]),
        ("categorical", _categorical_apart, _categorical_together, [pandas.Categorical]),
        ("intervals", _intervals_apart, _intervals_together, [arrays.IntervalArray]),
        (
            "masked",
            lambda value: [value._data, value._mask],
            _masked_together,
            [arrays.IntegerArray, arrays.FloatingArray, arrays.BooleanArray],
        ),
        ("strings", _strings_apart, _strings_together, pandas_arrow.text_arrays("python")),
        (
            "numpy",
            lambda value: value.to_numpy(),
            lambda data: arrays.NumpyExtensionArray(expect_array(data, _ANY)),
            [arrays.NumpyExtensionArray],
        ),
    )
    for name, apart, together, kinds in structures:
        make = HashedCodec if name == "categorical" else StructureCodec
        add(make(f"pandas.{name}", apart, together), *kinds)
    pandas_arrow.register()
    _register_scalars(pandas)


def _periods_apart(value: Any) -> Any:
    return [np.asarray(value.asi8), value.freqstr]


def _categorical_apart(value: Any) -> Any:
    return [np.asarray(value.codes), value.categories, bool(value.ordered)]


def _intervals_apart(value: Any) -> Any:
    return [value.left, value.right, value.closed]


def _register_scalars(pandas: Any) -> None:
    def timestamp(structure: Any) -> Any:
        data, zone, fold = expect_fields(structure, 3, "a timestamp")
        value = pandas.Timestamp(expect(data, np.datetime64, "a timestamp"))
        expect_zone(zone), expect(fold, int, "a fold")
        if zone is not None:
            value = value.tz_localize("UTC").tz_convert(zone)
        return value.replace(fold=fold) if fold != value.fold else value

    def period(structure: Any) -> Any:
        ordinal, freq = expect_fields(structure, 2, "a period")
        return pandas.Period(ordinal=expect(ordinal, int, "a period"), freq=_expect_freq(freq))

    def interval(structure: Any) -> Any:
        left, right, closed = expect_fields(structure, 3, "an interval")
        if not (hashes_safely(left) and hashes_safely(right)):
            raise CorruptDataError("the ends of a stored interval cannot be compared safely")
        return pandas.Interval(left, right, _expect_closed(closed))

    scalars = (
        ("timestamp", lambda v: [v.to_datetime64(), v.tzinfo, v.fold], timestamp, pandas.Timestamp),
        (
            "timedelta",
            lambda v: v.to_timedelta64(),
            lambda s: pandas.Timedelta(expect(s, np.timedelta64, "a timedelta")),
            pandas.Timedelta,
        ),
        (
            "period",
            lambda v: [v.ordinal, v.freqstr],
            period,
            pandas.Period,
        ),
        (
            "interval",
            lambda v: [v.left, v.right, v.closed],
            interval,
            pandas.Interval,
        ),
        ("nat", lambda _: None, lambda _: pandas.NaT, type(pandas.NaT)),
        ("na", lambda _: None, lambda _: pandas.NA, type(pandas.NA)),
    )
    for name, apart, together, kind in scalars:
        add(StructureCodec(f"pandas.{name}", apart, together, Sharing.SHARED), kind)
