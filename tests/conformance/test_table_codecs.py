"""The codecs of optional packages under `CodecTests`; a package that is missing is skipped."""

from __future__ import annotations

import datetime as dt
import warnings
import zoneinfo
from typing import Any

import numpy as np
import pytest

from memories import codecs
from memories.codecs.content_hash import content_hash
from memories.errors import CorruptDataError, UnsupportedTypeError
from memories.testing.codecs import CodecTests, identical, through_frame

pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")
pa = pytest.importorskip("pyarrow")
xr = pytest.importorskip("xarray")
sparse = pytest.importorskip("scipy.sparse")

OLD_PANDAS = int(pd.__version__[0]) < 3  # It does not copy on write.
# A zone by name is one of pytz there, which goes by pickle.
BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
DAYS = pd.date_range("2020-03-28", periods=5, freq="D", tz=BERLIN, name="day")
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


try:
    TEXT_DTYPE = pd.StringDtype("pyarrow", na_value=np.nan)  # What "str" is in pandas 3.
except TypeError:
    TEXT_DTYPE = pd.StringDtype("pyarrow_numpy")  # In pandas 2.2.
TEXT = pd.Series(["a", None, "ä€", "", "x" * 300] * 40, dtype=TEXT_DTYPE)


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
        pd.Series(pd.array(pa.chunked_array([["a"], [None, "b"]], pa.string()), TEXT_DTYPE)),
    )

    def same(self, left: Any, right: Any) -> bool:
        """Compare as pandas' own tests do, and what stands for a missing text."""
        pd.testing.assert_series_equal(left, right)
        return type(left.dtype.na_value) is type(right.dtype.na_value)


def test_a_column_of_text_is_shown_as_it_lies() -> None:
    """A million texts are stored and read without one of them being touched."""
    column = pd.Series(["some", "text"] * 1000, dtype=TEXT_DTYPE).array
    chunk = column.__arrow_array__().chunk(0)
    parts = codecs.encode(column)
    assert "pandas.text" == parts.codec
    theirs = [np.frombuffer(buffer, np.uint8) for buffer in chunk.buffers()[1:]]
    for buffer, mine in zip(theirs, parts.buffers, strict=False):
        assert np.shares_memory(buffer, np.frombuffer(mine, np.uint8))
    back = codecs.decode(codecs.freeze(parts)).__arrow_array__().chunk(0)
    assert chunk.equals(back)


def test_equal_columns_of_text_hash_equal() -> None:
    """A slice of an Arrow column must equal a column of its own."""
    cut, fresh = TEXT[3:50], pd.Series(list(TEXT[3:50]), index=range(3, 50), dtype=TEXT_DTYPE)
    assert content_hash(fresh) == content_hash(cut)


@pytest.mark.parametrize(("offset", "value"), [(8, 2**40), (8, -1), (0, 1), (-8, 3), (-8, 2**62)])
def test_offsets_that_lead_astray_are_never_followed(offset: int, value: int) -> None:
    """Arrow would read beyond its memory, and the process would end."""
    parts = codecs.encode(pd.array(["abc", "defg", "h"], dtype=TEXT_DTYPE))
    offsets = bytearray(parts.buffers[0])
    at = offset % len(offsets)
    offsets[at : at + 8] = value.to_bytes(8, "little", signed=True)
    buffers = (memoryview(bytes(offsets)), *parts.buffers[1:])
    with pytest.raises(CorruptDataError):
        codecs.decode(parts._replace(buffers=buffers)).to_numpy(dtype=object)


