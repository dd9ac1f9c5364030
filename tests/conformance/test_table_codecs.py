"""The codecs of optional packages under `CodecTests`; a package that is missing is skipped."""

from __future__ import annotations

import datetime as dt
import warnings
from typing import Any

import numpy as np
import pytest

from memories import codecs
from memories.errors import CorruptDataError
from memories.testing.codecs import CodecTests, identical, through_frame

pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")
pa = pytest.importorskip("pyarrow")
xr = pytest.importorskip("xarray")
sparse = pytest.importorskip("scipy.sparse")

DAYS = pd.date_range("2020-03-28", periods=5, freq="D", tz="Europe/Berlin", name="day")
FRAME = pd.DataFrame(
    {
        "int": range(5),
        "float": [1.5, np.nan, -0.0, np.inf, 2],
        "text": ["a", None, "ä", "", "b"],
        "object": pd.Series([1, "x", None, 2.5, (1,)], dtype=object),
        "category": pd.Categorical(list("aabbc"), categories=list("cba"), ordered=True),
        "zone": DAYS,
        "naive": DAYS.tz_localize(None).as_unit("ms"),
        "span": pd.to_timedelta(range(5), "s"),
        "Int": pd.array([1, None, 3, 4, 5], dtype="Int16"),
        "Float": pd.array([1, None, 3, 4, 5], dtype="Float32"),
        "Bool": pd.array([True, None, False, True, True], dtype="boolean"),
        "period": pd.period_range("2020", periods=5, freq="M"),
        "interval": pd.interval_range(0, 5),
        "python": pd.array(["a", None, "b", "c", "d"], dtype="string[python]"),
        "arrow": pd.array(["a", None, "b", "c", "d"], dtype="string[pyarrow]"),
        "backed": pd.array([[1], [2], None, [4], []], dtype=pd.ArrowDtype(pa.list_(pa.int32()))),
    }
)
FRAME.attrs["unit"] = ["m"]


class TestFrames(CodecTests):
    """pandas DataFrames."""

    values = (
        FRAME,
        FRAME.set_index("zone"),
        FRAME.set_index(["category", "text"]),
        FRAME.iloc[::2, ::3],
        FRAME[["int", "category"]].set_index("category", append=True).unstack(),
        pd.DataFrame(np.arange(12.0).reshape(3, 4), columns=list("abca")),
        pd.DataFrame({1: [1], "1": [2], None: [3]}),
        pd.DataFrame(index=range(3)),
        pd.DataFrame(),
        pd.DataFrame({"a": [1]}).set_flags(allows_duplicate_labels=False),
    )

    def same(self, left: Any, right: Any) -> bool:
        """Compare as pandas' own tests do, and the attributes besides."""
        pd.testing.assert_frame_equal(left, right, check_freq=True, check_flags=True)
        return type(left) is type(right) and left.attrs == right.attrs


class TestSeriesAndIndexes(CodecTests):
    """pandas Series and Indexes."""

    values = (
        *(FRAME[name] for name in FRAME.columns),
        FRAME["float"].rename(("a", 1)),
        pd.Series([], dtype="f4"),
        DAYS,
        pd.RangeIndex(1, 10, 3, name="r"),
        pd.Index(["a", None], name="text"),
        pd.Index([1, "x"], dtype=object),
        pd.MultiIndex.from_product([["a", "b"], DAYS], names=["x", None]),
        pd.CategoricalIndex(list("aba")),
        pd.period_range("2020", periods=3, freq="Q"),
        pd.timedelta_range(0, periods=3, freq="h"),
        pd.interval_range(0, 3, closed="both"),
        pd.date_range("2020", periods=3, freq="2MS"),
    )

    def same(self, left: Any, right: Any) -> bool:
        """Compare as pandas' own tests do."""
        if isinstance(left, pd.Series):
            pd.testing.assert_series_equal(left, right)
        else:
            pd.testing.assert_index_equal(left, right, exact=True)
            assert getattr(left, "freq", None) == getattr(right, "freq", None)
        return type(left) is type(right)


TEXT = pd.Series(["a", None, "ä€", "", "x" * 300] * 40, dtype="str")


class TestText(CodecTests):
    """Columns of text in every shape in which Arrow may hold them."""

    values = (
        TEXT,
        TEXT.dropna(),
        TEXT[3:50],
        TEXT[::3],
        TEXT[:0],
        pd.concat([TEXT, TEXT]),
        TEXT.astype("string[pyarrow]"),
        TEXT.astype("string[python]"),
        pd.Series(pd.array(pa.chunked_array([["a"], [None, "b"]], pa.string()), "str")),
    )

    def same(self, left: Any, right: Any) -> bool:
        """Compare as pandas' own tests do, and what stands for a missing text."""
        pd.testing.assert_series_equal(left, right)
        return type(left.dtype.na_value) is type(right.dtype.na_value)


