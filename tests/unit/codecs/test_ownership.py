"""What readers may share, what is private, and what it all weighs."""

from __future__ import annotations

import datetime as dt
import enum
import tracemalloc
from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from memories import MemoryManager, codecs
from memories.codecs import Sharing
from memories.codecs.buffers import address
from memories.codecs.content_hash import content_hash
from memories.errors import InvalidOptionError, MemoriesError, UnsupportedTypeError
from memories.frames import writer
from memories.frames.reader import open_frame
from memories.testing.codecs import identical

MB = 10**6


class Level(enum.Enum):
    LOW = 1


@dataclass(frozen=True)
class Plain:
    x: Any


@dataclass
class Checked:
    x: int

    def __post_init__(self) -> None:
        raise AssertionError("the code of a stored type must not run")


class Slotted:
    __slots__ = ("hidden",)


@dataclass
class Inherits(Slotted):
    x: int


class Reduced(dict):  # type: ignore[type-arg]
    pass


@dataclass
class Point:
    x: float
    y: float


Row = namedtuple("Row", "a b")


IMMUTABLE = [
    None, 1, 2**100, 1.5, 1j, "text", b"bytes", (), (1, ("a", b"b")), frozenset({1, (2,)}),
    Level.LOW, dt.datetime(2020, 1, 1), range(3), Row(1, "x"), np.float32(1), ...,
]  # fmt: skip
MUTABLE = [
    [1], {}, set(), bytearray(), ([1],), (1, (2, {})), Plain([1]), Row(1, []), {"a": np.zeros(3)},
    np.array([[1], None], object), np.ma.MaskedArray([1]), np.zeros(1, "i4,f4")[0],
]  # fmt: skip


@pytest.mark.parametrize("value", IMMUTABLE, ids=repr)
def test_immutable_values_are_shared(value: Any) -> None:
    """A hit on them is one look-up: every reader gets the object itself."""
    how, payload, nbytes = codecs.own_value(value)
    assert Sharing.SHARED is how is codecs.sharing(value)
    assert payload is value
    assert nbytes > 0


@pytest.mark.parametrize("value", MUTABLE, ids=repr)
def test_mutable_values_are_each_readers_own(value: Any) -> None:
    """Also if the mutable object is deep inside."""
    how, payload, _ = codecs.own_value(value)
    assert Sharing.FRESH is how is codecs.sharing(value)
    first, second = payload.open(), payload.open()
    assert first is not second
    assert identical(first, second)


def test_changing_what_was_stored_changes_nothing() -> None:
    """Nor does changing what was retrieved."""
    array, inner = np.zeros(5), [1]
    value = {"array": array, "inner": inner, "raw": bytearray(b"abc")}
    _, held, _ = codecs.own_value(value)
    array[0], value["new"] = 9, 1
    inner.append(2)
    got = held.open()
    assert ([0.0] * 5, [1], b"abc") == (got["array"].tolist(), got["inner"], got["raw"])
    assert not got["array"].flags.writeable
    got["inner"].append(3)
    got["raw"][0] = 0
    again = held.open()
    assert ([1], b"abc", 3) == (again["inner"], again["raw"], len(again))


def test_a_writable_copy_is_private() -> None:
    """`copy=True` returns private memory."""
    parts = codecs.freeze(codecs.encode({"a": np.zeros(3), "b": np.zeros(3)}))
    first, second = (codecs.decode(parts, writable=True) for _ in range(2))
    first["a"][0] = 1
    assert (0, 0, 0) == (second["a"][0], first["b"][0], codecs.decode(parts)["a"][0])


def test_handing_over_copies_nothing() -> None:
    """`copy=False` is for arrays as large as half of RAM."""
    array = np.zeros(MB)
    place = array.ctypes.data
    assert place == codecs.freeze_array(array, copy=False).ctypes.data
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1
    parts = codecs.freeze(codecs.encode([np.zeros(MB)]), copy=False)
    assert 8 * MB == parts.nbytes
    assert parts.buffers[0].readonly


def test_everything_copied_lies_in_one_arena() -> None:
    """A state_dict of a thousand layers is one allocation, each layer aligned."""
    parts = codecs.freeze(codecs.encode([np.full(i, i, "u1") for i in range(1, 200)]))
    places = [address(buffer) for buffer in parts.buffers]
    assert {0} == {place % 64 for place in places}
    assert places[-1] - places[0] <= 199 * 256
    assert all(buffer.readonly for buffer in parts.buffers)


