"""The codecs of what exports Arrow by the PyCapsule interface: arro3, nanoarrow, duckdb."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memories import MemoryManager, codecs
from memories.codecs.base import Parts
from memories.errors import CorruptDataError, MemoriesError, UnsupportedTypeError
from memories.testing.codecs import CodecTests, through_frame

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")

SCHEMA = pa.schema(
    [
        pa.field("n", pa.int64(), nullable=False, metadata={"unit": "m"}),
        pa.field("s", pa.string()),
        pa.field("l", pa.list_(pa.float32())),
        pa.field("d", pa.dictionary(pa.int8(), pa.string())),
        pa.field("v", pa.string_view()),
        pa.field("t", pa.timestamp("ns", "Europe/Berlin")),
    ],
    {"k": "v"},
)
ROWS = [
    {"n": 1, "s": "x", "l": [1.5, None], "d": "a", "v": "y" * 20, "t": 5000},
    {"n": 2, "s": None, "l": None, "d": None, "v": None, "t": None},
]
TABLE = pa.concat_tables(
    [pa.Table.from_pylist(ROWS, SCHEMA), pa.Table.from_pylist(ROWS[:1], SCHEMA)]
)


class TestArro3(CodecTests):
    """Every type of arro3: fields and their metadata, chunks and nulls."""

    arro3 = pytest.importorskip("arro3.core", reason="arro3-core is not installed")
    table = arro3.Table.from_arrow(TABLE)
    batch = arro3.RecordBatch.from_arrow(TABLE.to_batches()[0])
    described = table.column("n").chunk(0)
    values = (
        table,
        table.slice(1, 1),
        table.slice(0, 0),
        batch,
        batch.slice(1, 1),
        batch.slice(0, 0),
        *map(table.column, SCHEMA.names),
        *map(batch.column, SCHEMA.names),
        arro3.Array.from_arrow(pa.array([], pa.int8())),
        table.column("s")[0],
        table.column("s")[1],
        table.schema,
        table.schema.field(0),
        arro3.DataType.from_arrow(pa.struct([("a", pa.int8())])),
    )

    def same(self, left: Any, right: Any) -> bool:
        """Compare as arro3 does, and the fields and chunks besides."""
        if type(left) is not type(right):
            return False
        for name in ("schema", "field"):
            found = getattr(left, name, None)
            if found is not None and not callable(found):
                assert found == getattr(right, name)
        lengths = [[n for n in getattr(one, "chunk_lengths", []) if n] for one in (left, right)]
        assert lengths[0] == lengths[1]
        if isinstance(left, self.arro3.Field):
            assert left.metadata == right.metadata and left.nullable == right.nullable
        if isinstance(left, self.arro3.Scalar):
            return left.field == right.field and left.as_py() == right.as_py()
        if isinstance(left, self.arro3.Table) and not left.num_rows:
            return right.num_rows == 0  # It may have one chunk without items, or none.
        return bool(left == right)


class TestNanoarrow(CodecTests):
    """Arrays of several chunks, and of structures, and schemas."""

    nanoarrow = pytest.importorskip("nanoarrow", reason="nanoarrow is not installed")
    values = (
        nanoarrow.Array([1, 2, None], nanoarrow.int64()),
        nanoarrow.Array(["a", None, "ü"], nanoarrow.string()),
        *map(nanoarrow.Array, TABLE.drop_columns("v").columns),
        nanoarrow.Array(TABLE.drop_columns("v")),
        nanoarrow.Array([], nanoarrow.int32()),
        nanoarrow.Schema(SCHEMA),
        nanoarrow.Schema(SCHEMA.field(0)),
        nanoarrow.int32(),
    )

    def test_views_of_texts_are_refused(self) -> None:
        """nanoarrow damages the memory of the process when it exports them."""
        for value in (self.nanoarrow.Array(TABLE), self.nanoarrow.Array(TABLE.column("v"))):
            with pytest.raises(UnsupportedTypeError, match="views"):
                codecs.encode(value)
        parts = codecs.encode(TABLE.select(["v"]))
        with pytest.raises(CorruptDataError, match="views"):
            codecs.decode(Parts("nanoarrow.array", None, parts.buffers))

    def same(self, left: Any, right: Any) -> bool:
        """Compare types, items, chunks, nulls and metadata."""
        if type(left) is not type(right):
            return False
        if isinstance(left, self.nanoarrow.Schema):
            fields = pa.field(left), pa.field(right)
            return bool(fields[0].equals(fields[1], check_metadata=True))
        assert self.same(left.schema, right.schema)
        assert left.n_chunks == right.n_chunks
        return left.to_pylist() == right.to_pylist()


def test_the_memory_of_readers_is_read_only() -> None:
    """All readers share one value."""
    arro3 = pytest.importorskip("arro3.core", reason="arro3-core is not installed")
    nanoarrow = pytest.importorskip("nanoarrow", reason="nanoarrow is not installed")
    source = np.arange(1000.0)
    for value in (arro3.Array.from_numpy(source), nanoarrow.Array(pa.array(source))):
        how, payload, nbytes = codecs.own_value(value)
        assert codecs.Sharing.SHARED is how
        assert nbytes >= 8000
        if isinstance(payload, nanoarrow.Array):
            memory = np.asarray(memoryview(payload.buffer(1)))
        else:
            memory = payload.to_numpy()
        source[5] = -1
        assert 5.0 == memory[5] == np.asarray(pa.array(payload))[5]
        source[5] = 5


def test_a_relation_of_duckdb_comes_back_as_its_result(tmp_path: Any) -> None:
    """In every tier: a query belongs to a connection, and a table does not."""
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed")
    connection = duckdb.connect()
    relation = connection.sql("select range as n, 'text ' || range as s from range(1000)")
    expected = pa.table({"n": range(1000), "s": [f"text {i}" for i in range(1000)]})
    with MemoryManager(warm_memory_size="64MB", storage_path=tmp_path) as manager:
        for tier in ("warm", "cold"):
            manager.store(tier, relation, tier)
            manager.store(f"{tier}-list", [relation], tier)
        connection.close()
        for key in manager:
            got = manager.retrieve(key)
            got = got[0] if type(got) is list else got
            assert type(got) is pa.Table
            assert expected.equals(got)


def test_a_stream_that_is_read_once_is_refused() -> None:
    """To encode it would use it up."""
    reader = TABLE.to_reader()
    with pytest.raises(UnsupportedTypeError, match=r"pyarrow\.table\(value\)"):
        codecs.encode(reader)
    assert 2 == len(list(reader))
    arro3 = pytest.importorskip("arro3.core", reason="arro3-core is not installed")
    with pytest.raises(UnsupportedTypeError, match=r"pyarrow\.table\(value\)"):
        codecs.encode(arro3.RecordBatchReader.from_arrow(TABLE))


@pytest.mark.parametrize("name", ["arro3.array", "arro3.batch", "arro3.scalar", "nanoarrow.array"])
def test_a_table_in_the_place_of_an_array_is_refused(name: str) -> None:
    """By us, before the package gets it."""
    pytest.importorskip(
        {"arro3": "arro3.core"}.get(name.partition(".")[0], name.partition(".")[0]),
        reason="the package is not installed",
    )
    parts = codecs.encode(TABLE)
    with pytest.raises(CorruptDataError):
        codecs.decode(Parts(name, None, parts.buffers))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1))),
    st.lists(st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"])))),
    st.integers(0, 3),
)
def test_every_array_comes_back(numbers: list[Any], texts: list[Any], skip: int) -> None:
    """Whole and in slices."""
    arro3 = pytest.importorskip("arro3.core", reason="arro3-core is not installed")
    nanoarrow = pytest.importorskip("nanoarrow", reason="nanoarrow is not installed")
    for items, kind in ((numbers, pa.int64()), (texts, pa.string())):
        array = pa.array(items, kind)[skip:]
        first = arro3.Array.from_arrow(array)
        assert first == through_frame(first)
        second = nanoarrow.Array(array)
        assert second.to_pylist() == through_frame(second).to_pylist() == items[skip:]


@settings(max_examples=200, deadline=None)
@given(st.randoms(use_true_random=False), st.booleans())
def test_damaged_arrays_are_a_value_or_an_error_of_ours(rng: Any, chunked: bool) -> None:
    """Their packages follow the offsets that they get."""
    from tests.unit.codecs.test_hostile import damage

    arro3 = pytest.importorskip("arro3.core", reason="arro3-core is not installed")
    table = arro3.Table.from_arrow(TABLE)
    value = table.column("s") if chunked else table
    try:
        got = codecs.decode(damage(codecs.encode(value), rng))
    except MemoriesError:
        return
    assert got.nbytes >= 0
