"""What is stored of a value may be a lie in any part; each part is checked before it is used."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from memories import codecs
from memories.codecs.base import Parts
from memories.errors import CorruptDataError, UnsupportedTypeError

TWO = np.zeros(2)
FLAGS = np.zeros(1, bool)
NUMBERS = np.zeros(2, np.int64)
PIXELS = np.zeros(4, np.uint8)
POINT = struct.pack("<BIdd", 1, 1, 1.0, 2.0)


def image(**changed: Any) -> dict[str, Any]:
    """Return what is stored of an image of 2 x 2 pixels."""
    sound = {"mode": "L", "size": [2, 2], "palette": None, "info": {}, "pixels": PIXELS}
    return {**sound, **changed}


def matrix(**changed: Any) -> dict[str, Any]:
    """Return what is stored of a sparse matrix of 2 x 2."""
    arrays = [TWO, np.array([0, 1], np.int32), np.array([0, 1, 2], np.int32)]
    sound = {"format": "csr", "matrix": False, "shape": [2, 2], "arrays": arrays, "flags": {}}
    return {**sound, **changed}


def frame(**changed: Any) -> dict[str, Any]:
    """Return what is stored of a data frame of two rows."""
    pandas = pytest.importorskip("pandas")
    index = pandas.RangeIndex(2)
    sound = {"index": index, "columns": pandas.Index(["a"]), "data": [NUMBERS], "attrs": {}}
    return {**sound, "duplicates": True, **changed}


def series(**changed: Any) -> dict[str, Any]:
    """Return what is stored of a series of two rows."""
    pandas = pytest.importorskip("pandas")
    sound = {"index": pandas.RangeIndex(2), "name": "a", "data": NUMBERS, "attrs": {}}
    return {**sound, "duplicates": True, **changed}


def geometries(**changed: Any) -> list[Any]:
    """Return what is stored of an array of two points."""
    data = np.frombuffer(2 * POINT, np.uint8)
    sound = {"lengths": np.array([21, 21], np.int64), "data": data, "others": []}
    return [list({**sound, **changed}.values()), None]


def nested_geometry(depth: int) -> Any:
    """Return what is stored of a point in collections, each within the other."""
    found: Any = [0, 0, np.full((1, 2), np.nan)]
    for _ in range(depth):
        found = [7, 0, [found]]
    return found


# Of each codec: the package it needs, what is stored of a sound value, and of forged ones.
Forged = tuple[str, str, Callable[[], Any], dict[str, Callable[[], Any]]]
STRUCTURES: list[Forged] = [
    ("numpy.masked", "numpy", lambda: masked(), {
        "a stored mask and its array differ in shape": lambda: masked(mask=FLAGS),
        "is stored as something else": lambda: masked(mask=[1]),
    }),
    ("numpy.strings", "numpy", lambda: [[1], True, None, True, ["a"], "C"], {
        "a text of an array is stored as something else":
            lambda: [[1], True, None, True, [1], "C"],
    }),
    ("scipy.sparse", "scipy", matrix, {
        "a stored sparse matrix is not sorted as it claims": lambda: matrix(
            arrays=[TWO, np.array([1, 0], np.int32), np.array([0, 2, 2], np.int32)],
            flags={"_has_sorted_indices": True},
        ),
        "the values are not a list of numbers": lambda: matrix(
            arrays=[np.zeros((2, 1)), np.array([0, 1], np.int32), np.array([0, 1, 2], np.int32)]
        ),
        "the blocks of the matrix are not arrays of two dimensions": lambda: matrix(format="bsr"),
        "the shape is not a multiple of the blocks": lambda: matrix(
            format="bsr",
            arrays=[np.zeros((1, 3, 1)), np.zeros(1, np.int32), np.array([0, 1], np.int32)],
        ),
    }),
    ("PIL.image", "PIL", image, {
        "a stored image has a negative size": lambda: image(size=[-2, -2]),
        "no image has the mode 'Q'": lambda: image(mode="Q"),
        "an image of 2 x 3 pixels is stored as 4": lambda: image(size=[2, 3]),
        "a palette of another kind": lambda: image(palette=["RGB", b"abc"]),
        "has a palette of another kind": lambda: image(mode="P", palette=["XYZ", b"abc"]),
        "a stored palette has more than 256 colours":
            lambda: image(mode="P", palette=["RGB", bytes(769)]),
    }),
    ("pandas.frame", "pandas", frame, {
        "the columns of a stored frame are damaged": lambda: frame(columns=["a"]),
    }),
    ("pandas.categorical", "pandas", lambda: categories("a", "b"), {
        "the items of a stored index cannot be hashed safely": lambda: categories("a", ["b"]),
    }),
    ("pandas.series", "pandas", series, {
        "the name of a stored column cannot be hashed safely": lambda: series(name=["a"]),
    }),
    ("pandas.interval", "pandas", lambda: [1, 2, "left"], {
        "an interval is closed on an unknown side": lambda: [1, 2, "middle"],
        "the ends of a stored interval cannot be compared safely": lambda: [[], 2, "left"],
    }),
    ("pandas.masked", "pandas", lambda: [NUMBERS, np.zeros(2, bool)], {
        "a stored mask and its array differ in length": lambda: [NUMBERS, FLAGS],
    }),
    ("pandas.strings", "pandas", lambda: [["a", None], False], {
        "a text of a column is stored as something else": lambda: [["a", 1], False],
    }),
    ("pandas.periods", "pandas", lambda: [NUMBERS, "M"], {
        "a period is not stored as 64 bits": lambda: [np.zeros(2, np.int32), "M"],
    }),
    ("geopandas.array", "geopandas", geometries, {
        "an array of geometries is stored as other numbers":
            lambda: geometries(lengths=np.array([21, 21], np.int32)),
        "a geometry is longer than what is stored of all":
            lambda: geometries(lengths=np.array([43, -1], np.int64)),
        "the stored geometries are not as long as they claim":
            lambda: geometries(lengths=np.array([21, 20], np.int64)),
        "a geometry lies outside of its array": lambda: geometries(others=[[2, POINT]]),
        "a stored geometry does not end where it should":
            lambda: geometries(lengths=np.array([20, 22], np.int64)),
    }),
    ("shapely.geometry", "shapely", lambda: nested_geometry(1), {
        "a stored geometry is nested too deeply": lambda: nested_geometry(70),
        "a stored geometry is of an unknown kind": lambda: [1, 0, np.zeros((1, 2))],
        "a stored geometry ends too early": lambda: [7, 0, [POINT[:3]]],
    }),
    ("rasterio.window", "rasterio", lambda: [0, 0, 2, 2.5], {
        "a window is stored as something else than numbers": lambda: [0, 0, 2, "2"],
    }),
]  # fmt: skip


def masked(**changed: Any) -> dict[str, Any]:
    """Return what is stored of a masked array."""
    sound = {"data": TWO, "mask": np.zeros(2, bool), "fill": None, "hard": False, "shared": True}
    return {**sound, **changed}


def categories(*items: Any) -> list[Any]:
    """Return what is stored of two items of some categories."""
    pandas = pytest.importorskip("pandas")
    found = np.empty(len(items), object)
    for at, item in enumerate(items):
        found[at] = item
    return [np.zeros(2, np.int8), pandas.Index(found), False]


def decoded(codec: str, structure: Any) -> Any:
    """Return what a codec makes of a structure, as a frame would hold it."""
    return codecs.decode(codecs.encode(structure)._replace(codec=codec))


@pytest.mark.parametrize(
    ("codec", "package", "sound", "forged", "what"),
    [
        (codec, package, sound, make, what)
        for codec, package, sound, lies in STRUCTURES
        for what, make in lies.items()
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_each_part_of_a_structure_is_checked(
    codec: str, package: str, sound: Callable[[], Any], forged: Callable[[], Any], what: str
) -> None:
    """The sound one is read; the forged one is named for what it is."""
    pytest.importorskip(package, reason=f"{package} is not installed")
    decoded(codec, sound())
    with pytest.raises(CorruptDataError, match=what):
        decoded(codec, forged())


def test_an_empty_scalar_is_read() -> None:
    """It has no bytes that numpy could read it from."""
    value = np.zeros(1, "S0")[0]
    assert value == codecs.decode(codecs.encode(value))
    void = np.zeros(1, "V0")[0]
    assert void.dtype == codecs.decode(codecs.encode(void)).dtype


def test_what_a_column_in_arrow_claims_to_be() -> None:
    """One column, of text with a known missing value, and one batch where one is expected."""
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    pytest.importorskip("pandas", reason="pandas is not installed")
    (two,) = codecs.encode(pa.table({"a": [1], "b": [2]})).buffers
    with pytest.raises(CorruptDataError, match="consists of 2 columns"):
        codecs.decode(Parts("pandas.arrow", None, (two,)))
    (one,) = codecs.encode(pa.table({"a": ["x"]})).buffers
    with pytest.raises(CorruptDataError, match="has a damaged description"):
        codecs.decode(Parts("pandas.arrow", "none", (one,)))
    with pytest.raises(CorruptDataError, match="the description of a stored Arrow table"):
        codecs.decode(Parts("pyarrow.table", {"extensions": [1]}, (one,)))
    chunks = pa.chunked_array([["x"], ["y"]])
    (both,) = codecs.encode(pa.table({"a": chunks})).buffers
    with pytest.raises(CorruptDataError, match="consists of 2 batches"):
        codecs.decode(Parts("pyarrow.batch", None, (both,)))


def test_a_batch_without_rows_as_earlier_versions_wrote_it() -> None:
    """They wrote a stream without any batch."""
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    sink = pa.BufferOutputStream()
    schema = pa.schema({"a": pa.int8(), "b": pa.string()})
    pa.ipc.new_stream(sink, schema).close()
    batch = codecs.decode(Parts("pyarrow.batch", None, (memoryview(sink.getvalue()),)))
    assert (schema, 0) == (batch.schema, batch.num_rows)


@pytest.mark.parametrize("part", ["indices", "indptr"])
def test_a_matrix_whose_indices_are_no_list_cannot_be_stored(part: str) -> None:
    """The kernels of scipy would read them as one."""
    sparse = pytest.importorskip("scipy.sparse", reason="scipy is not installed")
    value = sparse.csr_array(np.eye(4))
    setattr(value, part, np.resize(getattr(value, part), (2, 2)))
    with pytest.raises(UnsupportedTypeError, match="the indices are not lists of numbers"):
        codecs.encode(value)