def test_text_that_is_no_utf8_is_refused() -> None:
    """Otherwise it would fail at its first use, far from the cause."""
    parts = codecs.encode(pd.array(["ab", "ä"], dtype=TEXT_DTYPE))
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

    def test_its_bytes_are_no_view_of_a_stream(self) -> None:
        """In a loop of references such a view crashes the collector of Python 3.12.1."""
        (stream,) = codecs.encode(self.frame).buffers
        assert bytes is type(stream.obj)

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
        table.to_batches()[0].slice(0, 0),
        table.to_batches()[0].select([]),
        pa.RecordBatch.from_arrays([], names=[]),
        pa.RecordBatch.from_pylist(
            [],
            pa.schema(
                [pa.field("a", pa.int64(), nullable=False, metadata={"q": "r"})], {"k": b"\xff"}
            ),
        ),
    )

    def same(self, left: Any, right: Any) -> bool:
        """Compare values, and the metadata of a schema."""
        if isinstance(left, pa.Schema):
            return left.equals(right, check_metadata=True)
        if isinstance(left, pa.RecordBatch | pa.Table):
            schemas = left.schema.equals(right.schema, check_metadata=True)
            return type(left) is type(right) and schemas and left.equals(right)
        return type(left) is type(right) and left.equals(right)


NANOSECONDS = 1_577_836_800_123_456_789


class TestArrowScalars(CodecTests):
    """Scalars of every type: nothing of them is lost by way of Python's own values."""

    values = tuple(
        pa.array([value, None], kind)[at]
        for at in (0, 1)
        for kind, value in (
            (pa.time64("ns"), 123_456_789),
            (pa.timestamp("ns"), NANOSECONDS),
            (pa.timestamp("ns", "Europe/Berlin"), NANOSECONDS),
            (pa.duration("ns"), NANOSECONDS),
            (pa.list_(pa.timestamp("ns")), [NANOSECONDS]),
            (pa.struct([("a", pa.time64("ns"))]), {"a": 5}),
            (pa.map_(pa.string(), pa.int8()), [("a", 1)]),
            (pa.list_(pa.int8(), 2), [1, 2]),
            (pa.decimal128(5, 2), 1),
            (pa.float16(), np.float16(1.5)),
            (pa.month_day_nano_interval(), (1, 2, 3)),
            (pa.dictionary(pa.int8(), pa.string()), "a"),
            (pa.large_string(), "ä"),
            (pa.binary(2), b"ab"),
            (pa.bool_(), True),
        )
    )

    def same(self, left: Any, right: Any) -> bool:
        """Compare type and value."""
        return left.type == right.type and left.equals(right)

    def test_what_arrow_makes_no_array_of_is_refused(self) -> None:
        """At `store`, and not by an error of Arrow's when it is flushed."""
        union = pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])])
        with pytest.raises(UnsupportedTypeError, match="store an array"):
            codecs.encode(union[0])


class _OddType(pa.ExtensionType):
    """A type that some package would register."""

    def __init__(self) -> None:
        super().__init__(pa.int64(), "tests.odd")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage: Any, serialized: bytes) -> Any:
        del storage, serialized
        return cls()


def test_an_unregistered_arrow_type_is_named() -> None:
    """Arrow would give the bare numbers, without a word."""
    pa.register_extension_type(_OddType())
    array = pa.ExtensionArray.from_storage(_OddType(), pa.array([1, 2]))
    batch = pa.record_batch([array], names=["n"])
    nested = pa.ListArray.from_arrays([0, 2], array)
    values = (array, array[0], batch, batch.slice(0, 0), pa.table({"n": nested}))
    encoded = [codecs.freeze(codecs.encode(value)) for value in values]
    for value, parts in zip(values, encoded, strict=True):
        got = codecs.decode(parts)
        assert type(value) is type(got)
        assert value.equals(got)
    pa.unregister_extension_type("tests.odd")
    for parts in encoded:
        with pytest.raises(UnsupportedTypeError, match=r"tests\.odd"):
            codecs.decode(parts)


