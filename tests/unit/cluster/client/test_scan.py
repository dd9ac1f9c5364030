"""Globs for the names on a node."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from memories.cluster.client.scan import pattern


@given(st.binary(max_size=8))
def test_a_prefix_matches_only_itself(prefix: bytes) -> None:
    """A key may contain any character that is special in a glob."""
    glob = pattern(prefix)
    assert glob.endswith(b"*")
    literal, escaped = bytearray(), False
    for sign in glob[:-1]:
        if sign == ord("\\") and not escaped:
            escaped = True
            continue
        assert escaped or sign not in b"*?[]\\^"
        literal.append(sign)
        escaped = False
    assert prefix == literal