def test_a_buffer_counts_once() -> None:
    """Tied weights and views of one array weigh what they weigh in memory."""
    array = np.zeros(MB)
    tied = [array, array, array.view(), array.reshape(1000, 1000)]
    assert 8 * MB == codecs.encode(tied).nbytes
    _, held, nbytes = codecs.own_value(tied)
    assert 8 * MB <= nbytes < 8.1 * MB
    assert 8 * MB <= codecs.size_of(tied) < 8.1 * MB
    got = held.open()
    assert got[0] is got[1]
    assert np.shares_memory(got[0], got[3])


def test_a_slice_of_a_large_array_weighs_what_it_shows() -> None:
    """The rest of its base is not kept."""
    _, master, nbytes = codecs.own_value(np.zeros(MB)[::1000])
    assert 8000 == nbytes == master.nbytes
    assert 8000 == codecs.encode({"a": np.zeros(MB)[:1000]}).nbytes


@pytest.mark.parametrize(
    "make", [lambda: np.ones(4 * MB), lambda: [np.ones(2 * MB), np.ones((1000, 1000)).T[::2]]]
)
def test_the_size_is_what_is_really_held(make: Any) -> None:
    """Budgets are kept by these numbers."""
    value = make()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        kept = codecs.own_value(value)
        held = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert 0.98 * held <= kept[2] <= 1.02 * held


def test_sizing_a_huge_graph_is_bounded() -> None:
    """A store must not walk ten million objects to know that they are many."""
    value = [[i] for i in range(300_000)]
    estimate = codecs.size_of(value)
    exact = codecs.size_of(value, budget=10_000_000)
    assert 0.7 * exact <= estimate <= 1.4 * exact


def test_what_is_shared_inside_stays_shared() -> None:
    """And a value that refers to one thing a billion ways costs nothing."""
    value: Any = [1]
    for _ in range(40):
        value = [value, value]
    got = codecs.decode(codecs.encode(value))
    assert got[0] is got[1]


def test_a_cycle_is_refused_clearly() -> None:
    """Not by a crash of the interpreter."""
    cyclic: list[Any] = [1]
    cyclic.append({"deep": (cyclic,)})
    with pytest.raises(UnsupportedTypeError, match="contains itself"):
        codecs.encode(cyclic)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(UnsupportedTypeError, match="nested deeper"):
        codecs.encode(deep)


def test_depth_costs_nothing_on_the_way_back() -> None:
    """A hostile frame can nest as deep as it likes."""
    nodes: list[Any] = [["list", []]] + [["list", [[i]]] for i in range(100_000)]
    got = codecs.decode(codecs.Parts("tree", {"nodes": nodes, "root": [100_000]}))
    assert 1 == len(got)
    while got:
        got = got.pop()


def test_keys_that_would_take_for_ever_to_hash_are_refused() -> None:
    """Nested tuples that share their insides are small to store and endless to hash."""
    nodes: list[Any] = [["tuple", [1]]] + [["tuple", [[i], [i]]] for i in range(60)]
    nodes.append(["set", [[60]]])
    with pytest.raises(MemoriesError, match="hashed safely"):
        codecs.decode(codecs.Parts("tree", {"nodes": nodes, "root": [61]}))


def test_a_dataclass_is_built_without_its_code() -> None:
    """Stored values are not validated again, and no code of the user runs."""
    value = object.__new__(Checked)
    value.x = 5
    got = codecs.decode(codecs.encode([value]))[0]
    assert (Checked, 5) == (type(got), got.x)


def test_what_the_format_has_no_place_for_is_pickled_and_signed() -> None:
    """Rather than stored without what makes it what it is."""
    for value in (
        Reduced(a=1),
        {Plain(1): "a key whose hash is the user's code"},
        [Inherits(1)],
        np.zeros(2, np.dtype("f8", metadata={"a": 1})),
    ):
        assert codecs.carries_code(codecs.encode(value).codec)
    value = Plain(1)
    object.__setattr__(value, "extra", 2)
    assert codecs.carries_code(codecs.encode(value).codec)


def test_a_type_that_is_gone_is_named() -> None:
    """The error says what to import."""
    parts = codecs.encode(Row(1, 2))
    for node in parts.meta["nodes"]:
        if node[0] == "namedtuple":
            node[1][0] = "module_of_another_program"
    with pytest.raises(UnsupportedTypeError, match="import module_of_another_program"):
        codecs.decode(parts)


def test_a_codec_of_ones_own_takes_ten_lines() -> None:
    """The example of the documentation."""
    codecs.register_codec(
        Point,
        name="tests.point",
        encode=lambda point: {"xy": np.array([point.x, point.y])},
        decode=lambda structure: Point(*structure["xy"].tolist()),
    )
    parts = codecs.encode([Point(1.0, 2.0)])
    assert not codecs.carries_code(parts.codec)
    assert [Point(1.0, 2.0)] == codecs.decode(parts)
    assert (
        "tests.point"
        == codecs.codec_for(Point(0.0, 0.0)).name
        == codecs.codec_named("tests.point").name
    )