def test_a_column_of_text_is_shown_as_it_lies() -> None:
    """A million texts are stored and read without one of them being touched."""
    column = pd.Series(["some", "text"] * 1000, dtype="str").array
    chunk = column.__arrow_array__().chunk(0)
    parts = codecs.encode(column)
    assert "pandas.text" == parts.codec
    lying = [np.frombuffer(buffer, np.uint8) for buffer in chunk.buffers()[1:]]
    for buffer, mine in zip(lying, parts.buffers, strict=False):
        assert np.shares_memory(buffer, np.frombuffer(mine, np.uint8))
    back = codecs.decode(codecs.freeze(parts)).__arrow_array__().chunk(0)
    assert chunk.equals(back)


def test_equal_columns_of_text_hash_equal() -> None:
    """Whether Arrow cut a column out of a longer one is nobody's business."""
    cut, fresh = TEXT[3:50], pd.Series(list(TEXT[3:50]), index=range(3, 50), dtype="str")
    assert codecs.content_hash(fresh) == codecs.content_hash(cut)


@pytest.mark.parametrize(("offset", "value"), [(8, 2**40), (8, -1), (0, 1), (-8, 3), (-8, 2**62)])
def test_offsets_that_lead_astray_are_never_followed(offset: int, value: int) -> None:
    """Arrow would read beyond its memory, and the process would end."""
    parts = codecs.encode(pd.array(["abc", "defg", "h"], dtype="str"))
    offsets = bytearray(parts.buffers[0])
    at = offset % len(offsets)
    offsets[at : at + 8] = value.to_bytes(8, "little", signed=True)
    buffers = (memoryview(bytes(offsets)), *parts.buffers[1:])
    with pytest.raises(CorruptDataError):
        codecs.decode(parts._replace(buffers=buffers)).to_numpy(dtype=object)


def test_text_that_is_no_utf8_is_refused() -> None:
    """Otherwise it would fail wherever it is first looked at, as somebody else's error."""
    parts = codecs.encode(pd.array(["ab", "ä"], dtype="str"))
    for text in (b"ab\xc3\x28", b"a\xc3\xa4b"):  # No UTF-8 at all; a letter cut in two.
        buffers = (parts.buffers[0], memoryview(text), parts.buffers[2])
        with pytest.raises(CorruptDataError):
            codecs.decode(parts._replace(buffers=buffers))


class TestPandasScalars(CodecTests):
    """pandas' own scalars, in a tree and as keys."""

    values = (
        pd.Timestamp("2020-10-25 00:30", tz="UTC").tz_convert("Europe/Berlin"),
        pd.Timestamp("2020-10-25 01:30", tz="UTC").tz_convert("Europe/Berlin"),
        pd.Timestamp("2020-01-01").as_unit("s"),
        pd.Timedelta("-1s"),
        pd.Period("2020-01", freq="M"),
        pd.Interval(1, 2, closed="left"),
        {pd.Timestamp("2020-01-01"): [pd.Timedelta("1D")]},
    )


def test_missing_values_stay_the_one_object() -> None:
    """`x is pandas.NA` is how it is asked."""
    assert pd.NA is through_frame(pd.NA)
    assert pd.NaT is through_frame([pd.NaT])[0]


class TestPolars(CodecTests):
    """polars frames and series."""

    frame = pl.DataFrame(
        {
            "int": [1, 2, None],
            "text": ["x", None, "y"],
            "list": [[1], [2, 3], None],
            "category": pl.Series(["a", "b", "a"], dtype=pl.Categorical),
            "date": [dt.date(2020, 1, 1)] * 3,
            "struct": [{"a": 1, "b": "x"}] * 3,
        }
    )
    values = (frame, frame.head(0), frame[1:2], frame["text"], pl.Series([]), pl.DataFrame())

    def same(self, left: Any, right: Any) -> bool:
        """Compare values, types and names."""
        if isinstance(left, pl.Series):
            return type(left) is type(right) and left.name == right.name and left.equals(right)
        return type(left) is type(right) and left.schema == right.schema and left.equals(right)


class TestArrow(CodecTests):
    """pyarrow, slices and dictionaries too."""

    table = pa.table(
        {
            "n": [1, 2, None],
            "s": ["x", None, "y"],
            "d": pa.array(["a", "b", "a"]).dictionary_encode(),
            "l": [[1], None, []],
        },
        metadata={"k": "v"},
    )
    values = (
        table,
        table.slice(1, 1),
        pa.concat_tables([table, table]),
        table.slice(0, 0),
        table.to_batches()[0],
        table.column("s"),
        pa.array([[1], None]),
        pa.array([], pa.int8()),
        pa.scalar(5),
        table.schema,
    )

    def same(self, left: Any, right: Any) -> bool:
        """Compare values, and the metadata of a schema."""
        return type(left) is type(right) and left.equals(right)


