"""Every codec of the package under `CodecTests`, and all values that hypothesis can think of."""

from __future__ import annotations

import copyreg
import datetime as dt
import decimal
import json
import pathlib
import subprocess
import uuid
import zoneinfo
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memories import codecs
from memories.codecs.content_hash import content_hash
from memories.errors import UnsupportedTypeError
from memories.testing import strategies
from memories.testing.codecs import COMPRESSIONS, CodecTests, identical, through_frame


class TestScalars(CodecTests):
    """Python's own immutable types."""

    values = (
        None,
        True,
        0,
        -(2**63),
        2**63,
        -(2**1000),
        1.5,
        float("nan"),
        -0.0,
        1j,
        "",
        "ä😀\0",
        "\ud800",
        "x" * 100_000,
        b"",
        bytes(range(256)) * 100,
        ...,
        NotImplemented,
        decimal.Decimal("1.20"),
        dt.datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")),
        dt.datetime(1, 1, 1),
        dt.date(9999, 12, 31),
        dt.time(1, 2, 3, 4, tzinfo=dt.UTC),
        dt.timedelta(-1, 5, 7),
        dt.timezone(dt.timedelta(hours=2), "name"),
        uuid.UUID(int=7),
        range(0, 2**100, 3),
        slice(None, 2**70, -1),
        pathlib.Path("/a/ä"),
        pathlib.PurePosixPath("."),
        pathlib.PureWindowsPath("C:\\x"),
    )


class TestBuffers(CodecTests):
    """Python's own mutable buffers."""

    values = (
        bytearray(),
        bytearray(b"abc"),
        memoryview(b""),
        memoryview(b"abcdef")[::2],
        memoryview(np.arange(12, dtype="i4").reshape(3, 4)),
    )


class TestTrees(CodecTests):
    """Containers in containers."""

    values = (
        [],
        {},
        (),
        [1, [2, [3, {"a": (4, None)}]]],
        list(range(5000)),
        ["x"] * 3000,
        {"state": {f"layer{i}": np.full((3, i), i, "f4") for i in range(40)}},
        {1: "int", "1": "str", (1, (2,)): "tuple", None: 0, b"k": 1, 2.5: 2},
        OrderedDict(b=1, a=2),
        Counter("abracadabra"),
        defaultdict(list, {"a": [1]}),
        defaultdict(None),
        deque([1, [2]], maxlen=5),
        {1, "a", (2, 3)},
        frozenset({frozenset({1})}),
        SimpleNamespace(a=1, b=[np.arange(3)]),
        strategies.Pair(1, [2]),
        strategies.Box(np.arange(3), "label", [strategies.FrozenBox({"x": 1})]),
        strategies.Colour.RED,
        strategies.ArrayAccess.READ | strategies.ArrayAccess.WRITE,
        [strategies.ArrayAccess(0), strategies.Colour.BLUE],
    )


RECORDS = np.array([(1.0, 2.0), (3.0, 4.0)], [("time", "f8"), ("value", "f8")])

OVERLAPPING = np.dtype({"names": ["a", "b"], "formats": ["i4", "i2"], "offsets": [0, 2]})


class TestArrays(CodecTests):
    """Plain arrays."""

    values = (
        np.array(3),
        np.zeros((0, 3)),
        np.zeros((3, 0), order="F"),
        np.arange(24.0).reshape(2, 3, 4),
        np.asfortranarray(np.arange(24).reshape(2, 3, 4)),
        np.arange(24)[::-2],
        np.broadcast_to(np.arange(3), (4, 3)),
        np.arange(5, dtype=">u2"),
        np.array(["2020-01-01", "NaT"], "M8[25s]"),
        np.array([1, 2], "m8"),
        np.array(["ä", "longer"]),
        np.array([b"a\0b", b""]),
        np.array([1, 2], "f2"),
        np.array([1, 2], np.longdouble),
        np.array([0x7FF8000000001234], "u8").view("f8"),
        np.zeros(3, np.dtype({"names": ["a", "b"], "formats": ["u1", "f8"]}, align=True)),
        np.zeros(2, [("p", [("x", "i4"), ("y", "S3", (2, 2))]), ("q", ">f4")]),
        RECORDS[["value", "time"]],
        RECORDS[["value"]],
        np.arange(3, dtype="i4").view(OVERLAPPING),
        np.zeros(2, np.dtype({"names": ["b", "a"], "formats": ["f8", "u1"], "offsets": [8, 0]})),
        np.zeros(2, [("\udcff", "i4")]),
        np.random.default_rng(0).random(300_000),
        np.zeros(3_000_000, "u1"),
    )


