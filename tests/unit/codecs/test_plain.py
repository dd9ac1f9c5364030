"""The short way to own plain values gives what the general way gives, or leaves them to it."""

from __future__ import annotations

import dataclasses
import datetime as dt
import gc
import subprocess
import sys
import tracemalloc
import zoneinfo
from collections import OrderedDict, defaultdict, deque
from decimal import Decimal
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memories import MemoryManager, codecs
from memories.codecs import Sharing
from memories.engine.payload import HeldPayload, PackedPayload, Payload
from memories.errors import UnsupportedTypeError
from memories.frames import writer
from memories.frames.compression_history import CompressionHistory
from memories.frames.signing import Keyring
from memories.model.entry import ArrayEntry, Entry, PackedEntry, PartsEntry, SharedEntry
from memories.testing import strategies
from memories.testing.codecs import identical

SHARING: dict[type[Entry], Sharing] = {
    SharedEntry: Sharing.SHARED,
    ArrayEntry: Sharing.VIEW,
    PackedEntry: Sharing.FRESH,
    PartsEntry: Sharing.FRESH,
}
NO_KEYS = Keyring()  # Nothing here is signed.
NAN = float("nan")
LONE = "\ud800"


class Text(str):
    __slots__ = ()


class Number(IntEnum):
    ONE = 1


class Table(dict):  # type: ignore[type-arg]
    pass


def leaves() -> st.SearchStrategy[Any]:
    """Return a strategy for leaves of plain values, and for what is nearly one."""
    texts = st.text(st.characters(exclude_categories=()), max_size=8)
    odd: list[Any] = [
        2**63, 2**64, -(2**63), -(2**63) - 1, -0.0, float("nan"), "x" * 257, b"x" * 257, "\0",
        Text("a"), Number.ONE, np.float64(1.5), np.bool_(True), (), bytearray(b"a"), True, 1, 1.0,
    ]  # fmt: skip
    return st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), texts, st.binary(max_size=8),
        st.sampled_from(odd),
    )  # fmt: skip


