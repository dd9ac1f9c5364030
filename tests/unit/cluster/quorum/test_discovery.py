"""Member lists, as nodes store them."""

from __future__ import annotations

import pytest

from memories.cluster.quorum.discovery import pack_member_list, read_member_list
from memories.cluster.quorum.members import MemberList


def test_the_stored_form_of_a_member_list_does_not_change() -> None:
    """Managers of different versions read the same list."""
    stored = b'{"epoch":3,"copies":2,"nodes":["a:1","b:1"],"coming":["a:1","c:1"]}'
    member_list = MemberList(3, 2, ("a:1", "b:1"), ("a:1", "c:1"))
    assert stored == pack_member_list(member_list)
    assert member_list == read_member_list(stored)
    assert (("a:1", "b:1"), ("a:1", "c:1")) == member_list.lists
    assert ("a:1", "b:1", "c:1") == member_list.all_names


@pytest.mark.parametrize(
    "text", [None, b"", b"{}", b"\xff", b'{"epoch":1,"copies":2,"nodes":[],"more":1}']
)
def test_a_damaged_member_list_is_read_as_none(text: bytes | None) -> None:
    """A node with a damaged list is asked as one that has none."""
    assert read_member_list(text) is None
