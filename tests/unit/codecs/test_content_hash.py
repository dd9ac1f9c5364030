"""`content_hash`: what differs in type, content or visible order differs, in any process."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import functools
import operator
import os
import pathlib
import random
import re
import subprocess
import sys
import threading
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple, NewType, TypeVar

import numpy as np
import pytest

from memories import UnsupportedTypeError
from memories.codecs import content_hash as content_hash_module
from memories.codecs import part_hash, value_hash
from memories.codecs.content_hash import content_hash
from memories.codecs.part_hash import BLOCK_BYTES, hash_part


class Colour(enum.Enum):
    """Two members."""

    RED = 1
    BLUE = 2


class Number(enum.IntEnum):
    """A member that equals an int."""

    ONE = 1


class Mode(enum.Flag):
    """Members that combine."""

    READ = 1
    WRITE = 2


@dataclasses.dataclass
class Point:
    """A dataclass."""

    x: Any


@dataclasses.dataclass
class Place:
    """Another of the same fields."""

    x: Any


@dataclasses.dataclass(slots=True)
class Slotted:
    """A dataclass without a dict."""

    x: Any


@dataclasses.dataclass
class Extended:
    """A dataclass that one test alone hashes."""

    x: Any


@dataclasses.dataclass
class Changing:
    """A class whose attributes are changed."""

    x: int
    rate: typing.ClassVar[float] = 0.1
    names: typing.ClassVar[list[str]] = []
    table: typing.ClassVar[dict[str, list[int]]] = {}

    def show(self) -> Any:
        """Read a global that is not defined yet."""
        return _defined_later  # type: ignore[name-defined]  # noqa: F821


class Row(NamedTuple):
    """A tuple with a name."""

    x: int


class Word(str):
    """A subclass of a builtin type."""


class Bag(set):  # type: ignore[type-arg]
    """A subclass of a container."""


class Box:
    """An ordinary class."""

    def __init__(self, content: Any) -> None:
        self.content = content

    def show(self) -> Any:
        """Return the content."""
        return self.content


T = TypeVar("T")
Metre = NewType("Metre", int)


def identity(x: Any) -> Any:
    """Return what was given."""
    return x


def successor(x: Any) -> Any:
    """Return one more."""
    return x + 1


def scaled(factor: int) -> Callable[[int], int]:
    """Return a closure."""
    return lambda x: x * factor


def different() -> list[Any]:
    """Return values of which no two may share a result."""
    texts: list[Any] = ["1", b"1", bytearray(b"1"), memoryview(b"1"), Word("1"), "", b"", "\ud800"]
    numbers: list[Any] = [
        1, 1.0, True, 0, 0.0, -0.0, float("nan"), float("inf"), 1j, complex(1, -0.0), 2**63, -1,
        2**200, decimal.Decimal("1"), decimal.Decimal("1.0"), np.int64(1), np.float64(1),
        np.float32(1), np.bool_(True), np.str_("1"), Number.ONE,
    ]  # fmt: skip
    containers: list[Any] = [
        None, ..., NotImplemented, [], (), {}, set(), frozenset(), [1], (1,), {1}, {1: 1},
        {1: True}, {True: 1}, {"a": 1, "b": 2}, {"b": 2, "a": 1}, {"o": {"a": 1, "b": 2}},
        {"o": {"b": 2, "a": 1}}, collections.OrderedDict(a=1, b=2),
        collections.OrderedDict(b=2, a=1), collections.defaultdict(int),
        collections.defaultdict(list), collections.Counter("ab"), collections.Counter("ba"),
        collections.deque([1]), collections.deque([1], 2), collections.deque([1], 3),
        types.SimpleNamespace(a=1), types.MappingProxyType({"a": 1}), Bag([1]), Bag([2]), Row(1),
        [1, True], [True, 1], [0.0], [-0.0], ["\ud800"], ["\ud801"], [2**64], [2**64 + 1],
        {1: 2, 3: 4}, {1: 3, 2: 4}, {"1"}, {b"1"}, {2**64}, {2**65},
        ["ab"], ["a", "b"], (1, (2,)), ((1,), 2), [{1, 2}], [{1, 3}],
    ]  # fmt: skip
    objects: list[Any] = [
        Colour.RED, Colour.BLUE, Mode.READ, Mode.WRITE, Mode.READ | Mode.WRITE, Point(1),
        Point(1.0), Place(1), Box(1), Box(2), pathlib.Path("a"), pathlib.PurePosixPath("a"),
        pathlib.PureWindowsPath("a"), dt.date(2024, 1, 1), dt.datetime(2024, 1, 1),
        dt.datetime(2024, 1, 1, tzinfo=dt.UTC), dt.datetime(2024, 1, 1, fold=1), dt.timedelta(1),
        re.compile("a"), re.compile("a", re.IGNORECASE), random.Random(1), random.Random(2),
        range(3), range(0, 3, 2), slice(1), slice(1, 2), ValueError("a"), ValueError("b"),
        np.random.default_rng(1), np.random.default_rng(2),
    ]  # fmt: skip
    kinds: list[Any] = [
        int, str, Box, Colour, list[int], list[str], dict[str, int], typing.List[int],  # noqa: UP006
        typing.Optional[int], typing.Optional[str], int | str, typing.Union[int, bytes],  # noqa: UP007, UP045
        Callable[[int], str], Callable[[str], str], Literal[1], Literal[True], Literal["1"],
        Annotated[int, 1], Annotated[int, 2], T, Metre, Any, tuple[int, ...], type[int],
    ]  # fmt: skip
    functions: list[Any] = [
        identity, successor, lambda x: x, lambda x: x + 1, scaled(2), scaled(3), len, max,
        functools.partial(identity, 1), functools.partial(identity, 2),
        functools.partial(successor, 1), functools.partial(identity, x=1), Box(1).show, Box(2).show,
        [1].index, [2].index, str.upper, str.lower, operator.itemgetter(1), operator.itemgetter(2),
        np.sum, np.mean, np.add, re,
    ]  # fmt: skip
    arrays: list[Any] = [
        np.array(1), np.array([1]), np.array([1], "f4"), np.array([1], ">i8"), np.array([[1]]),
        np.array([1], object), np.array([1.0], object), np.array([True], object), np.array(["1"]),
        np.array(["1"], object), np.array(["1"], "U3"), np.dtype("f4"), np.dtype("f8"),
        np.datetime64("2024-01-01"), np.datetime64("2024-01-01", "s"),
        np.ma.masked_array([1], [True]), np.ma.masked_array([1], [False]),
        np.array([(1, 2)], [("a", "i4"), ("b", "i4")]),
        np.array([(1, 2)], [("a", "i4"), ("c", "i4")]), np.array([identity], object),
        np.array([successor], object),
    ]  # fmt: skip
    return [*texts, *numbers, *containers, *objects, *kinds, *functions, *arrays]


def test_what_differs_has_another_hash() -> None:
    """Two arguments with one hash share a result, which is then wrong for one of them."""
    values = different()
    found: dict[str, Any] = {}
    for value in values:
        other = found.setdefault(content_hash(value), value)
        assert other is value, f"{value!r} and {other!r} are one"


def test_many_atoms_are_hashed_at_once_and_distinguished() -> None:
    """A million numbers are an ordinary argument; what no msgpack holds goes one by one."""
    for make in (list, tuple, set, dict.fromkeys, lambda items: np.array(items, object)):
        for odd in ("\ud800", 2**70, None, b"1"):
            items: list[Any] = [f"text {i}" for i in range(1000)]
            same = content_hash(make(items))
            assert same == content_hash(make(list(items)))
            assert same != content_hash(make([*items[:-1], odd]))
            assert content_hash(make([*items, odd])) == content_hash(make([*items, odd]))


def test_tables_are_identified_by_their_contents() -> None:
    """A frame is its columns, their order, their types, its index and its names."""
    pd = pytest.importorskip("pandas")
    frames = [
        pd.DataFrame({"a": [1], "b": [1]}), pd.DataFrame({"b": [1], "a": [1]}),
        pd.DataFrame({"a": [1.0], "b": [1]}), pd.DataFrame({"a": [1], "b": [1]}, index=[5]),
        pd.DataFrame({"a": [[1]]}), pd.DataFrame({"a": [(1,)]}), pd.Series([1]),
        pd.Series([1], name="x"), pd.Index([1]), pd.Categorical(["a"]),
        pd.Categorical(["a"], ["a", "b"]), pd.Timestamp("2024"), pd.Timestamp("2024", tz="UTC"),
        pd.NaT, pd.NA,
    ]  # fmt: skip
    assert len(frames) == len({content_hash(frame) for frame in frames})
    assert content_hash(frames[0]) == content_hash(frames[0].copy())


def looped(content: Any) -> Box:
    """Return an object that holds itself."""
    box = Box(content)
    box.itself = box  # type: ignore[attr-defined]
    return box


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ({"x", "yy", "zzz"}, {"zzz", "yy", "x"}),
        (Bag("abc"), Bag("cba")),
        (Box({"a", "b"}), Box({"b", "a"})),
        (looped(1), looped(1)),
        (scaled(3), scaled(3)),
        (np.array([[1], None], object), np.array([[1], None], object)),
        (["".join("ab"), "ab"], ["ab", "ab"]),
        ([shared := [1, 2], shared], [[1, 2], [1, 2]]),
    ],
)
def test_what_is_equal_has_one_hash(left: Any, right: Any) -> None:
    """Neither the order of a set nor what objects share is content."""
    assert content_hash(left) == content_hash(right)
    assert content_hash(looped(1)) != content_hash(looped(2))


def test_what_has_no_sound_hash_is_refused_by_name() -> None:
    """One key for all locks or files would be wrong for all but one of them."""
    with open(os.devnull) as file:  # noqa: PTH123 - any open file.
        for value, name in (
            (threading.Lock(), "lock"), (file, "TextIOWrapper"), (iter_of(3), "generator"),
            (object(), r"object\(\)"), (threading.local(), "local"),
        ):  # fmt: skip
            with pytest.raises(UnsupportedTypeError, match=name):
                content_hash([value])
            with pytest.raises(UnsupportedTypeError, match=name):
                content_hash(Box(value))


def iter_of(count: int) -> typing.Iterator[int]:
    """Yield numbers."""
    yield from range(count)


def below(depth: int, call: Callable[[], Any]) -> Any:
    """Return `call()` from so many frames further down."""
    return call() if depth == 0 else below(depth - 1, call)


def test_too_deep_says_whether_the_argument_is_or_the_caller() -> None:
    """The message of an error is true: a deep recursion has no deep arguments."""
    nested: list[Any] = []
    for _ in range(5000):
        nested = [nested]
    with pytest.raises(UnsupportedTypeError, match="nested too deeply"):
        content_hash(nested)
    nested = [1j]
    for _ in range(40):
        nested = [nested]
    free = sys.getrecursionlimit() - len(list(iter_frames()))
    with pytest.raises(RecursionError) as caught:
        below(free - 20, lambda: content_hash(nested))
    assert not isinstance(caught.value, UnsupportedTypeError)


def iter_frames() -> typing.Iterator[types.FrameType]:
    """Yield the frames on the stack."""
    frame: types.FrameType | None = sys._getframe()
    while frame is not None:
        yield frame
        frame = frame.f_back


def test_hashes_are_the_same_in_every_process() -> None:
    """A hash of the interpreter, an address or an order of its own would find nothing again."""
    script = (
        "import sys; sys.path[:0] = [sys.argv[1]]\n"
        "from test_content_hash import content_hash, different, scaled\n"
        "for value in [*different(), {'a', 'bb', 'ccc'}, scaled(7)]: print(content_hash(value))\n"
    )
    here = str(pathlib.Path(__file__).parent)
    runs = [
        subprocess.run(
            [sys.executable, "-c", script, here],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=240,
        ).stdout.split()
        for seed in ("1", "2")
    ]
    assert runs[0] == runs[1]
    assert len(different()) + 2 == len(runs[0])


KEPT = [
    ([1, 2.0, "a", None, True], "ebefb92271c6e031a1400f5593f5642e"),
    ({"rate": 0.1, "layers": [64, (64, b"x")]}, "16f253f7cb7baca77b152dd006ca4e12"),
    ({"image": np.arange(4.0), "width": 3}, "d1ca5cfc8156f184b50d2bfb1f51415b"),
    (np.arange(6, dtype="<i4").reshape(2, 3), "d8d850841a112ac294baf887b86c00d2"),
    ({3, 1, 2}, "22735774d10b491014d3ca2800e5ecc0"),
    (dt.date(2024, 2, 29), "3ebd03d69d91b86e89f72d0c052084d9"),
    (2**70, "b809d8f6e0b8b4540eeb1e3637bbb782"),
    (-0.0, "4ce1e431d252f1a7ba0f8ac9844e2ac0"),
    ("text", "278b29d3be24d9d6a61a055c2b600c99"),
    (
        {"train": {"x": np.arange(6.0).reshape(2, 3).T, "n": 2**64}},
        "d00fdb9de517c1640be93be33455c390",
    ),
    ((np.arange(3), [None, b"raw", 1.5], {"a", "b"}), "05acf80b73239174e47908f1d9fabce4"),
    (
        [np.float32(1.5), np.bool_(True), frozenset({1, 2.0}), "\ud800"],
        "91cc7b859f9158934549615196d1c14d",
    ),
    ([dt.timedelta(1), 2**63 - 1, -(2**63), 2**63, True, 1j], "e6aff2ab50d94c198326a891df992187"),
]


@pytest.mark.parametrize(("value", "kept"), KEPT)
def test_results_that_are_stored_are_found_again(value: Any, kept: str) -> None:
    """The hash of the arguments is a part of the keys of results, in every store."""
    assert kept == content_hash(value)


@pytest.mark.parametrize(
    "value", [*map(dt.timedelta, range(2)), *different()[7:28], b"1", np.float32(1), "\ud800"]
)
def test_a_scalar_has_the_hash_of_its_codec(value: Any) -> None:
    """Scalars take a shorter way."""
    hasher = content_hash_module._ValueHasher(True)
    short = hash_part(hasher, value)
    assert short is None or short == value_hash._hash_coded(hasher, value)
    assert (short is None) == (type(value) in (Number, np.str_))


@pytest.mark.parametrize("step", [1, 2])
def test_an_array_in_many_blocks_has_the_hash_of_its_copy(step: int) -> None:
    """One with gaps, or in another order, is hashed block by block."""
    array = np.random.default_rng(0).random((500, 301)).T[::step]
    assert not array.flags.c_contiguous
    assert array.nbytes > 2 * BLOCK_BYTES
    assert content_hash(np.ascontiguousarray(array)) == content_hash(array)


@pytest.mark.parametrize("code", ["g", "G"])
def test_unused_bytes_of_long_doubles_do_not_count(code: str) -> None:
    """They are left over from other values: equal arrays had different hashes."""
    clean = np.arange(6.0).astype(code).reshape(2, 3)
    used = clean.copy()
    if np.finfo(np.longdouble).nmant == 63:
        used.reshape(-1).view(np.uint8).reshape(-1, 16)[:, 10:] = 255
    assert (used == clean).all()
    assert content_hash(clean) == content_hash(used)
    assert content_hash(clean[0, 1]) == content_hash(used[0, 1])
    assert content_hash(clean) != content_hash(clean + 1)


def test_the_second_hash_of_a_structure_is_the_first() -> None:
    """Of a class that is known already, fewer questions are asked."""
    makes: list[Callable[[], Any]] = [
        lambda: Point([1]), lambda: Row(1), lambda: Slotted(1), lambda: Point(np.ones(2)),
        lambda: Row(2**70), lambda: Row("\ud800"), lambda: Row([1, {"a": 2}]),
        lambda: Point(Row(1)), lambda: Point({1, 2}), lambda: Row(np.ones(2)),
    ]  # fmt: skip
    for make in makes:
        for code in (True, False):
            first = []
            for value in (make(), [make()], {"x": make()}):
                part_hash.STRUCTURES.clear()
                first.append(content_hash(value, code=code))
            assert first == [
                content_hash(value, code=code) for value in (make(), [make()], {"x": make()})
            ]
    more, less = Extended([1]), Extended([1])
    more.beside = 2  # type: ignore[attr-defined]
    del less.x
    before = [content_hash(more), content_hash(less)]
    known = content_hash(Extended([1]))
    assert before == [content_hash(more), content_hash(less)]
    assert 3 == len({*before, known})


def test_a_class_that_was_changed_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hash of a class is kept, and checked by the objects that it refers to."""
    found = [content_hash(Changing(1))]
    monkeypatch.setitem(globals(), "_defined_later", 1)
    found.append(content_hash(Changing(1)))
    for name, value in (
        ("rate", 0.5), ("names", ["a"]), ("table", {"a": [1]}), ("show", lambda self: 2)
    ):  # fmt: skip
        monkeypatch.setattr(Changing, name, value)
        found.append(content_hash(Changing(1)))
        assert found[-1] == content_hash(Changing(1))
    Changing.names.append("b")
    found.append(content_hash(Changing(1)))
    Changing.table["a"].append(2)
    found.append(content_hash(Changing(1)))
    assert len(found) == len(set(found))
    monkeypatch.undo()
    assert content_hash(Changing(1)) == found[0]


