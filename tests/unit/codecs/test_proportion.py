"""A few stored bytes never become gigabytes or minutes, and no code of a named class runs.

Each case is what an attacker can write with valid checksums.
"""

from __future__ import annotations

import dataclasses
import resource
import time
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import pytest

from memories import codecs
from memories.codecs import allowance
from memories.codecs.base import Parts
from memories.errors import CorruptDataError, UnsupportedTypeError

RAN: list[str] = []
SECONDS = 30.0
KILOBYTES = 600_000


@dataclasses.dataclass
class WithEnd:
    """Its end would close what its field names."""

    word: str

    def __del__(self) -> None:
        RAN.append(self.word)


@dataclasses.dataclass
class LikeAnArray:
    """Offers itself to NumPy."""

    word: str

    def __array__(self, *_: Any, **__: Any) -> Any:
        RAN.append(self.word)
        return np.zeros(3)


@dataclasses.dataclass
class WithView:
    """Has methods with the names of those of an array."""

    word: str
    dtype: str = "O"

    def view(self, kind: Any) -> Any:
        """Say that it was called."""
        RAN.append(f"{self.word} {kind}")

    def reshape(self, *_: Any) -> Any:
        """Say that it was called."""
        RAN.append(self.word)


class PairWithEnd(NamedTuple):
    """A named tuple that does something at its end."""

    word: str

    def __del__(self) -> None:
        RAN.append(self.word)


def structure(name: str, *nodes: Any, buffers: tuple[bytes, ...] = (), root: Any = None) -> Parts:
    """Return the parts of a codec whose value is a structure; the root is the last node."""
    described = {"nodes": list(nodes), "root": [len(nodes) - 1] if root is None else root}
    return Parts(name, described, tuple(map(memoryview, buffers)))


def leaf(codec: str, meta: Any) -> list[Any]:
    """Return a node of a codec without buffers."""
    return [codec, meta, []]


LONG_RANGE = leaf("range", [0, 300_000_000, 1])


def objects_of_a_range() -> Parts:
    """A range where the list of items is expected."""
    return structure(
        "numpy.objects", LONG_RANGE, ["list", [300_000_000]], ["list", [[1], "C", [0]]]
    )


def texts_of_a_range() -> Parts:
    """The same for an array of texts."""
    return structure(
        "numpy.strings", LONG_RANGE, ["list", [300_000_000]],
        ["list", [[1], False, None, True, [0], "C"]],
    )  # fmt: skip


def pandas_texts_of_a_range() -> Parts:
    """The same for a column of pandas."""
    pytest.importorskip("pandas")
    return structure("pandas.strings", LONG_RANGE, ["list", [[0], False]])


def columns_of_a_range() -> Parts:
    """A range where the columns of a table are expected."""
    pytest.importorskip("pandas")
    index = leaf(
        "pandas.range", {"nodes": [["range", [0, 3, 1], []], ["list", [[0], None]]], "root": [1]}
    )
    return structure(
        "pandas.frame",
        LONG_RANGE,
        index,
        ["dict", [], []],
        ["dict", ["index", "columns", "data", "attrs", "duplicates"], [[1], [1], [0], [2], True]],
    )


def many_texts_of_one_buffer() -> Parts:
    """Thousands of nodes that each copy the one megabyte there is."""
    nodes: list[Any] = [["str", None, [0]] for _ in range(3000)]
    return structure(
        "tree", *nodes, ["list", [[i] for i in range(3000)]], buffers=(b"x" * 1_000_000,)
    )


def rows_of_lists() -> Parts:
    """A matrix of many empty rows, each of which becomes two lists."""
    sparse = pytest.importorskip("scipy.sparse")
    parts = codecs.encode(sparse.lil_array((3, 3)))
    described = parts.meta
    for node in described["nodes"]:
        if node[0] == "list" and node[1] == [3, 3]:
            node[1] = [200_000_000, 3]
    return parts


def nulls(of: str) -> Parts:
    """A column of nulls has no bytes, and any length."""
    library = pytest.importorskip(of)
    if of == "pyarrow":
        parts = codecs.encode(library.table({"a": library.nulls(1234567)}))
    else:
        parts = codecs.encode(library.DataFrame({"a": [None] * 1234567}))
    data = bytes(parts.buffers[0]).replace(
        (1234567).to_bytes(8, "little"), (2**40).to_bytes(8, "little")
    )
    meta = None if of == "pyarrow" else {"height": 2**40, "name": None}
    return parts._replace(buffers=(memoryview(data),), meta=meta)


