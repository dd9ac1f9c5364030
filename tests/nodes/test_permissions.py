"""A user with the documented permissions, and no more, can do everything."""

from __future__ import annotations

import numpy as np
import pytest

from memories import DistributedMemoryManager
from memories.cluster.client.address import NodeAddress
from memories.cluster.client.connection import Connection
from memories.cluster.local import LocalGroup
from memories.cluster.permissions import missing_permissions, needed_permissions

pytestmark = pytest.mark.server


def allow(group: LocalGroup, commands: list[str]) -> None:
    """Make a user on every node who may run these commands on our keys."""
    rules = [f"+{name}" for name in commands]
    for server in group.servers:
        server.call("ACL", "SETUSER", "app", "reset", "on", ">pw", "~m:*", *rules)


def connect(group: LocalGroup) -> Connection:
    """Return a connection of that user to the first node."""
    return Connection(NodeAddress("127.0.0.1", group.servers[0].port, user="app", password="pw"))


@pytest.mark.parametrize("clustered", [False, True])
def test_the_documented_permissions_are_enough(
    clustered: bool, request: pytest.FixtureRequest
) -> None:
    """An operator who grants no more than is documented must not find out later what is missing."""
    group = request.getfixturevalue("cluster_nodes" if clustered else "plain_nodes")
    allow(group, needed_permissions(clustered=clustered))
    login = {"user": "app", "password": "pw"}
    with DistributedMemoryManager(
        "5MB", "50MB", "50MB", nodes=group.names, node_options=login, migration=False
    ) as manager:
        manager.store_distributed("large", np.arange(400_000))
        manager.store_distributed("large", np.arange(500_000))
        manager.store_distributed("list", [1, "two"])
        manager.store_many_distributed({f"many{number}": number for number in range(300)})
        assert 499_999 == manager.retrieve_distributed("large")[-1]
        assert [1, "two"] == manager.retrieve_distributed("list")
        assert 300 == len(manager.retrieve_many_distributed(manager.scan_distributed("many")))
        manager.delete_distributed("list")
        assert [] == manager.repair().unreadable
        assert all(state["up_to_date"] for state in manager.get_node_status().values())
        manager._service.maintain()
    with connect(group) as connection:
        assert [] == missing_permissions(connection, clustered=clustered)


def test_a_missing_permission_is_found(plain_nodes: LocalGroup) -> None:
    """By its name in an ACL, so that it can be granted."""
    needed = needed_permissions(clustered=False)
    allow(plain_nodes, [name for name in needed if name not in ("unlink", "script|load")])
    with connect(plain_nodes) as connection:
        assert ["unlink", "script|load"] == missing_permissions(connection, clustered=False)
    allow(plain_nodes, needed)
    with connect(plain_nodes) as connection:
        assert [] == missing_permissions(connection, clustered=False)
