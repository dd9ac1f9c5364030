"""Plain values in registers: exact in type and bits, and never mistaken for frames."""

from __future__ import annotations

import math
import struct
from collections import OrderedDict

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from memories.cluster.plain_body import MOST_BYTES, is_plain, pack_plain, read_plain
from memories.codecs import encode
from memories.errors import CorruptDataError
from memories.frames.writer import pack

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(), st.binary(), st.text()
)


CONTAINERS = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1),
        st.floats(allow_nan=False), st.binary(max_size=20), st.text(max_size=20),
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=20,
)  # fmt: skip


@given(st.lists(CONTAINERS, max_size=5) | st.dictionaries(st.text(max_size=5), CONTAINERS))
def test_a_list_or_dict_of_plain_values_comes_back_exactly(value: object) -> None:
    """With the types, and the order of the keys; what MessagePack would change is a frame."""
    body = pack_plain(value)
    assume(body is not None)
    assert body is not None
    assert is_plain(memoryview(body))
    assert repr(value) == repr(read_plain(memoryview(body)))


def test_each_read_makes_a_new_object() -> None:
    """Changing one changes neither what is stored nor what others read."""
    cart: dict[str, list[int]] = {"cart": [1]}
    body = pack_plain(cart)
    assert body is not None
    read_plain(memoryview(body))["cart"].append(2)
    cart["cart"].append(3)
    assert {"cart": [1]} == read_plain(memoryview(body))


@given(SCALARS)
def test_a_plain_value_comes_back_exactly(value: object) -> None:
    """In type and bits: a NaN has a payload, and -0.0 a sign."""
    body = pack_plain(value)
    if body is None:
        assert isinstance(value, str)  # With a surrogate.
        return
    assert is_plain(memoryview(body))
    got = read_plain(memoryview(body))
    assert type(value) is type(got)
    if isinstance(value, float):
        assert struct.pack("<d", value) == struct.pack("<d", got)
    else:
        assert value == got


@pytest.mark.parametrize(
    "value",
    [
        2**63, bytes(MOST_BYTES), "x" * MOST_BYTES, "\ud800", (1,), bytearray(b"x"), 1j,
        [(1,)], [2**64], [1j], {1: 2}, {"\ud800": 1}, ["x" * 300], [bytes(200)] * 400, [{1}],
        OrderedDict(a=1),
    ],
)  # fmt: skip
def test_everything_else_is_a_frame(value: object) -> None:
    """A type of the user, a large value or one without an exact form keeps its codec."""
    assert pack_plain(value) is None


def test_a_subclass_is_a_frame() -> None:
    """It has a type of its own, which must come back."""

    class Name(str):
        __slots__ = ()

    assert pack_plain(Name("x")) is None
    assert pack_plain(math.inf) is not None


def test_a_frame_is_not_taken_for_a_plain_value() -> None:
    """Both may be the body of a register."""
    frame = pack(encode([1, 2]), key="key", version=1)
    assert not is_plain(memoryview(b"".join(frame.segments)))
    assert not is_plain(memoryview(b""))


@pytest.mark.parametrize(
    "body",
    [
        b"ix",
        b"f123",
        b"nx",
        b"s\xff",
        b"z",
        b"",
        b"m",
        b"m\x01",
        b"m\xdd\xff\xff\xff\xff",
        b"m\x91\xd4\x05a",
        b"m\x81\x01\x02",
        b"m" + b"\x91" * 60_000,
        b"m\x90\x90",
        b"m\x91\xa1\xff",
    ],
)
def test_a_body_that_was_not_made_here_is_an_error_of_ours(body: bytes) -> None:
    """And not a `ValueError` of Python in the middle of a read."""
    with pytest.raises(CorruptDataError):
        read_plain(memoryview(body))
