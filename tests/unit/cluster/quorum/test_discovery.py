"""Member lists, as nodes store them."""

from __future__ import annotations

from typing import Any

import msgspec
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
    "name",
    ["evil", "evil:x", "evil:0", "evil:99999", "a b:1", "\x1b[2J:1", "<script>:1", "\u202e:1", "",
     "a:1:2", "[::1:5", "x" * 10 + "\n:5", "unix:///run/\x07"],
)  # fmt: skip
@pytest.mark.parametrize("field", ["nodes", "coming", "lost"])
def test_a_name_that_is_no_address_is_damage(name: str, field: str) -> None:
    """It would be shown to people, and connected to."""
    rest = {"epoch": 1, "copies": 1, "nodes": ["good.example:7001", "[::1]:1", "unix:///run/x"]}
    assert read_member_list(msgspec.json.encode(rest)) is not None
    assert read_member_list(msgspec.json.encode({**rest, field: [name]})) is None


@pytest.mark.parametrize(
    "text",
    [
        None,
        b"",
        b"{}",
        b"\xff",
        b'{"epoch":1,"copies":2,"nodes":[],"more":1}',
        b'{"epoch":-1,"copies":2,"nodes":["a:1"]}',
        b'{"epoch":1,"copies":0,"nodes":["a:1"]}',
        7,
    ],
)
def test_a_damaged_member_list_is_read_as_none(text: Any) -> None:
    """A node with a damaged list is asked as one that has none."""
    assert read_member_list(text) is None
