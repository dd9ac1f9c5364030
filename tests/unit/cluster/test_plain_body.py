"""Plain values in registers: exact in type and bits, and never mistaken for frames."""

from __future__ import annotations

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memories.cluster.plain_body import MOST_BYTES, is_plain, pack_plain, read_plain
from memories.codecs import encode
from memories.errors import CorruptDataError
from memories.frames.writer import pack

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(), st.binary(), st.text()
)


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
    "value", [2**63, bytes(MOST_BYTES), "x" * MOST_BYTES, "\ud800", [1], (1,), bytearray(b"x"), 1j]
)
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


@pytest.mark.parametrize("body", [b"ix", b"f123", b"nx", b"s\xff", b"z", b""])
def test_a_body_that_was_not_made_here_is_an_error_of_ours(body: bytes) -> None:
    """And not a `ValueError` of Python in the middle of a read."""
    with pytest.raises(CorruptDataError):
        read_plain(memoryview(body))