def _under(coordinate: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # pandas has no index of float16.
        return xr.DataArray([1, 2], coords={"x": coordinate}, dims="x")


def _with_masked_coordinate() -> list[Any]:
    """Return an array with a coordinate of pandas; xarray 2025.1 itself cannot make one."""
    coords = {"n": ("x", pd.array([1, None], "Int8"))}
    try:
        return [xr.DataArray([1, 2], coords=coords, dims="x")]
    except RecursionError:
        return []


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
    shown = tuple(
        _under(np.array([1, 0]).astype(dtype))
        for dtype in ("U3", "S1", "f2", "f4", "i1", "?", "M8[ns]", "m8[ns]", "c8", ">f4", "O")
    )
    levels = pd.MultiIndex.from_arrays(
        [["a", "bcd"], np.array([1, 2], "i1"), [1.5, 2.5]], names=["p", "q", "r"]
    )
    values = (
        *shown,
        *(array.x.variable for array in shown),
        *(array.drop_indexes("x") for array in shown),
        xr.Dataset({"c": ("x", pd.Categorical(["a", "b"], ["b", "a"], ordered=True))}),
        xr.Dataset({"n": ("x", pd.array([2**60 + 1, None], "Int64"))}),
        xr.Variable("x", pd.Categorical(["a", "b"])),
        *_with_masked_coordinate(),
        xr.DataArray([1, 2], coords={"x": pd.CategoricalIndex(["a", "b"])}, dims="x"),
        xr.DataArray([1, 2], coords={"x": pd.interval_range(0, 2)}, dims="x"),
        xr.DataArray([1, 2], coords={"x": pd.period_range("2020", periods=2, freq="M")}, dims="x"),
        xr.DataArray([1, 2], coords={"x": pd.date_range("2020", periods=2, freq="D")}, dims="x"),
        xr.DataArray([1, 2], coords=xr.Coordinates.from_pandas_multiindex(levels, "x"), dims="x"),
        xr.Dataset({"v": ("t", [1, 2])}, {"p": ("t", ["a", "b"]), "q": ("t", [1, 2])}).set_index(
            t=["p", "q"]
        ),
        xr.Dataset({"v": ("x", [1, 2])}, {"lab": ("x", ["a", "b"])}).set_xindex("lab"),
        xr.DataArray(np.asfortranarray(np.arange(6.0).reshape(2, 3))),
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
        for one, other in self.variables(left, right):
            assert one.dtype == other.dtype
            assert type(one.data) is type(other.data)
            assert one.encoding == other.encoding
        return type(left) is type(right) and left.encoding == right.encoding

    @staticmethod
    def variables(left: Any, right: Any) -> list[tuple[Any, Any]]:
        """Return the variables of two objects, side by side."""
        if isinstance(left, xr.Variable):
            return [(left, right)]
        if isinstance(left, xr.DataArray):
            left, right = left.to_dataset(name="\0"), right.to_dataset(name="\0")
        return [(left.variables[name], right.variables[name]) for name in left.variables]


SPARSE = sparse.random(20, 30, 0.1, format="csr", random_state=0)


def _with_indices_of(dtype: Any) -> Any:
    matrix = sparse.csr_matrix(np.eye(3))
    matrix.indices, matrix.indptr = matrix.indices.astype(dtype), matrix.indptr.astype(dtype)
    return matrix


class TestSparse(CodecTests):
    """All formats of scipy.sparse, matrices and arrays."""

    values = (
        *(SPARSE.asformat(name) for name in ("csr", "csc", "bsr", "coo", "dia", "lil", "dok")),
        *(sparse.csr_array(SPARSE).asformat(n) for n in ("csr", "csc", "bsr", "coo", "dia", "lil")),
        sparse.csr_array((0, 3)),
        sparse.dia_matrix((np.ones((1, 3)), [5]), shape=(3, 3)),
        sparse.dia_array((np.ones((2, 3)), [-7, 0]), shape=(3, 3)),
        sparse.dia_matrix((np.ones((1, 9)), [0]), shape=(3, 5)),
        sparse.csr_matrix((np.ones(3), [2, 0, 0], [0, 3, 3]), shape=(2, 3)),
        sparse.coo_matrix((np.zeros(3), ([0, 0, 1], [1, 1, 2])), shape=(2, 3)),
        _with_indices_of(np.int64),
    )

    def same(self, left: Any, right: Any) -> bool:
        """Compare type, format, contents, and the arrays that these are made of."""
        for name in ("data", "indices", "indptr", "offsets", "row", "col"):
            if left.format != "dok" and isinstance(getattr(left, name, None), np.ndarray):
                assert identical(getattr(left, name), getattr(right, name))
        return type(left) is type(right) and identical(left.toarray(), right.toarray())


def _broken() -> dict[str, Any]:
    matrices = {
        "indices": sparse.csr_matrix(np.eye(3)),
        "indptr": sparse.csc_array(np.eye(3)),
        "col": sparse.coo_matrix(np.eye(3)),
        "offsets": sparse.dia_matrix(np.eye(3)),
    }
    for name, matrix in matrices.items():
        getattr(matrix, name)[0] = 2**31 - 1
    return matrices


@pytest.mark.parametrize("name", ["indices", "indptr", "col", "offsets"])
def test_a_sparse_matrix_that_leads_astray_is_refused_when_stored(name: str) -> None:
    """Found out when it is read, it would be called damaged, and the original would be gone."""
    with pytest.raises(UnsupportedTypeError, match="broken"):
        codecs.own_value(_broken()[name])


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
    _, held, _ = codecs.own_value(frame)
    frame.loc[0, "int"] = 77
    first = held.open()
    if OLD_PANDAS:
        with pytest.raises(ValueError, match="read-only"):
            first.loc[0, "int"] = 99
    else:
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
    _, held, _ = codecs.own_value(pd.DataFrame({"a": pd.Series([[1], [2]], dtype=object)}))
    held.open()["a"][0].append(5)
    assert [1] == held.open()["a"][0]


def test_polars_readers_do_not_see_each_other() -> None:
    """A polars frame can be changed in place, its memory cannot."""
    _, held, _ = codecs.own_value(TestPolars.frame)
    first = held.open()
    first[0, "int"] = 99
    first.columns = list("abcdef")
    assert TestPolars.frame.equals(held.open())


def test_an_arrow_table_over_my_array_becomes_private() -> None:
    """Arrow calls it immutable, but NumPy still writes to it."""
    array = np.arange(1000)
    how, table, nbytes = codecs.own_value(pa.table({"a": array}))
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


RARE = {
    "runs": pa.RunEndEncodedArray.from_arrays(pa.array([1, 3], pa.int32()), pa.array(["a", "b"])),
    "list views": pa.array([[1], None, [2, 3]], pa.list_view(pa.int8())),
    "empty lists": pa.array([[], None, []], pa.list_(pa.int8(), 0)),
    "empty bytes": pa.array([b"", None, b""], pa.binary(0)),
    "dense": pa.UnionArray.from_dense(
        pa.array([0, 1, 0], pa.int8()),
        pa.array([0, 0, 1], pa.int32()),
        [pa.array([1, 2]), pa.array(["x"])],
    ),
}


@pytest.mark.parametrize("name", RARE)
def test_rare_columns_come_back(name: str) -> None:
    """What few libraries make is checked by code that few values reach."""
    table = pa.table({"column": RARE[name]})
    assert table.equals(codecs.decode(codecs.encode(table)))


def int32(*numbers: int) -> bytes:
    return np.array(numbers, np.int32).tobytes()


VIEW = pa.array(["c" * 30], pa.string_view())
FORGED = {
    "a list": (
        pa.ListViewArray.from_arrays([0, 1, 3], [1, 2, 1], pa.array(range(4))),
        int32(0, 1, 3), int32(0, 1, 9), "a list lies outside of the items",
    ),
    "an index": (
        pa.DictionaryArray.from_arrays(pa.array([2, 0, 1], pa.int32()), ["a", "b", "c"]),
        int32(2, 0, 1), int32(2, 0, 7), "an index is outside of its dictionary",
    ),
    "a length": (VIEW, int32(30) + b"cccc", int32(-1) + b"cccc", "a text has a negative length"),
    "an end": (VIEW, int32(30) + b"cccc", int32(31) + b"cccc", "a text ends after its buffer"),
    "a buffer": (
        VIEW, int32(30) + b"cccc" + int32(0), int32(30) + b"cccc" + int32(7),
        "a text lies in no buffer",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FORGED)
def test_forged_columns_are_refused(name: str) -> None:
    """Before a library gets them that follows what they say."""
    column, sound, forged, said = FORGED[name]
    parts = codecs.encode(pa.table({"column": column}))
    before, found, after = bytes(parts.buffers[0]).rpartition(sound)
    assert found
    with pytest.raises(CorruptDataError, match=said):
        codecs.decode(parts._replace(buffers=(memoryview(before + forged + after),)))
