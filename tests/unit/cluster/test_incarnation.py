"""Incarnations as nodes store them."""

from __future__ import annotations

import pytest

from memories.cluster.incarnation import UP, Incarnation, read_incarnation


@pytest.mark.parametrize("text", [None, b"", b"up", b"up:run", b"xx:run:1", b"up:run:one"])
def test_a_damaged_incarnation_is_read_as_none(text: bytes | None) -> None:
    """A node with a damaged incarnation counts as one that restarted."""
    assert read_incarnation(text) is None
    assert Incarnation(UP, "run", 3) == read_incarnation(Incarnation(UP, "run", 3).text)