@pytest.mark.parametrize("name", ["", "point", "numpy.point", "a" * 101 + ".b", "a.b+pickle"])
def test_a_codec_needs_a_name_of_its_own(name: str) -> None:
    """The name is in every frame for ever."""
    with pytest.raises(InvalidOptionError):
        codecs.register_codec(Point, name=name, encode=list, decode=tuple)


def test_an_unknown_codec_is_named() -> None:
    """The error says what to do."""
    with pytest.raises(UnsupportedTypeError, match=r"'other\.thing'.*register_codec"):
        codecs.codec_named("other.thing")


def test_hashes_tell_types_apart() -> None:
    """A function of 1 and a function of True may give different results."""
    grid = np.arange(6).reshape(2, 3)
    values = [
        1, 1.0, True, "1", b"1", None, [1], (1,), {1}, frozenset({1}), {1: 1}, grid, grid.T, [grid],
        grid.astype("f4"), grid.astype(">i8"), Plain(1), Plain((1,)), np.int64(1), -0.0, 0.0, len,
        Level.LOW, Row(1, 2), (1, 2), "x" * 5000,
    ]  # fmt: skip
    assert len(values) == len({content_hash(value) for value in values})
    assert content_hash(1, 2) != content_hash((1, 2))


def test_hashes_do_not_depend_on_layout_or_sharing() -> None:
    """Equal arguments find equal results."""
    same = content_hash
    array = np.arange(6.0).reshape(2, 3)
    assert same({"a", "b", "c"}) == same({"c", "b", "a"})
    assert same(array) == same(np.asfortranarray(array)) == same(array[::-1][::-1])
    assert same([array, array]) == same([array, array.copy()])


@pytest.mark.parametrize("compression", ["none", "zstd:1"])
def test_what_comes_back_to_ram_is_copied_once(compression: str) -> None:
    """A promotion out of a map copies it; out of a compressed frame, decompressing was the copy."""
    array = np.zeros(MB)
    for value in (array, {"a": array}):
        data = writer.pack(codecs.encode(value), key="k", version=1, compression=compression).join()
        parts = open_frame(data).parts()
        _, kept, nbytes = codecs.own_parts(parts)
        array = kept.open()["a"] if isinstance(value, dict) else kept
        assert np.shares_memory(np.frombuffer(parts.buffers[0], np.uint8), array) is (
            compression != "none"
        )
        assert not np.shares_memory(np.frombuffer(data, np.uint8), array)
        assert 8 * MB <= nbytes < 8 * MB + 2000


@pytest.mark.parametrize(
    "value",
    [b"x" * 5000, "text", 7, np.arange(9), [1, (2,)], (1, "a"), np.float32(2), bytearray(9)],
)
def test_what_comes_back_to_ram_is_what_was_stored(value: Any) -> None:
    """With the size that it had when it was stored, or a budget would drift with every move."""
    stored, how = codecs.own_value(value)[2], codecs.codec_for(value).sharing
    parts = open_frame(writer.pack(codecs.encode(value), key="k", version=1).join()).parts()
    shared, kept, nbytes = codecs.own_parts(parts)
    got = kept.open() if shared is Sharing.FRESH else kept
    assert identical(value, got)
    if shared is codecs.sharing(value):
        assert how is shared
        assert stored == pytest.approx(nbytes, abs=300)


@pytest.mark.parametrize("wrap", [lambda a: a, lambda a: {"a": a}, lambda a: a.view("i8")])
def test_storing_to_disk_copies_nothing(wrap: Callable[[Any], Any]) -> None:
    """A private copy of what is written at once would cost the time and the memory of another."""
    value = wrap(np.random.default_rng(1).random(2_000_000))
    with MemoryManager("1 MB", "1 MB") as manager:
        manager.store("warm up", np.random.default_rng(2).random(500_000), "cold")
        tracemalloc.start()
        try:
            manager.store("k", value, "cold")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 4_000_000


def test_a_codec_without_its_halves_is_refused() -> None:
    """A name alone would be written into frames that nothing reads."""
    with pytest.raises(InvalidOptionError, match="needs a codec, or all of name, encode and"):
        codecs.register_codec(Checked, name="mine.checked", encode=vars)


def test_what_is_kept_shows_no_value() -> None:
    """What a log or a debugger prints of it is short."""
    for value in ({"secret": np.arange(3)}, [bytearray(b"secret")]):
        content = codecs.own_value(value)[1]
        assert "secret" not in repr(content)
        assert repr(content).endswith(" B>")