def test_without_code_a_class_counts_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its hash is kept, too, until the name leads to another class or the file is another."""
    before = content_hash(Place(1), code=False)
    monkeypatch.setattr(Place, "show", identity, raising=False)
    assert before == content_hash(Place(1), code=False) != content_hash(Point(1), code=False)
    renamed = Place
    monkeypatch.setitem(globals(), "Place", Point)
    assert before != content_hash(renamed(1), code=False)
    monkeypatch.undo()
    assert before == content_hash(Place(1), code=False)
    monkeypatch.setitem(globals(), "__file__", "elsewhere.py")
    assert before != content_hash(Place(1), code=False)


def test_what_was_empty_counts_when_it_has_grown() -> None:
    """An empty container is compared by a glance, as long as it is the same, and empty."""
    before = content_hash(Changing(1))
    Changing.names.append("a")
    try:
        grown = content_hash(Changing(1))
    finally:
        Changing.names.clear()
    assert grown != before == content_hash(Changing(1))


def test_a_variable_of_a_closure_counts_when_it_has_changed() -> None:
    """A method closes over a variable: another object in the cell is another class."""
    limit = 1

    @dataclasses.dataclass
    class Local:
        x: int

        def over(self) -> bool:
            """Compare."""
            return self.x > limit

    before = content_hash(Local(1))
    assert before == content_hash(Local(1))
    limit = 2
    assert before != content_hash(Local(1))
    assert content_hash(Local(1)) == content_hash(Local(1))
