"""Streams of every type of Arrow pass the check, and what would mislead a library does not."""

from __future__ import annotations

import io
import re
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from memories.codecs.types import arrow_stream
from memories.errors import CorruptDataError

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
pytest.importorskip("pyarrow.ipc", reason="pyarrow is not installed")

SHORT = pa.array([1, 2, 3], pa.int16())


def columns() -> dict[str, Any]:
    """Return three items of each type that an Arrow stream may carry."""
    words = pa.array(["a", "b", "a"]).dictionary_encode()
    kinds = pa.array([0, 1, 0], pa.int8())
    pairs = [[("a", 1)], [], [("b", 2), ("c", 3)]]
    return {
        "nulls": pa.nulls(3),
        "numbers": pa.array([1, None, 3], pa.int32()),
        "floats": pa.array([1.0, 2.0, 3.0], pa.float16()),
        "flags": pa.array([True, None, False]),
        "digits": pa.array([Decimal("1.5"), None, Decimal("2.5")], pa.decimal128(5, 2)),
        "dates": pa.array([1, 2, 3], pa.date64()),
        "times": pa.array([1, 2, 3], pa.time64("ns")),
        "moments": pa.array([1, 2, 3], pa.timestamp("us", "UTC")),
        "spans": pa.array([1, 2, 3], pa.duration("s")),
        "intervals": pa.array([(1, 2, 3)] * 3, pa.month_day_nano_interval()),
        "texts": pa.array(["a", None, "ccc"]),
        "long texts": pa.array([b"a", None, b"ccc"], pa.large_binary()),
        "views": pa.array(["a", None, "a text of more than twelve bytes"], pa.string_view()),
        "items": pa.array([b"ab", None, b"cd"], pa.binary(2)),
        "empty items": pa.array([b"", b"", b""], pa.binary(0)),
        "lists": pa.array([[1], None, [2, 3]], pa.list_(pa.int8())),
        "fixed lists": pa.array([[1, 2]] * 3, pa.list_(pa.int8(), 2)),
        "empty lists": pa.array([[], [], []], pa.list_(pa.int8(), 0)),
        "list views": pa.array([[1], None, [2, 3]], pa.list_view(pa.int8())),
        "large list views": pa.array([[1], None, [2, 3]], pa.large_list_view(pa.int8())),
        "maps": pa.array(pairs, pa.map_(pa.string(), pa.int8())),
        "structures": pa.array([{"a": 1, "b": "x"}] * 3),
        "runs": pa.RunEndEncodedArray.from_arrays(pa.array([2, 3], pa.int32()), ["a", "b"]),
        "dense": pa.UnionArray.from_dense(
            kinds, pa.array([0, 0, 1], pa.int32()), [SHORT, pa.array(["x"])]
        ),
        "sparse": pa.UnionArray.from_sparse(kinds, [SHORT, pa.array(["x", "y", "z"])]),
        "words": words,
    }


def stream_of(*batches: Any, **options: Any) -> bytearray:
    """Return batches, or one of a single column, as pyarrow writes them."""
    found = [
        one if isinstance(one, pa.RecordBatch) else pa.record_batch([one], ["c"]) for one in batches
    ]
    out = io.BytesIO()
    with pa.ipc.new_stream(out, found[0].schema, options=pa.ipc.IpcWriteOptions(**options)) as pen:
        for one in found:
            pen.write_batch(one)
    return bytearray(out.getvalue())


def check(stream: bytes | bytearray) -> int:
    return arrow_stream.check_stream(memoryview(stream), "table")


def said(stream: bytes | bytearray) -> str:
    """Return what the check says of a stream; an empty text if it is sound."""
    try:
        check(stream)
    except CorruptDataError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", columns())
def test_each_type_passes(name: str) -> None:
    """The rows are counted, over several batches, and in batches without rows."""
    column = columns()[name]
    assert len(column) == check(stream_of(column))
    assert 2 * len(column) == check(stream_of(column, column))
    assert 0 == check(stream_of(column[:0]))
    if len(column):
        assert 2 == check(stream_of(column[1:]))


def test_a_dictionary_may_grow() -> None:
    """The second batch needs more words, and the stream carries only these."""
    first, second = (
        pa.DictionaryArray.from_arrays(pa.array(indices, pa.int8()), words)
        for indices, words in (([0, 1], ["a", "b"]), ([2, 0], ["a", "b", "c"]))
    )
    assert 4 == check(stream_of(first, second, emit_dictionary_deltas=True))


