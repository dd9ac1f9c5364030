"""Damages the parts of values, decodes them, and uses what comes out: sums, slices, products.

A library in C++ or Rust may take wild offsets without a word and end the process at the first use.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import decimal
import random
import struct
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from tests.format import make_golden
from tests.unit.codecs.test_hostile import damage

from memories import codecs
from memories.codecs.base import Parts
from memories.errors import MemoriesError

NUMBERS = (0, 1, -1, 2**31 - 1, 2**31, 2**62, 2**63 - 1)


def polars_values() -> Iterator[Any]:
    """Yield frames and series with columns of each kind of memory."""
    import polars as pl

    columns = {
        "numbers": [1, None, 3],
        "texts": ["x", "yy" * 20, None],
        "categories": pl.Series(["a", "b", "a"], dtype=pl.Categorical),
        "enums": pl.Series(["a", "b", None], dtype=pl.Enum(["a", "b"])),
        "lists": [[1], [2, 3], None],
        "nulls": [None, None, None],
        "structs": [{"x": 1}, {"x": 2}, None],
        "flags": [True, None, False],
        "arrays": pl.Series([[1, 2], [3, 4], None], dtype=pl.Array(pl.Int64, 2)),
        "bytes": [b"1", None, b"x" * 30],
        "decimals": [decimal.Decimal("1.2"), None, None],
        "times": [dt.time(1), None, None],
        "text lists": [["a", "b" * 40], None, []],
    }
    frame = pl.DataFrame(columns)
    yield from (frame, frame.select("texts", "categories"), frame["texts"], frame["lists"])
    yield from (frame.select(name) for name in frame.columns)


def pyarrow_values() -> Iterator[Any]:
    """Yield tables and batches with columns of each layout."""
    import pyarrow as pa

    types = pa.array([0, 1, 0], pa.int8())
    columns = {
        "numbers": pa.array([1, None, 3], pa.int8()),
        "texts": pa.array(["a", None, "ccc"]),
        "large texts": pa.array(["a", None, "c"], pa.large_string()),
        "views": pa.array(["a", None, "c" * 30], pa.string_view()),
        "dictionary": pa.array(["a", "b", None]).dictionary_encode(),
        "lists": pa.array([[1], None, [2, 3]]),
        "maps": pa.array([[("a", 1)], None, []], pa.map_(pa.string(), pa.int32())),
        "structs": pa.array([{"a": 1}, None, {"a": 2}]),
        "dense": pa.UnionArray.from_dense(
            types, pa.array([0, 0, 1], pa.int32()), [pa.array([1, 2]), pa.array(["x"])]
        ),
        "sparse": pa.UnionArray.from_sparse(types, [pa.array([1, 2, 3]), pa.array(list("xyz"))]),
        "runs": pa.RunEndEncodedArray.from_arrays(
            pa.array([1, 3], pa.int32()), pa.array(["a", "b"])
        ),
        "list views": pa.array([[1], None, [2]], pa.list_view(pa.int8())),
        "fixed lists": pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int8(), 2)),
        "fixed bytes": pa.array([b"ab", None, b"cd"], pa.binary(2)),
        "nulls": pa.nulls(3),
        "decimals": pa.array([decimal.Decimal("1.1")] * 3),
        "dates": pa.array([dt.date(2020, 1, 1)] * 3),
        "flags": pa.array([True, None, False]),
        "tensors": pa.ExtensionArray.from_storage(
            pa.fixed_shape_tensor(pa.int32(), [2, 2]),
            pa.array([[1, 2, 3, 4]] * 3, pa.list_(pa.int32(), 4)),
        ),
    }
    yield pa.table(columns)
    yield from (pa.table({name: column}) for name, column in columns.items())
    yield from (pa.table({name: column}).to_batches()[0] for name, column in columns.items())


def pandas_values() -> Iterator[Any]:
    """Yield tables of pandas with each of its arrays."""
    import pandas as pd

    yield from (value for name, value in make_golden.tables().items() if "pandas" in name)
    days = pd.date_range("2020", periods=3, tz="Europe/Paris")
    yield pd.DataFrame({"day": days, "text": ["a", None, "b"], "number": pd.array([1, None, 3])})
    yield pd.Series(pd.Categorical(["a", "b", None]), name="x")
    yield pd.Series(pd.arrays.IntervalArray.from_breaks([0, 1, 2, 3]))
    yield pd.Series(range(3), pd.MultiIndex.from_tuples([("a", 1), ("a", 2), ("b", 1)]))
    yield pd.Series(pd.period_range("2020", periods=3, freq="M"))
    yield pd.Series(["a", "ü", None], dtype=pd.StringDtype("pyarrow"))
    yield pd.Series(["a", "b", None], dtype=pd.StringDtype("python"))
    yield pd.timedelta_range("1D", periods=3)


def scipy_values() -> Iterator[Any]:
    """Yield matrices of every format."""
    from scipy import sparse

    matrix = sparse.coo_array(np.diag(np.arange(1.0, 7.0)))
    yield from (matrix.asformat(kind) for kind in ("csr", "csc", "coo", "dia", "lil", "dok"))
    yield sparse.bsr_array(matrix.toarray(), blocksize=(2, 2))


def geo_values() -> Iterator[Any]:
    """Yield geometries, a table of them, and what rasterio says of a raster."""
    from tests.conformance import test_geo_codecs as geo

    yield from geo.GEOMETRIES
    yield from geo.TestGeoTables.values
    yield from geo.TestReferenceSystems.values
    yield from geo.TestProfiles.values


def image_values() -> Iterator[Any]:
    """Yield images of every mode."""
    from tests.conformance.test_image_codecs import TestImages

    yield from TestImages.values


def capsule_values() -> Iterator[Any]:
    """Yield tables and arrays of arro3 and nanoarrow."""
    from tests.conformance import test_capsule_codecs as capsule

    yield from (*capsule.TestArro3.values, *capsule.TestNanoarrow.values)


def sparse_values() -> Iterator[Any]:
    """Yield arrays of the package sparse."""
    from tests.conformance.test_sparse_codecs import TestSparse

    yield from TestSparse.values


def xarray_values() -> Iterator[Any]:
    """Yield a dataset, an array and a variable."""
    import xarray as xr

    array = xr.DataArray(
        np.arange(6.0).reshape(2, 3), dims=("y", "x"), coords={"x": [1, 2, 3]}, name="a"
    )
    yield from (array, array.to_dataset(), array.variable, array["x"].variable)


def numpy_values() -> Iterator[Any]:
    """Yield what the golden frames hold of NumPy and of Python."""
    yield from (value for name, value in make_golden.values().items() if name != "spilled")


FAMILIES: dict[str, Callable[[], Iterator[Any]]] = {
    "polars": polars_values,
    "pyarrow": pyarrow_values,
    "pandas": pandas_values,
    "scipy": scipy_values,
    "xarray": xarray_values,
    "numpy": numpy_values,
    "geo": geo_values,
    "image": image_values,
    "capsule": capsule_values,
    "sparse": sparse_values,
}


def uses(value: Any) -> list[Callable[[], Any]]:
    """Return what a program does with a value of this kind."""
    family = type(value).__module__.partition(".")[0]
    if family == "polars":
        import polars as pl

        frame = value.to_frame() if isinstance(value, pl.Series) else value
        found: list[Callable[[], Any]] = [frame.rows, frame.rechunk, lambda: frame.slice(1, 2)]
        for column in frame.get_columns():
            found += [
                column.sum, column.to_list, column.sort, column.unique, column.drop_nulls,
                column.to_numpy, column.hash, lambda c=column: c.cast(pl.String),
                lambda c=column: c + c, lambda c=column: c.gather([0]),
            ]  # fmt: skip
        return found
    if family == "pyarrow":
        import pyarrow as pa
        import pyarrow.compute as pc

        if not isinstance(value, pa.Table | pa.RecordBatch) or not value.num_rows:
            return []  # pyarrow itself fails at columns without chunks.
        found = [value.to_pydict]
        for column in value.columns:
            found += [
                column.to_pylist, column.drop_null, lambda c=column: c.slice(1),
                lambda c=column: pc.sum(c), lambda c=column: pc.unique(c),
                lambda c=column: c.take([0]), lambda c=column: c.filter(pc.is_valid(c)),
                lambda c=column: c.cast(pa.string()), lambda c=column: c.to_pandas(),
                lambda c=column: pc.list_flatten(c), lambda c=column: c.dictionary_encode(),
                lambda c=column: c.combine_chunks(), lambda c=column: c.to_numpy(),
                lambda c=column: c.chunk(0).to_numpy_ndarray(),
            ]  # fmt: skip
        return found
    if family == "scipy":
        if value.nnz > 1000 or max(value.shape, default=0) > 1000:
            return []
        vector = np.ones(value.shape[-1])
        return [
            lambda: value @ vector, lambda: value.T @ np.ones(value.shape[0]), value.sum,
            value.tocsr, value.tocsc, value.toarray, lambda: (value + value).sum(),
            lambda: value @ value, value.copy, value.diagonal,
        ]  # fmt: skip
    if family in ("shapely", "geopandas", "arro3", "nanoarrow", "sparse", "PIL"):
        return _uses_of_natives(value)
    if family in ("pandas", "xarray"):
        if getattr(value, "size", 0) > 100_000:
            return []
        names = ("sum", "max", "copy", "sort_values", "unique", "to_numpy", "isna", "describe",
                 "to_dict", "drop_duplicates", "tolist")  # fmt: skip
        found = [getattr(value, name) for name in names if hasattr(type(value), name)]
        return [*found, lambda: value[1:], lambda: repr(value), lambda: value == value]
    if isinstance(value, np.ndarray):
        return [value.sum, value.tolist, value.copy, lambda: value == value, lambda: value[::-1]]
    return []


def _uses_of_natives(value: Any) -> list[Callable[[], Any]]:
    """Return calls that lead into the library in C++ or Rust below a value."""
    names = (
        "buffer", "area", "bounds", "is_valid", "wkt", "to_pylist", "combine_chunks", "to_batches",
        "to_numpy", "nbytes", "sum", "todense", "tocoo", "maybe_densify", "tobytes", "getcolors",
        "histogram", "transpose", "rotate",
    )  # fmt: skip
    size = getattr(value, "size", 0)
    if isinstance(size, int) and size > 100_000:
        return []
    found: list[Callable[[], Any]] = [lambda: repr(value)]
    for name in names:
        found.append(lambda name=name: _called(getattr(value, name)))
    return found


def _called(found: Any) -> Any:
    try:
        return found() if callable(found) else found
    except TypeError:
        return found(1)  # A distance, an angle or a direction.


def use(value: Any) -> None:
    """Use a value; that a use fails is right as long as the process goes on."""
    for one in uses(value):
        try:
            one()
        except Exception:
            continue
        except BaseException as error:
            if type(error).__name__ != "PanicException":
                raise


def wild(parts: Parts, rng: random.Random) -> Parts:
    """Return `parts` with numbers in a buffer replaced, where a stream or an index has numbers."""
    buffers = list(parts.buffers)
    places = [i for i, buffer in enumerate(buffers) if buffer.nbytes >= 8]
    if not places or rng.random() < 0.3:
        return damage(parts, rng)
    place = rng.choice(places)
    data = bytearray(buffers[place])
    for _ in range(rng.randint(1, 3)):
        at, kind = rng.randrange(len(data)), rng.random()
        if kind < 0.4:
            data[at] = rng.randrange(256)
        elif kind < 0.8:
            form, nbytes = rng.choice([("<q", 8), ("<i", 4)])
            number = rng.choice([*NUMBERS, rng.randrange(1 << rng.randrange(1, 63))])
            number = (number + 2 ** (8 * nbytes - 1)) % 2 ** (8 * nbytes) - 2 ** (8 * nbytes - 1)
            struct.pack_into(form, data, min(at // nbytes * nbytes, len(data) - nbytes), number)
        else:
            other, length = rng.randrange(len(data)), rng.choice([4, 8, 16, 32])
            piece = data[other : other + length][: len(data) - at]
            data[at : at + len(piece)] = piece
    buffers[place] = memoryview(bytes(data))
    return parts._replace(buffers=tuple(buffers))


class Values:
    """The values of one family; an input is the parts of a value: codec, description, buffers."""

    def __init__(self, family: str) -> None:
        self._family = family

    def prepare(self, folder: Path) -> None:
        """Encode the values that are to be damaged."""
        del folder
        whole = [codecs.encode(value) for value in FAMILIES[self._family]()]
        self._whole = [parts for parts in whole if not codecs.carries_code(parts.codec)]

    def damaged(self, rng: random.Random) -> bytes:
        """Return the parts of a value, with something else in them."""
        while True:
            parts = wild(rng.choice(self._whole), rng)
            plain = [parts.codec, parts.meta, [bytes(buffer) for buffer in parts.buffers]]
            try:
                return msgspec.msgpack.encode(plain)
            except (OverflowError, RecursionError):
                continue  # Bytes hold no such description.

    def attempt(self, data: bytes) -> bool:
        """Decode the parts, and use the value."""
        codec, meta, buffers = msgspec.msgpack.decode(data)
        with contextlib.redirect_stderr(None):
            try:
                value = codecs.decode(Parts(codec, meta, tuple(map(memoryview, buffers))))
            except (MemoriesError, MemoryError):
                return False
            codecs.size_of(value)
            use(value)
        return True

    def close(self) -> None:
        """Nothing is open."""


TARGETS = {family: partial(Values, family) for family in FAMILIES}