def compressed_stream(of: str) -> Parts:
    """A compressed body says how long it becomes, and that is allocated."""
    pa = pytest.importorskip("pyarrow")
    pytest.importorskip(of)
    sink = pa.BufferOutputStream()
    table = pa.table({"a": pa.array(np.zeros(50_000_000))})
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write(table)
    meta = None if of == "pyarrow" else {"height": 50_000_000, "name": None}
    name = "pyarrow.table" if of == "pyarrow" else "polars.frame"
    return Parts(name, meta, (memoryview(sink.getvalue()),))


def long_frequency() -> Parts:
    """pandas takes minutes to find out that a long text is no frequency."""
    pandas = pytest.importorskip("pandas")
    parts = codecs.encode(pandas.Period("2020", "M"))
    parts.meta["nodes"][-1][1][1] = "1D" * 30_000
    return parts


def long_frequency_of_an_array() -> Parts:
    """The same for an array of periods."""
    pandas = pytest.importorskip("pandas")
    parts = codecs.encode(pandas.period_range("2020", periods=3, freq="M").array)
    parts.meta["nodes"][-1][1][1] = "1D" * 30_000
    return parts


def repeated_tuple_keys() -> Parts:
    """The hash of a tuple is computed each time, for each of the dicts that it is a key of."""
    dicts: list[Any] = [["dict", [[0]], [1]] for _ in range(20_000)]
    return structure("tree", ["tuple", [1] * 50_000], *dicts, ["list", []])


def repeated_large_keys() -> Parts:
    """And so is that of a large number."""
    dicts: list[Any] = [["dict", [[0]], [1]] for _ in range(100_000)]
    return structure("tree", leaf("int", b"\7" * 1_000_000), *dicts, ["list", []])


def colliding_hashes() -> Parts:
    """Numbers that differ by multiples of 2**61 - 1 have one hash: a dict compares all of them."""
    numbers = [(i * (2**61 - 1)).to_bytes(16, "little", signed=True) for i in range(1, 100_000)]
    nodes = [leaf("int", number) for number in numbers]
    keys = [[i] for i in range(len(nodes))]
    return structure("tree", *nodes, ["set", keys])


BOMBS: dict[str, Callable[[], Parts]] = {
    "objects of a range": objects_of_a_range,
    "texts of a range": texts_of_a_range,
    "a column of a range": pandas_texts_of_a_range,
    "columns of a range": columns_of_a_range,
    "many texts of one buffer": many_texts_of_one_buffer,
    "rows of lists": rows_of_lists,
    "nulls for pyarrow": lambda: nulls("pyarrow"),
    "nulls for polars": lambda: nulls("polars"),
    "zstd for pyarrow": lambda: compressed_stream("pyarrow"),
    "zstd for polars": lambda: compressed_stream("polars"),
    "a long frequency": long_frequency,
    "a long frequency of an array": long_frequency_of_an_array,
    "repeated tuple keys": repeated_tuple_keys,
    "repeated large keys": repeated_large_keys,
    "colliding hashes": colliding_hashes,
}


@pytest.mark.parametrize("name", BOMBS)
def test_what_is_out_of_proportion_is_refused(name: str) -> None:
    """In seconds, and in a few hundred megabytes."""
    parts = BOMBS[name]()
    started = time.process_time()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CorruptDataError):
        codecs.decode(parts)
    assert time.process_time() - started < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < KILOBYTES


def test_what_an_interrupt_left_granted_is_not_drawn_on() -> None:
    """It may come between the lines that grant and take back, in a thread that decodes for ever."""
    left = allowance.Allowance(Parts("list", [], ()))
    left.__enter__()
    with pytest.raises(CorruptDataError):
        allowance.spend(allowance.FREE_NBYTES + 1000, "a text")
    del left
    for _ in range(3):
        allowance.spend(allowance.FREE_NBYTES - 1, "a text")
    allowance.spend_steps(allowance.FREE_STEPS - 1, "a text")


def test_a_large_fraction_is_read_at_once() -> None:
    """To look for a common divisor of two numbers of a megabyte takes a minute."""
    numbers = [(b"\5" * 1_000_000), (b"\3" * 999_999) + b"\1"]
    started = time.process_time()
    value = codecs.decode(Parts("fraction", numbers))
    assert time.process_time() - started < SECONDS
    assert int.from_bytes(numbers[0], "little") == value.numerator
    for value in (Fraction(0), Fraction(-3, 7), Fraction(2**70, 3)):
        again = codecs.decode(codecs.encode(value))
        assert value == again and hash(value) == hash(again) and type(again) is Fraction
    with pytest.raises(CorruptDataError, match="denominator"):
        codecs.decode(Parts("fraction", [1, 0]))