class TestXarray(CodecTests):
    """xarray objects with everything they carry."""

    data = xr.Dataset(
        {"v": (("x", "y"), np.arange(6.0).reshape(2, 3), {"units": "m"}), "w": ("x", ["a", "b"])},
        coords={
            "x": [10, 20],
            "y": pd.date_range("2020", periods=3),
            "label": ("x", ["p", "q"]),
            "scalar": 5,
        },
        attrs={"a": [1]},
    )
    data.v.encoding["zlib"] = True
    values = (
        data,
        data.v,
        data.v.rename(None),
        data.stack(z=("x", "y")),
        data.stack(z=("x", "y")).v,
        data.drop_indexes("x"),
        data.variables["v"],
        data.variables["y"],
        xr.Dataset(),
    )

    def same(self, left: Any, right: Any) -> bool:
        """Compare names, coordinates, attributes, indexes and encodings."""
        if not isinstance(left, xr.Variable):
            xr.testing.assert_identical(left, right)
            assert list(left.xindexes) == list(right.xindexes)
        assert left.identical(right)
        return type(left) is type(right) and left.encoding == right.encoding


SPARSE = sparse.random(20, 30, 0.1, format="csr", random_state=0)


class TestSparse(CodecTests):
    """All formats of scipy.sparse, matrices and arrays."""

    values = (
        *(SPARSE.asformat(name) for name in ("csr", "csc", "bsr", "coo", "dia", "lil", "dok")),
        *(sparse.csr_array(SPARSE).asformat(n) for n in ("csr", "csc", "bsr", "coo", "dia", "lil")),
        sparse.csr_array((0, 3)),
    )

    def same(self, left: Any, right: Any) -> bool:
        """Compare type, format and contents."""
        return type(left) is type(right) and identical(left.toarray(), right.toarray())


@pytest.mark.parametrize("name", ["frame", "series", "index", "polars", "arrow", "xarray", "csr"])
def test_tables_are_no_pickles(name: str) -> None:
    """A table from a stranger can be read: nothing in it needs a key."""
    values = {
        "frame": FRAME,
        "series": FRAME["object"],
        "index": DAYS,
        "polars": TestPolars.frame,
        "arrow": TestArrow.table,
        "xarray": TestXarray.data,
        "csr": SPARSE,
    }
    assert not codecs.carries_code(codecs.encode(values[name]).codec)


def test_a_reader_cannot_change_what_is_held() -> None:
    """One frame serves all readers, so each must have its own columns, names and cells."""
    frame = FRAME.copy()
    _, held, _ = codecs.hold(frame)
    frame.loc[0, "int"] = 77
    first = held.open()
    first.loc[0, "int"] = 99
    first["new"] = 1
    first.index.name = "changed"
    first.attrs["unit"].append("s")
    second = held.open()
    assert (0, None, ["m"]) == (second["int"][0], second.index.name, second.attrs["unit"])
    assert "new" not in second
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match=r"read-only|WRITEABLE"):
            second["int"].to_numpy().setflags(write=True)


def test_objects_in_a_column_are_each_readers_own() -> None:
    """A list in a cell is mutable, whatever pandas does about blocks."""
    _, held, _ = codecs.hold(pd.DataFrame({"a": pd.Series([[1], [2]], dtype=object)}))
    held.open()["a"][0].append(5)
    assert [1] == held.open()["a"][0]


def test_polars_readers_do_not_see_each_other() -> None:
    """A polars frame can be changed in place, its memory cannot."""
    _, held, _ = codecs.hold(TestPolars.frame)
    first = held.open()
    first[0, "int"] = 99
    first.columns = list("abcdef")
    assert TestPolars.frame.equals(held.open())


def test_an_arrow_table_over_my_array_becomes_private() -> None:
    """Arrow calls it immutable, but NumPy still writes to it."""
    array = np.arange(1000)
    how, table, nbytes = codecs.hold(pa.table({"a": array}))
    array[0] = 99
    assert codecs.Sharing.SHARED is how
    assert 0 == table["a"][0].as_py()
    assert 8000 <= nbytes < 12000


def test_damaged_indices_never_reach_the_code_that_follows_them() -> None:
    """scipy and Arrow would read beyond their memory."""
    parts = codecs.encode(sparse.csr_array(np.eye(5)))
    for i, buffer in enumerate(parts.buffers):
        bad = np.frombuffer(bytes(buffer), np.uint8).copy()
        bad[3::4] = 0x7F
        buffers = (*parts.buffers[:i], memoryview(bad), *parts.buffers[i + 1 :])
        if i:
            with pytest.raises(CorruptDataError):
                codecs.decode(parts._replace(buffers=buffers))
    stream = bytearray(codecs.encode(pa.table({"s": ["abc", "defg"]})).buffers[0])
    at = bytes(stream).find(np.array([0, 3, 7], "<i4").tobytes())
    stream[at + 8 : at + 12] = b"\xff\xff\xff\x7f"
    with pytest.raises(CorruptDataError):
        codecs.decode(codecs.Parts("pyarrow.table", None, (memoryview(bytes(stream)),)))