class TestKindsOfArrays(CodecTests):
    """Arrays that are more than bytes."""

    values = (
        np.array([1, "a", None, [2]], object),
        np.array([[1, None], ["x", 2.5]], object, order="F"),
        np.array(None, object),
        np.array([], object),
        np.ma.MaskedArray([1, 2, 3], mask=[0, 1, 0], fill_value=7, hard_mask=True),
        np.ma.MaskedArray(np.arange(4).reshape(2, 2)),
        np.float32(1.5),
        np.datetime64("2020-01-01T00:00", "s"),
        np.str_("a\0"),
        np.bytes_(b"a\0"),
        np.zeros(2, [("a", "i4")]).view(np.recarray),
        RECORDS[["value", "time"]][0],
        np.finfo("f4"),
        np.dtype("f4"),
        OVERLAPPING,
        np.dtype(object),
    )


def test_the_limits_of_an_integer_survive() -> None:
    """NumPy compares them by identity."""
    got = through_frame([np.iinfo("i2")])[0]
    assert (np.iinfo, np.iinfo("i2").dtype, 32767) == (type(got), got.dtype, got.max)


class TestVariableStrings(CodecTests):
    """NumPy's strings of variable width."""

    values = tuple(
        np.array(["a", "", "ä" * 100], kind)
        for kind in (
            (np.dtypes.StringDType(), np.dtypes.StringDType(coerce=False))
            if hasattr(np.dtypes, "StringDType")
            else ()
        )
    ) or (np.array(["a"]),)

    def test_the_order_is_kept(self) -> None:
        """As it is for arrays of any other dtype."""
        if not hasattr(np.dtypes, "StringDType"):
            pytest.skip("this NumPy has no variable-width strings")
        got = through_frame(np.asfortranarray(np.stack([self.values[0]] * 2)))
        assert got.flags.f_contiguous
        assert not got.flags.c_contiguous


@settings(max_examples=60)
@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), max_size=12),
    st.sampled_from(["absent", None, float("nan"), "missing"]),
    st.booleans(),
)
def test_every_array_of_texts_comes_back(texts: list[str], missing: Any, coerce: bool) -> None:
    """With whatever stands for a missing text, in two dimensions, too."""
    if not hasattr(np.dtypes, "StringDType"):
        pytest.skip("this NumPy has no variable-width strings")
    options = {} if missing == "absent" else {"na_object": missing}
    array = np.array([texts, texts[::-1]], np.dtypes.StringDType(coerce=coerce, **options))
    if options and texts:
        array[0, 0] = missing
    got = through_frame(array)
    assert not codecs.carries_code(codecs.encode(array).codec)
    assert (array.dtype.coerce, array.shape) == (got.dtype.coerce, got.shape)
    assert repr(array.dtype) == repr(got.dtype)
    assert all(map(identical, array.reshape(-1).tolist(), got.reshape(-1).tolist()))