def nested(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return a strategy for containers, those that contain one thing twice included."""
    lists = st.lists(children, max_size=5)
    keys = st.one_of(st.text(max_size=4), st.text(max_size=4), st.integers(), st.just(LONE))
    tables = st.one_of(
        st.dictionaries(st.text(max_size=4), children, max_size=5),
        st.dictionaries(keys, children, max_size=5),
    )
    return st.one_of(
        lists, tables, tables, lists.map(tuple), tables.map(Table), tables.map(OrderedDict),
        children.map(lambda child: [child, {"again": child}]),
    )  # fmt: skip


def simple() -> st.SearchStrategy[Any]:
    """Return a strategy for values of which nearly all are plain."""
    leaves = st.one_of(
        st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(),
        st.text(max_size=8), st.binary(max_size=8),
    )  # fmt: skip
    return st.recursive(
        leaves,
        lambda children: st.one_of(
            st.lists(children, max_size=5),
            st.dictionaries(st.text(max_size=4), children, max_size=5),
        ),
        max_leaves=30,
    )


def tied_arrays() -> st.SearchStrategy[Any]:
    """Return a strategy for lists of arrays that may lie in one memory, in many ways."""
    whole = np.arange(24.0)
    data = bytes(range(64))
    views = [
        whole, whole[::2], whole.reshape(4, 6), whole.reshape(4, 6).T, whole[:5], whole[5:],
        np.frombuffer(data, "i4"), np.frombuffer(data, "u1"), np.frombuffer(memoryview(data), "i4"),
        np.frombuffer(bytearray(data), "i4"), np.zeros((3, 4), order="F"), np.array(5), np.zeros(0),
        np.zeros(2, ">f8"), np.zeros(2, np.dtype("f8", metadata={"a": 1})), np.zeros(1000),
    ]  # fmt: skip
    return st.lists(st.sampled_from(views), max_size=3)


def copied() -> st.SearchStrategy[Any]:
    """Return a strategy for values of which most are held as private copies."""
    leaves = st.one_of(
        simple(), strategies.leaves(), tied_arrays(), st.binary(max_size=9).map(bytearray),
        st.sets(strategies.keys(), max_size=3), st.just("x" * 300),
    )  # fmt: skip

    def nest(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        lists = st.lists(children, max_size=4)
        keys = st.one_of(
            strategies.keys(), st.floats(allow_nan=False), st.just(LONE), st.none(), st.just(2**70)
        )
        tables = st.dictionaries(keys, children, max_size=4)
        return st.one_of(
            lists, tables, lists.map(tuple), tables.map(OrderedDict),
            tables.map(lambda items: defaultdict(list, items)), lists.map(lambda x: deque(x, 3)),
        )  # fmt: skip

    return st.recursive(leaves, nest, max_leaves=12)


def values() -> st.SearchStrategy[Any]:
    """Return a strategy for values of which about half are plain."""
    return st.one_of(
        simple(),
        copied(),
        st.recursive(leaves(), nested, max_leaves=20),
        strategies.values(),
        strategies.arrays(),
    )


def identities(value: Any) -> list[Any]:
    """Return which of the mutable objects inside of a value are the same object or memory."""
    numbers: dict[int, int] = {}
    found: list[Any] = []
    arrays: list[Any] = []
    todo = [value]
    while todo:
        item = todo.pop()
        if isinstance(item, np.ndarray) and not item.dtype.hasobject:
            arrays.append(item)
        elif isinstance(item, list | dict | set | deque | bytearray) or (
            dataclasses.is_dataclass(item) and not isinstance(item, type)
        ):
            if id(item) in numbers:
                found.append(numbers[id(item)])
                continue
            numbers[id(item)] = len(numbers)
        if isinstance(item, dict):
            todo.extend(item.values())
        elif isinstance(item, list | tuple | deque):
            todo.extend(item)
        elif dataclasses.is_dataclass(item) and not isinstance(item, type):
            todo.extend(vars(item).values() if hasattr(item, "__dict__") else [])
    found.append([[np.shares_memory(a, b) for b in arrays] for a in arrays])
    return found


def check(value: Any) -> None:
    """Compare both ways to own `value`, and what leads down to a frame and up again."""
    check_frame(value)
    plain = codecs.own_plain(value)
    if plain is None:
        return
    kind, content, nbytes = plain
    how, held, _ = codecs.own_value(value)
    payload = Payload.of(value)
    got, again = payload.open(NO_KEYS), payload.open(NO_KEYS)
    want = held.open() if how is Sharing.FRESH else held
    assert how is SHARING[kind]
    assert identical(value, got)
    assert identical(want, got)
    assert identities(want) == identities(got)
    if how is Sharing.FRESH:
        assert not shared(got, again)
        assert not shared(got, value)
    for array in arrays_of(got):
        with pytest.raises(ValueError, match=r"WRITEABLE|writ"):
            array.setflags(write=True)
        assert not any(np.shares_memory(array, given) for given in arrays_of(value))
    if kind is not SharedEntry:  # Python may add the UTF-8 of a text to it at any time.
        assert nbytes == (content.nbytes if kind is not PackedEntry else sys.getsizeof(content))
    parts = payload.parts(NO_KEYS)
    assert payload.codec == parts.codec == codecs.encode(value).codec
    assert not codecs.carries_code(payload.codec)
    assert identical(value, codecs.decode(parts))
    assert identities(want) == identities(codecs.decode(parts))


def check_frame(value: Any) -> None:
    """Compare what comes back to RAM out of a frame with what is in the frame."""
    parts = codecs.encode(value)
    if codecs.carries_code(parts.codec):
        return
    below = Payload.of_frame(writer.pack(parts, key="k", version=1).join(), key="k")
    how, held, _ = codecs.own_parts(below.parts(NO_KEYS))
    want = held.open() if how is Sharing.FRESH else held
    for copy in (True, False):
        back = below.to_host(NO_KEYS, copy=copy)
        got = back.open(NO_KEYS)
        assert identical(value, got)
        assert identities(want) == identities(got)
    if type(Payload.of(value)) is PackedPayload:
        assert type(back) is PackedPayload


@given(values())
@settings(max_examples=300)
def test_the_short_way_gives_what_the_general_way_gives(value: Any) -> None:
    """Type for type and bit for bit, with the same sharing, also after it was in a frame."""
    check(value)


def odd() -> list[Any]:
    """Return values that are plain but for one thing, and plain ones with a difficulty."""
    whole, data, one = np.arange(24.0), bytes(64), [1]
    zone = dt.timezone(dt.timedelta(hours=1), "\ud800")
    return [
        [(1, 2)], {"a": ()}, {1: 2}, {None: 1}, {(1, "a"): [2]}, {LONE: LONE},
        {Text("a"): 1}, {"a": Text("a")}, [Number.ONE], [True, 1, 1.0, -0.0],
        [2**63, 2**64, -(2**63) - 1],
        [one, one], {"a": one, "b": (one, 2)}, [(), ()], ((one,), (one,)), [whole, whole],
        [whole, whole[::2]], {"a": whole[:5], "b": [whole[5:]]}, [whole.reshape(4, 6), whole],
        [np.frombuffer(data, "i4"), np.frombuffer(data, "i4")], [np.frombuffer(data, "u1"), data],
        [np.frombuffer(memoryview(data), "i4"), np.frombuffer(bytearray(64), "i4")],
        [np.ones((2, 3), order="F"), np.arange(12).reshape(3, 4).T, np.arange(9)[::-1]],
        [np.zeros(2, ">f8")], [np.zeros(2, np.dtype("f8", metadata={"a": 1}))], [np.array(5)],
        [np.zeros(0)], [np.zeros((0, 3), order="F")], [np.zeros(1000)], [np.ma.MaskedArray([1])],
        np.arange(6).reshape(2, 3).T, np.array(3), np.zeros((2, 0)), np.zeros(2, "S3"),
        [Table(a=1)], {"a": Table()}, [defaultdict(list, a=[1])], [defaultdict(str.split)],
        [defaultdict(None)], deque([[1]], 2), [deque([[1], 2])], {"a": {1, (2, "b")}},
        [{Number.ONE}],
        [{("a", Number.ONE)}], [{Text("a")}], [frozenset({1}), frozenset({(1,)})], {1, 2},
        [{frozenset({1})}], (1, [2]), (1, (2, (3,))), ([],), bytearray(b"a"), [bytearray(b"a")],
        [dt.datetime(2020, 1, 1, fold=1)], [dt.datetime(2020, 1, 1, tzinfo=zone)],
        [dt.time(1, tzinfo=zone)],
        [dt.datetime(2020, 1, 1, tzinfo=dt.UTC)], [zoneinfo.ZoneInfo("Europe/Berlin")], [zone],
        [dt.datetime(2020, 1, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin"))], [dt.date(2020, 1, 1)],
        [Decimal("sNaN"), Decimal("1.0")], [..., NotImplemented], [...], [1j], np.float32(1.5),
        [np.float64(1.5), np.int8(1), np.bool_(True)], [np.str_("a")], [np.datetime64("2020")],
        ["x" * 257, b"x" * 257], ["x" * 5000] * 2, [b"x" * 5000] * 2, [range(3)],
        [strategies.Box(one)],
    ]  # fmt: skip


@pytest.mark.parametrize("value", odd(), ids=map(str, range(len(odd()))))
def test_odd_values_come_back_as_by_the_general_way(value: Any) -> None:
    """Each of these is what a careless test of the types would get wrong."""
    check(value)


def test_a_key_that_only_equals_itself_is_found() -> None:
    """In RAM a reader gets the very keys that were stored, NaN included."""
    got = Payload.of({NAN: [NAN], "in a set": {NAN}}).open(NO_KEYS)
    assert [NAN] == got[NAN]
    assert NAN in got["in a set"]


def test_attributes_of_an_ordered_dict_are_copied_too() -> None:
    """Only the general way knows them."""
    named = OrderedDict(a=1)
    named.extra = [1]  # type: ignore[attr-defined]
    payload = Payload.of([named])
    payload.open(NO_KEYS)[0].extra.append(2)
    assert [1] == payload.open(NO_KEYS)[0].extra


def shared(left: Any, right: Any) -> bool:
    """Return whether two values have a mutable object in common, an array object included."""
    return bool(set(mutable(left)) & set(mutable(right)))


def mutable(value: Any) -> dict[int, Any]:
    """Return the mutable objects inside of a value, by identity."""
    found: dict[int, Any] = {}
    todo = [value]
    while todo:
        item = todo.pop()
        if isinstance(item, np.ndarray | list | dict | set | deque | bytearray):
            found[id(item)] = item
        todo.extend(item.values() if isinstance(item, dict) else ())
        todo.extend(item if isinstance(item, list | tuple | deque) else ())
    return found


def arrays_of(value: Any) -> list[Any]:
    """Return the arrays inside of a value."""
    return [item for item in mutable(value).values() if isinstance(item, np.ndarray)]


@given(values())
def test_what_cannot_be_stored_is_refused_at_the_same_moment(value: Any) -> None:
    """Whatever a list contains, `Payload.of` raises if and only if the general way raises."""
    for refused in (lambda: 0, open):
        for made in ([value, refused], {"a": [refused, value]}):
            for own in (codecs.own_value, Payload.of):
                if refused is open:
                    own(made)
                else:
                    with pytest.raises(UnsupportedTypeError):
                        own(made)


@pytest.mark.parametrize(
    "value", [1, "text", (1, ("a", b"b")), frozenset({"a"}), 1j, np.float32(2)]
)
def test_immutable_values_weigh_as_ever(value: Any) -> None:
    """The object itself is kept in both ways."""
    assert codecs.own_plain(value) == (SharedEntry, value, codecs.own_value(value)[2])


@pytest.mark.parametrize(
    "make",
    [
        lambda i: {"id": i, "at": (f"{i:09}", float(i)), "tags": {f"tag {i}", i << 40}},
        lambda i: {"x": np.full(100, i), "y": [np.full((10, 100), float(i))]},
        lambda i: {"id": i, "name": f"{i:09}", "more": [i, i]},
    ],
)
def test_the_size_is_close_to_what_is_held(make: Any) -> None:
    """Budgets are kept by these numbers; what the caller still refers to costs nothing more."""
    kept = [codecs.own_plain(make(index)) for index in range(3)]
    kept.clear()
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        kept = [codecs.own_plain(make(index)) for index in range(1000, 3000)]
        gc.collect()
        held = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    charged = sum(one[2] + sys.getsizeof(one) for one in kept if one is not None)
    assert 0.8 * held <= charged <= 1.25 * held


def test_a_view_out_of_a_dict_keeps_its_bytes_charged() -> None:
    """An array is a view of memory of its own, which lives as long as the view."""
    with MemoryManager("1 MB", "1 MB") as manager:
        manager.store("k", {"a": np.zeros(50_000), "b": (1, np.zeros(10))}, "warm")
        view = manager.retrieve("k")["a"]
        manager.delete("k")
        assert manager.get_memory_usage()["warm"] > 40
        assert 0 == view.sum()
        del view
        assert manager.get_memory_usage()["warm"] < 1


@pytest.mark.parametrize(
    "value",
    [
        {"a": 1, "b": [1, 2.5, None, True, "x", b"y"]},
        {
            "a": (1, [2]),
            3: {4, 5},
            "z": deque([1j], 3),
            "at": dt.datetime(2020, 1, 1, tzinfo=dt.UTC),
        },
        {"x": [np.arange(9), np.ones((2, 3), order="F"), np.zeros(5000)], "t": "long" * 1000},
        {"b": bytearray(b"abc"), "big": 2**80, "e": ..., "s": np.float32(1), "d": Decimal("1.0")},
    ],
)
def test_a_value_comes_back_to_ram_as_it_was_stored(value: Any, tmp_path: Path) -> None:
    """A dict is read as fast after it was on the disk as before."""
    trust = Keyring(tmp_path / "keys")
    payload = Payload.of(value)
    frame = payload.to_frame(
        key="k", version=1, compression="none", trust=trust, history=CompressionHistory()
    )
    again = Payload.of_frame(memoryview(b"".join(frame.segments)), key="k").to_host(trust)
    assert type(payload.content) is type(again.content)
    assert payload.codec == again.codec == "tree"
    assert abs(payload.size - again.size) < 64
    for one in (payload, again):
        assert identical(value, one.open(trust))
        assert identical(value, one.open_shared(trust))
        copy = one.open_copy(trust)
        assert identical(value, copy)
        for array in copy.get("x", ()):
            array[:] = 0
        assert identical(value, one.open(trust))


def test_what_contains_itself_or_is_deep_is_refused_as_ever() -> None:
    """The short way ends, and leaves both to the general one, which knows the error."""
    cyclic: list[Any] = [1]
    cyclic.append({"deep": cyclic})
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for value, message in ((cyclic, "contains itself"), (deep, "nested deeper")):
        assert codecs.own_plain(value) is None
        with pytest.raises(UnsupportedTypeError, match=message):
            Payload.of(value)
    doubled: Any = [1]
    for _ in range(40):
        doubled = [doubled, doubled]
    assert type(Payload.of(doubled)) is HeldPayload


def test_what_is_packed_is_nested_little() -> None:
    """Reading it takes a frame of the stack per level, and the general way takes none."""
    value: Any = 1
    for _ in range(16):
        value = [value]
    assert type(Payload.of(value)) is PackedPayload
    assert type(Payload.of([value])) is HeldPayload


@pytest.mark.parametrize("tier", ["hot", "warm"])
def test_readers_of_a_manager_get_objects_of_their_own(tier: str) -> None:
    """Also with a time to live, and after the value was on the disk."""
    value = {"a": 1, "b": [1, 2, 3]}
    with MemoryManager("1 MB", "1 MB") as manager:
        manager.store("k", value, tier)
        manager.store("ends", value, tier, ttl=3600)
        value["b"].append(4)  # type: ignore[attr-defined]
        for key in ("k", "ends"):
            manager.retrieve(key)["b"].append(5)
            assert {"a": 1, "b": [1, 2, 3]} == manager.retrieve(key)
            assert {"a": 1, "b": [1, 2, 3]} == manager.retrieve(key, copy=True)
            assert {"a": 1, "b": [1, 2, 3]} == manager.retrieve(key, copy=False)
            for other in ("cold", tier):
                manager.migrate(key, other)
                assert {"a": 1, "b": [1, 2, 3]} == manager.retrieve(key)


def test_a_codec_of_the_program_is_used() -> None:
    """Also for a type that would be plain; in a process of its own, since it stays registered."""
    code = """
import numpy as np
from memories import codecs
for kind, value in ((dict, {"a": 1}), (list, [1]), (np.ndarray, np.arange(3))):
    assert codecs.own_plain(value) is not None
    codecs.register_codec(kind, name=f"mine.{kind.__name__}", encode=repr, decode=eval)
    assert codecs.own_plain(value) is None
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=240)
