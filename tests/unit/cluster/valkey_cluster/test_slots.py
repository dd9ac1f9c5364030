"""Slots and views of a Cluster, with redis-py as the judge of which slot a name falls into."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from memories.cluster.valkey_cluster.slots import (
    Shard,
    SlotMap,
    group_by_shard,
    hidden_replicas,
    read_members,
    slot_of,
)
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


def test_replicas_that_a_slot_map_hides_are_counted() -> None:
    """CLUSTER NODES lists them from the start; failed ones, and those of others, do not count."""
    reply = b"""\
p1 10.0.0.1:6379@16379,host myself,master - 0 0 1 connected 0-8191
p2 10.0.0.2:6379@16379 master - 0 1 2 connected 8192-16383
r1 10.0.0.3:6379@16379 slave p1 0 1 1 connected
r2 10.0.0.4:6379@16379 slave,fail p1 0 1 1 disconnected
r3 10.0.0.5:6379@16379 slave p2 0 1 2 connected
not a node
"""
    members = read_members(reply)
    assert ["p1", "p2", "r1", "r2", "r3"] == [one.id for one in members]
    assert [True, True, False, False, False] == [one.is_primary for one in members]
    assert 1 == hidden_replicas(members, Shard("10.0.0.1:6379"))
    assert 0 == hidden_replicas(members, Shard("10.0.0.1:6379", ("10.0.0.3:6379",)))
    assert 1 == hidden_replicas(members, Shard("10.0.0.2:6379"))
    assert 0 == hidden_replicas(members, Shard("10.0.0.9:6379"))