def unchecked(kind: Any, length: int, *buffers: Any, children: Any = ()) -> Any:
    """Return an array whose buffers nothing has compared with its type."""
    held = [None if one is None else pa.py_buffer(np.asarray(one).tobytes()) for one in buffers]
    return pa.Array.from_buffers(kind, length, held, children=list(children))


def view(size: int, place: int, offset: int) -> Any:
    return np.array([size, 0, place, offset], np.int32)


ITEMS = pa.array([1, 2, 3, 4], pa.int8())
LONG = np.full(20, 97, np.uint8)
LIST_VIEWS = [([0, -1], [1, 1]), ([0, 1], [1, -1]), ([0, 3], [1, 2]), ([0, 0], [1, 5])]
VIEWS = {
    "a text has a negative length": view(-1, 0, 0),
    "a text lies in no buffer": view(13, 1, 0),
    "in no buffer": view(13, -1, 0),
    "lies in no buffer": view(13, 0, -1),
    "a text ends after its buffer": view(13, 0, 8),
}


@pytest.mark.parametrize(("starts", "counts"), LIST_VIEWS)
def test_a_list_view_lies_within_its_items(starts: list[int], counts: list[int]) -> None:
    """Neither end of a list may be outside, in 64 bits neither."""
    for kind, width in ((pa.list_view, np.int32), (pa.large_list_view, np.int64)):
        far = np.array(starts, width), np.array(counts, width)
        forged = unchecked(kind(pa.int8()), 2, None, *far, children=[ITEMS])
        assert "a list lies outside of the items" in said(stream_of(forged))
    highest = np.iinfo(np.int64).max
    ends = np.array([highest, highest]), np.array([4, 4])
    forged = unchecked(pa.large_list_view(pa.int8()), 2, None, *ends, children=[ITEMS])
    assert "a list lies outside of the items" in said(stream_of(forged))


@pytest.mark.parametrize("what", VIEWS)
def test_a_view_lies_within_its_buffers(what: str) -> None:
    """One that is used and one that stands for a null."""
    sound = view(13, 0, 7)
    assert not said(stream_of(unchecked(pa.string_view(), 1, None, sound, LONG)))
    assert what in said(stream_of(unchecked(pa.string_view(), 1, None, VIEWS[what], LONG)))
    null = np.zeros(1, np.uint8)
    assert what in said(stream_of(unchecked(pa.string_view(), 1, null, VIEWS[what], LONG)))


@pytest.mark.parametrize(
    "kind", [pa.int64(), pa.float64(), pa.date64(), pa.timestamp("s"), pa.binary(8)], ids=str
)
def test_items_of_a_fixed_size_are_all_there(kind: Any) -> None:
    """A library would read behind the end of their buffer."""
    stream = stream_of(unchecked(kind, 3, None, np.zeros(3, np.int64)))
    forged = stream.replace((24).to_bytes(8, "little"), (16).to_bytes(8, "little"))
    assert not said(stream)
    assert "a buffer has 16 bytes, and 24 are needed" in said(forged)


@pytest.mark.parametrize("ends", [[0, 3, 2], [-1, 1, 2], [0, 2, 5], [3, 2, 4]])
@pytest.mark.parametrize("width", [np.int32, np.int64])
def test_offsets_rise_to_the_end_of_the_items(ends: list[int], width: type) -> None:
    """Of lists, maps, texts and bytes, with short and with long offsets."""
    items = pa.array([1, 2, 3, 4], pa.int8())
    large = width is np.int64
    sound = np.array([0, 3, 4], width)
    kinds = [
        (pa.large_list if large else pa.list_)(pa.int8()),
        pa.large_string() if large else pa.string(),
    ]
    columns = [
        unchecked(kinds[0], 2, None, sound, children=[items]),
        unchecked(kinds[1], 2, None, sound, np.full(4, 97, np.uint8)),
    ]
    for column in columns:
        stream = stream_of(column)
        assert not said(stream)
        assert 1 == stream.count(sound.tobytes())
        forged = stream.replace(sound.tobytes(), np.array(ends, width).tobytes())
        assert "its offsets do not rise from 0 to the end of the items" in said(forged)


@pytest.mark.parametrize("index", [-1, 2])
def test_an_index_lies_within_its_dictionary(index: int) -> None:
    """What stands for a null may be anything."""
    kind = pa.dictionary(pa.int8(), pa.string())
    for mask, what in ((None, "an index is outside of its dictionary"), (1, "")):
        nulls = None if mask is None else pa.py_buffer(bytes([mask]))
        indices = pa.Array.from_buffers(pa.int8(), 2, [nulls, pa.py_buffer(np.int8([0, index]))])
        forged = pa.DictionaryArray.from_arrays(indices, pa.array(["a", "b"]), safe=False)
        assert kind == forged.type
        assert what in said(stream_of(forged))
        assert bool(what) == bool(said(stream_of(forged)))