def test_large_values_of_every_proportion_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was refused above has small relatives that are stored every day."""
    monkeypatch.setattr(allowance, "FREE_NBYTES", 100_000)
    monkeypatch.setattr(allowance, "FREE_STEPS", 1000)
    words = {f"k{i}": [i, None, (i, "x")] for i in range(20_000)}
    assert words == codecs.decode(codecs.encode(words))
    keys = {(i, (j, "x")): j for i in range(100) for j in range(100)}
    assert keys == codecs.decode(codecs.encode(keys))
    large = {10**30 + i for i in range(5000)}
    assert large == codecs.decode(codecs.encode(large))
    sparse = pytest.importorskip("scipy.sparse")
    tall = sparse.lil_array((30_000, 2))
    tall[5, 1] = 2.0
    again = codecs.decode(codecs.encode(tall))
    assert "lil" == again.format and (30_000, 2) == again.shape and 2.0 == again[5, 1]
    assert 1 == again.nnz


@pytest.mark.parametrize("kind", [WithEnd, LikeAnArray, PairWithEnd])
def test_a_class_that_acts_by_itself_is_not_built_of_stored_fields(kind: Any) -> None:
    """Its values are pickled and signed, unless its author registers a codec."""
    name = [kind.__module__, kind.__qualname__]
    node = ["namedtuple", name, ["made up"]]
    if kind is not PairWithEnd:
        node = ["dataclass", name, ["word"], ["made up"]]
    RAN.clear()
    with pytest.raises(CorruptDataError):
        codecs.decode(structure("tree", node))
    assert [] == RAN
    assert "pickle" in codecs.encode([kind("honest")]).codec


@pytest.mark.parametrize(
    "codec",
    [
        "numpy.matrix",
        "numpy.recarray",
        "numpy.iinfo",
        "numpy.finfo",
        "xarray.variable",
        "pandas.index",
        "pandas.timestamp",
    ],
)
def test_methods_of_a_named_class_are_not_called(codec: str) -> None:
    """An object of any imported dataclass may stand where an array is expected."""
    for package in ("pandas", "xarray"):
        if codec.startswith(package):
            pytest.importorskip(package)
    name = [WithView.__module__, WithView.__qualname__]
    object_ = ["dataclass", name, ["word"], ["made up"]]
    RAN.clear()
    for nodes in (
        [object_],
        [object_, ["list", [[0], None, None]]],
        [object_, ["dict", [], []], ["list", ["x"]], ["list", [False, [2], [0], [1], [1]]]],
    ):
        with pytest.raises(CorruptDataError):
            codecs.decode(structure(codec, *nodes))
    assert [] == RAN


def test_the_name_of_a_file_is_no_time_zone() -> None:
    """pandas opens the file that such a text names."""
    pandas = pytest.importorskip("pandas")
    parts = codecs.encode(pandas.Timestamp("2020", tz="UTC"))
    parts.meta["nodes"][-1][1][1] = "dateutil//etc/passwd"
    with pytest.raises(CorruptDataError, match="time zone"):
        codecs.decode(parts)


def test_items_whose_hash_is_code_are_pickled() -> None:
    """A categorical hashes its categories when it is made."""
    pandas = pytest.importorskip("pandas")

    class Odd:
        """Cannot be stored at all: it is local."""

    index = pandas.Index([Odd(), Odd()], dtype=object)
    with pytest.raises(UnsupportedTypeError):
        codecs.encode(pandas.Categorical.from_codes([0, 1], categories=index))


@pytest.mark.parametrize("nested", ["tree", "numpy.objects"])
def test_values_within_values_end_somewhere(nested: str) -> None:
    """Thousands of levels are an error of ours, not the end of the stack."""
    meta: Any = {"nodes": [["list", []]], "root": [0]}
    for _ in range(400):
        meta = {"nodes": [[nested, meta, []]], "root": [0]}
    with pytest.raises(CorruptDataError):
        codecs.decode(Parts("tree", meta))


def test_what_an_old_polars_could_not_read_back_is_not_stored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before 1.25 it counts buffers of empty texts that it does not write."""
    polars = pytest.importorskip("polars")
    from memories.codecs.types import polars as codec

    monkeypatch.setattr(codec, "_writes_soundly", lambda: False)
    frame = polars.DataFrame({"t": [["a", "b" * 40], None, []], "n": [1, 2, 3]})
    assert frame.equals(codecs.decode(codecs.encode(frame)))
    with pytest.raises(UnsupportedTypeError, match="upgrade polars"):
        codec._require_readable(codecs.encode(frame).buffers[0][:-16])
