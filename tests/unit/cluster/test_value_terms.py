"""The terms of a value on the nodes, as its register has them."""

from __future__ import annotations

import pytest

from memories.cluster.value_terms import (
    NO_TERMS,
    TERMS_BYTES,
    ValueTerms,
    is_expired,
    read_expiry,
    split_terms,
)
from memories.errors import CorruptDataError


def body_of(terms: ValueTerms, content: bytes) -> memoryview:
    """Return the body of a register with these terms."""
    before, behind = terms.pack()
    return memoryview(bytes(before) + content + bytes(behind))


@pytest.mark.parametrize("terms", [NO_TERMS, ValueTerms(1_234), ValueTerms(9, b"meta")])
def test_terms_and_content_are_read_as_they_were_packed(terms: ValueTerms) -> None:
    """The beginning of a body is enough for the time at which it expires."""
    body = body_of(terms, b"content")
    read, content = split_terms(body)
    assert (terms, b"content") == (read, bytes(content))
    assert terms.expires_ms == read_expiry(body[:TERMS_BYTES])


def test_the_stored_form_of_terms_does_not_change() -> None:
    """Managers of different versions read the same values."""
    stored = bytes.fromhex("00000000000004d20000000491207e28") + b"content" + b"meta"
    assert stored == bytes(body_of(ValueTerms(1234, b"meta"), b"content"))


def test_damage_is_noticed() -> None:
    """A value must not seem to have expired because a bit was flipped."""
    body = bytearray(body_of(ValueTerms(1_234, b"meta"), b"content"))
    for place in range(TERMS_BYTES):
        damaged = bytearray(body)
        damaged[place] ^= 1
        with pytest.raises(CorruptDataError):
            read_expiry(bytes(damaged))
    for short in (b"", bytes(body[:10]), bytes(body[:TERMS_BYTES])):
        with pytest.raises(CorruptDataError):
            split_terms(memoryview(short))


def test_a_value_expires_at_its_time() -> None:
    """0 is never."""
    assert not is_expired(0, 1e12)
    assert not is_expired(5_001, 5.0)
    assert is_expired(5_000, 5.0)