def test_columns_are_nested_in_a_limited_depth(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that walks them by recursion would end the process."""
    monkeypatch.setattr(arrow_stream, "_MAX_DEPTH", 8)
    nested = pa.array([1])
    for depth in range(1, 12):
        nested = pa.StructArray.from_arrays([nested], ["c"])
        assert (depth > 8) == ("nested in more than 8 levels" in said(stream_of(nested)))


def test_a_column_that_holds_addresses_is_refused() -> None:
    """Polars would follow them."""
    schema = pa.schema(
        [pa.field("c", pa.int8(), metadata={"ARROW:extension:name": "POLARS_EXTENSION_x"})]
    )
    batch = pa.record_batch([ITEMS], schema=schema)
    assert "a column claims to hold addresses" in said(stream_of(batch))


def test_what_takes_no_bytes_is_granted_by_the_caller() -> None:
    """A column of empty lists or of empty items is as long as it says."""
    for kind in (pa.list_(pa.int8(), 0), pa.binary(0)):
        nothing = [None, b""] if kind == pa.binary(0) else [None]
        parts = [ITEMS[:0]] if kind == pa.list_(pa.int8(), 0) else []
        stream = stream_of(unchecked(kind, (1 << 31) - 1, *nothing, children=parts))
        assert "out of proportion to what is stored" in said(stream), kind


def test_a_compressed_stream_is_refused() -> None:
    """A buffer would expand to whatever it claims."""
    stream = stream_of(pa.array(range(1000)), compression="zstd")
    assert "it is compressed, which this package never does" in said(stream)


WANTED = {
    "a batch has a negative length",
    "a buffer has N bytes, and N are needed",
    "a buffer of N bytes at N is not in its message",
    "a column and its batch differ in length",
    "a column has N parts instead of N",
    "a column has no type",
    "a column has the unknown type N",
    "a column of lists has too few items",
    "a column of nulls would take N bytes, out of proportion to what is stored",
    "a column of views has no list of its buffers",
    "a dictionary and its batch differ in length",
    "a dictionary belongs to no column",
    "a list in the metadata of a stored Arrow stream has no end",
    "a message claims N bytes, N are there",
    "a message does not begin where one should",
    "a message has more arrays than its schema",
    "a message of kind N is in a wrong place",
    "a number cannot have N digits",
    "a part of a union is too short",
    "an array does not have the N nulls that it claims",
    "an array has N items and N nulls",
    "an item cannot have N bits",
    "an item cannot have N parts",
    "indices cannot have N bits",
    "it has no schema",
    "it was written in another byte order",
    "its metadata are of an unknown version",
    "the fields of a structure differ in length",
    "the metadata of a stored Arrow stream lead out of it",
    "the name of a column is not UTF-8",
}  # What nothing above shows.


def test_every_byte_of_every_type_may_be_another() -> None:
    """Each alteration passes the check, or the check says what it found; it finds all of these."""
    found: set[str] = set()
    for column in columns().values():
        sound = stream_of(column)
        for at, byte in enumerate(sound):
            for other in {0, 1, 3, 0x7F, 0x80, 0xFF, byte ^ 1, byte + 1 & 0xFF} - {byte}:
                sound[at] = other
                found.add(re.sub(r"(?<![-\w])-?\d+", "N", said(sound)).partition("is damaged: ")[2])
            sound[at] = byte
    assert set() == WANTED - found


def test_a_stream_that_is_cut_is_refused() -> None:
    """Unless it is cut after a message: the caller compares the rows."""
    stream = stream_of(pa.array(["a", "b"]), pa.array(["c", None]))
    ends = {at for at in range(len(stream)) if not said(stream[:at])}
    assert {0, 2, 4} == {check(stream[:at]) for at in ends}
    assert "it has no schema" in said(b"")
    assert "it ends within a message" in said(stream[:7])


def test_columns_of_two_types_share_no_dictionary() -> None:
    """One would be read as the other."""
    column = pa.array(["a", "b"]).dictionary_encode()
    other = pa.array([1, 2]).dictionary_encode()
    stream = stream_of(pa.record_batch([column, other], ["c", "d"]))
    assert not said(stream)
    altered = [
        stream[:at] + bytes([0]) + stream[at + 1 :] for at, one in enumerate(stream) if one == 1
    ]
    assert any("two columns of different types share a dictionary" in said(one) for one in altered)