class TaggedError(Exception):
    """Its constructor asks for something else than what it hands on."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code


class KeywordError(ValueError):
    """Its constructor takes no positional argument."""

    def __init__(self, *, code: int) -> None:
        super().__init__("bad")
        self.code = code


class PathError(OSError):
    """Its builtin base class splits its arguments into attributes."""

    def __init__(self, path: str) -> None:
        super().__init__(2, "gone", path)


class SlottedError(Exception):
    """Part of what it holds is in no dict."""

    __slots__ = ("place",)

    def __init__(self, place: int) -> None:
        super().__init__()
        self.place = place


@dataclass(frozen=True)
class FrozenError(Exception):
    """It refuses to have an attribute set."""

    code: int


class OwnError(Exception):
    """It says itself how it is pickled."""

    def __init__(self, code: int) -> None:
        self.code = code

    def __reduce__(self) -> Any:
        return OwnError, (self.code,)


def _raised(error: BaseException, cause: BaseException | None) -> BaseException:
    try:
        try:
            raise KeyError("inner")
        except KeyError:
            raise error from cause
    except BaseException as caught:
        caught.add_note("seen")
        return caught


class TestExceptions(CodecTests):
    """Exceptions, whatever their constructor wants."""

    raised = tuple(
        _raised(error, cause)
        for cause in (None, TaggedError(1, "cause"))
        for error in (
            TaggedError(5, "x"),
            KeywordError(code=3),
            PathError("/nowhere"),
            SlottedError(4),
            OwnError(8),
            OSError(2, "two", "/a", None, "/b"),
            UnicodeDecodeError("utf-8", b"abc", 0, 1, "bad"),
            SyntaxError("m", ("file", 1, 2, "text")),
            ModuleNotFoundError("x", name="q", path="p"),
            NameError("x", name="q"),
            StopIteration(5),
            ExceptionGroup("g", [TaggedError(1, "a"), KeywordError(code=1)]),
            json.JSONDecodeError("m", "text", 1),
            subprocess.CalledProcessError(3, ["a"], b"out"),
        )
    )
    values = (*raised, FrozenError(7), [TaggedError(1, "in a list")])

    def same(self, left: Any, right: Any) -> bool:
        """Compare arguments, attributes, notes, cause and context; tracebacks are not kept."""
        if not isinstance(left, BaseException):
            return left == right or (type(left) is list and self.same(left[0], right[0]))
        names = ("code", "place", "errno", "filename", "filename2", "name", "value", "__notes__")
        return (
            type(left) is type(right)
            and str(left) == str(right)
            and repr(left.args) == repr(right.args)
            and all(getattr(left, name, 0) == getattr(right, name, 0) for name in names)
            and self.same(left.__cause__, right.__cause__)
            and self.same(left.__context__, right.__context__)
            and left.__suppress_context__ == right.__suppress_context__
        )


def test_exceptions_survive_beside_a_package_that_pickles_them_in_its_own_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """dask imports tblib, which registers itself for every class of exceptions."""
    support = pytest.importorskip("tblib.pickling_support", reason="tblib is not installed")
    monkeypatch.setattr(copyreg, "dispatch_table", dict(copyreg.dispatch_table))
    monkeypatch.setitem(copyreg.dispatch_table, TaggedError, support.pickle_exception)
    error = TaggedError(5, "x")
    error.__context__ = error
    got = codecs.decode(codecs.freeze(codecs.encode(error)))
    assert (type(got), got.code, got.__context__) == (TaggedError, 5, got)


def test_an_exception_that_is_its_own_context_survives() -> None:
    """A cycle of causes is rare, and no reason to recurse for ever."""
    error, other = TaggedError(1, "a"), TaggedError(2, "b")
    error.__context__, other.__context__ = other, error
    got = through_frame(error)
    assert got is got.__context__.__context__
    assert 2 == got.__context__.code


def test_missing_strings_stay_missing() -> None:
    """A missing value of a string array is no text."""
    if not hasattr(np.dtypes, "StringDType"):
        pytest.skip("this NumPy has no variable-width strings")
    array = np.array(["a", np.nan], np.dtypes.StringDType(na_object=np.nan))
    got = through_frame(array)
    assert array.dtype == got.dtype
    assert [False, True] == list(np.isnan(got))


def test_bfloat16_and_its_kin_survive() -> None:
    """What `ml_dtypes` adds has no letter of its own in NumPy."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    for name in ("bfloat16", "float8_e4m3fn", "int4", "uint2"):
        array = np.array([0, 1, 1]).astype(getattr(ml_dtypes, name))
        got = through_frame(array)
        assert array.dtype == got.dtype
        assert array.tobytes() == got.tobytes()
        assert type(array[0]) is type(through_frame(array[1]))


