"""When tombstones may vanish from plain servers: never while an older version could come back."""

from __future__ import annotations

import time

import pytest
from tests.nodes.test_replicas import manager_of
from tests.support.waiting import until

from memories.cluster.local import LocalGroup, LocalServer
from memories.cluster.quorum.settle import settle
from memories.cluster.register_format import RegisterKind, pack_register, register_name
from memories.cluster.versions import RegisterVersion

pytestmark = pytest.mark.server
NAME = register_name("key")
OLD, TOMBSTONE, NEWER = (RegisterVersion(counter, 1) for counter in (5, 6, 7))


def put(server: LocalServer, version: RegisterVersion, kind: RegisterKind) -> None:
    """Store a register on one node."""
    server.call("SET", NAME, b"".join(pack_register(NAME, version, kind)))


def lifetime(server: LocalServer) -> int:
    """Return the seconds after which the server removes the register; -1 for never."""
    seconds = server.call("TTL", NAME)
    assert isinstance(seconds, int)
    return seconds


def test_an_older_version_on_another_node_is_replaced_first(plain_nodes: LocalGroup) -> None:
    """Two nodes have the tombstone, and the third one missed it."""
    with manager_of(plain_nodes.names) as manager:
        members = manager._service.members  # type: ignore[attr-defined]
        one, two, third = plain_nodes.servers
        for server in (one, two):
            put(server, TOMBSTONE, RegisterKind.TOMBSTONE)
        put(third, OLD, RegisterKind.VALUE)
        assert {NAME} == settle(members, {NAME: TOMBSTONE})
        assert all(0 < lifetime(server) <= 300 for server in plain_nodes.servers)
        one.call("EXPIRE", NAME, 5)
        assert {NAME} == settle(members, {NAME: TOMBSTONE})
        assert lifetime(one) <= 5  # A repetition does not keep it for longer.


def test_nothing_vanishes_while_a_node_is_missing(plain_nodes: LocalGroup) -> None:
    """It may have an older version, and be the only node that has any, later."""
    with manager_of(plain_nodes.names) as manager:
        members = manager._service.members  # type: ignore[attr-defined]
        one, two, third = plain_nodes.servers
        third.pause()
        for server in (one, two):
            put(server, TOMBSTONE, RegisterKind.TOMBSTONE)
        assert set() == settle(members, {NAME: TOMBSTONE})
        assert [-1, -1] == [lifetime(server) for server in (one, two)]
        third.resume()


def test_a_newer_value_stays(plain_nodes: LocalGroup) -> None:
    """The key was stored again meanwhile, on some of the nodes so far."""
    with manager_of(plain_nodes.names) as manager:
        members = manager._service.members  # type: ignore[attr-defined]
        one, two, third = plain_nodes.servers
        put(one, NEWER, RegisterKind.VALUE)
        put(two, TOMBSTONE, RegisterKind.TOMBSTONE)
        assert {NAME} == settle(members, {NAME: TOMBSTONE})
        assert -1 == lifetime(one)
        assert NEWER.text == one.call("GETRANGE", NAME, 0, 31)
        assert [-1, -1] == [lifetime(server) for server in (two, third)]


def test_a_deleted_value_does_not_come_back_with_a_node_that_was_away(
    plain_nodes: LocalGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It hangs while keys are deleted, for longer than their tombstones would stay."""
    monkeypatch.setattr("memories.cluster.settling.RETAIN_SECONDS", 0.5)
    monkeypatch.setattr("memories.cluster.settling._RETRY_SECONDS", 0.1)
    keys = [f"key {number}" for number in range(30)]
    away = plain_nodes.servers[0]
    with manager_of(plain_nodes.names) as manager:
        manager.store_many_distributed(dict.fromkeys(keys, 1))
        away.pause()
        until(lambda: not manager.get_node_status()[away.name]["online"])
        assert 30 == manager.delete_many_distributed(keys)
        time.sleep(2.0)
        away.resume()
        assert dict.fromkeys(keys) == manager.retrieve_many_distributed(keys, None)
        until(lambda: not any(server.call("KEYS", "m:r:*") for server in plain_nodes.servers))
        assert dict.fromkeys(keys) == manager.retrieve_many_distributed(keys, None)
