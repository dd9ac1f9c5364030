"""Slots and views of a Cluster, with redis-py as the judge of which slot a name falls into."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from memories.cluster.valkey_cluster.slots import Shard, SlotMap, group_by_shard, slot_of
from memories.errors import UnavailableError

REPLY = [
    [0, 8191, [b"10.0.0.1", 1, b"id", []], [b"10.0.0.2", 2, b"id", []]],
    [8192, 16383, [b"", 3, b"id", []]],
]


@given(st.one_of(st.binary(max_size=40), st.from_regex(rb"[ab{}]{0,12}", fullmatch=True)))
def test_a_name_falls_into_the_slot_that_the_servers_put_it_into(name: bytes) -> None:
    """A key may hold braces, which mean something to a Cluster and nothing to its user."""
    assert key_slot(name) == slot_of(name)


def test_a_view_says_which_node_serves_each_slot() -> None:
    """The primary comes first, and a node that names no host is the one that was asked."""
    view = SlotMap.read(REPLY, 7, asked="10.0.0.9")
    assert view.whole
    assert [Shard("10.0.0.1:1", ("10.0.0.2:2",)), Shard("10.0.0.9:3")] == view.all_shards()
    names = [b"m:r:%d" % number for number in range(100)]
    groups = group_by_shard(view, names)
    assert sorted(names) == sorted(name for group in groups.values() for name in group)
    assert all(
        (slot_of(name) < 8192) == (shard.primary == "10.0.0.1:1")
        for shard, group in groups.items()
        for name in group
    )


def test_an_unserved_slot_does_not_mean_an_absent_key() -> None:
    """Its keys are unknown."""
    view = SlotMap.read(REPLY[:1], 7, asked="x")
    assert not view.whole
    with pytest.raises(UnavailableError, match="serves slot"):
        group_by_shard(view, [b"%d" % number for number in range(100)])


def test_news_of_a_moved_slot_changes_that_slot_only() -> None:
    """MOVED replies report a failover slot by slot, until the whole map is fetched."""
    view = SlotMap.read(REPLY, 7, asked="10.0.0.9")
    after = view.with_moved(5, "10.0.0.2:2")
    assert Shard("10.0.0.2:2", ("10.0.0.1:1",)) == after.shards[5]
    assert view.shards[6] == after.shards[6]
    assert Shard("10.0.0.7:9") == view.with_moved(5, "10.0.0.7:9").shards[5]


@pytest.mark.parametrize("reply", [None, 5, [[1]], [[0, 9, [b"a"]]], [[0, 99999, [b"a", 1]]]])
def test_a_view_that_makes_no_sense_is_refused(reply: object) -> None:
    """A node that talks nonsense must not decide where values go."""
    with pytest.raises(UnavailableError):
        SlotMap.read(reply, 1, asked="x")