class Demanding:
    """Pickle writes it down, and would call its `__new__` with too little."""

    def __new__(cls, value: int) -> Any:
        made: Any = super().__new__(cls)
        made.value = value
        return made


class DemandingTuple(tuple):
    """Pickle would hand the one tuple to a `__new__` that wants two numbers."""

    def __new__(cls, x: int, y: int) -> Any:
        return super().__new__(cls, (x, y))


@pytest.mark.parametrize("value", [Demanding(1), [Demanding(1)], DemandingTuple(1, 2)])
def test_what_pickle_could_not_make_again_is_refused(value: Any) -> None:
    """Before it is stored, and not when it is read and the original is gone."""
    with pytest.raises(UnsupportedTypeError, match="__getnewargs__"):
        codecs.own_value(value)


class Undescribed(codecs.Codec):
    """A codec whose description of a value is not plain data."""

    name = "tests.undescribed"

    def encode(self, value: Any) -> codecs.Parts:
        """Put the type itself into the description."""
        return codecs.Parts(self.name, {"kind": type(value)})

    def decode(self, parts: codecs.Parts, *, writable: bool = False) -> Any:
        """Never asked."""
        raise AssertionError


class Odd:
    """What it is for."""


def test_what_no_frame_can_describe_is_refused_at_once() -> None:
    """Else it would be taken, and stop a flush that comes much later."""
    codecs.register_codec(Odd, Undescribed())
    for value in (Odd(), [Odd()], (1, Odd())):
        with pytest.raises(UnsupportedTypeError, match="cannot be stored"):
            codecs.own_value(value)


@pytest.mark.parametrize(
    "value", [pathlib.PurePosixPath("a\udcff"), dt.timezone(dt.timedelta(1 / 24), "\udcff")]
)
def test_texts_that_are_no_unicode_survive_in_scalars(value: Any) -> None:
    """A file name of another encoding is a path like any other."""
    assert identical(value, through_frame(value))
    assert identical([value], through_frame([value]))


@settings(max_examples=250)
@given(strategies.values())
def test_whatever_is_stored_comes_back(value: Any) -> None:
    """Type for type and bit for bit, through parts, frames, and what a volatile tier holds."""
    parts = codecs.encode(value)
    assert not codecs.carries_code(parts.codec)
    assert identical(value, codecs.decode(codecs.freeze(parts)))
    for compression in COMPRESSIONS[:2]:
        assert identical(value, through_frame(value, compression))
    how, payload, _ = codecs.own_value(value)
    got = payload.open() if how is codecs.Sharing.FRESH else payload
    assert identical(value, got)


@settings(max_examples=100)
@given(strategies.arrays())
def test_a_master_is_locked_for_good(array: Any) -> None:
    """NumPy must refuse to unlock it, and every view that a reader could make of it."""
    master = codecs.freeze_array(array)
    assert identical(np.ascontiguousarray(array).reshape(array.shape), master) or (
        identical(np.asfortranarray(array), master)
    )
    for view in (master, master.view(), master[...], master.T, master[..., None]):
        with pytest.raises(ValueError, match="WRITEABLE"):
            view.setflags(write=True)


@settings(max_examples=150)
@given(strategies.values(max_leaves=6))
def test_equal_values_hash_equal(value: Any) -> None:
    """A copy that went through a frame is found under the same hash."""
    assert content_hash(value) == content_hash(through_frame(value))
