"""The byte format of registers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memories.cluster.register_copy import read_copy
from memories.cluster.register_format import (
    RegisterKind,
    key_of,
    pack_register,
    read_header,
    read_register,
    register_name,
)
from memories.cluster.versions import RegisterVersion
from memories.errors import CorruptDataError

VERSIONS = st.builds(RegisterVersion, st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
KEYS = st.text(min_size=1, max_size=20).filter(lambda key: "\0" not in key).map(str)


def encodable(key: str) -> bool:
    """Return whether a text can be a key."""
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True


@given(KEYS.filter(encodable), VERSIONS, st.binary(max_size=300), st.integers(0), st.integers(0, 7))
def test_every_flipped_bit_of_a_register_is_found(
    key: str, version: RegisterVersion, body: bytes, place: int, bit: int
) -> None:
    """A header with a wrong version would replace newer values, or be replaced by older ones."""
    name = register_name(key)
    assert key == key_of(name)
    data = bytearray(b"".join(pack_register(name, version, RegisterKind.VALUE, [memoryview(body)])))
    assert read_header(name, bytes(data)) == (version, RegisterKind.VALUE)
    assert read_register(name, bytes(data)) == (version, RegisterKind.VALUE, body)
    data[place % len(data)] ^= 1 << bit
    with pytest.raises(CorruptDataError):
        read_copy(name, bytes(data), whole=True)
    data[place % len(data)] ^= 1 << bit
    with pytest.raises(CorruptDataError):
        read_header(register_name(key + "x"), bytes(data))
