"""Servers of Redis, and servers and proxies that speak no more than RESP2."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from tests.support.waiting import until

from memories import DistributedMemoryManager
from memories.cluster.local import LocalGroup, LocalServer
from memories.cluster.local import server as local_server

pytestmark = pytest.mark.server
REDIS = shutil.which("redis-server")


def everything_works(nodes: list[str]) -> None:
    """Store, read, delete and repair, small values and a large one."""
    with DistributedMemoryManager("5MB", "50MB", "50MB", nodes=nodes, migration=False) as manager:
        values = {f"key{number}": number for number in range(300)}
        manager.store_many_distributed(values)
        manager.store_distributed("large", np.arange(300_000))
        assert values == manager.retrieve_many_distributed(values)
        assert 299_999 == manager.retrieve_distributed("large")[-1]
        manager.store_distributed("key1", [1])
        assert [1] == manager.retrieve_distributed("key1")
        manager.delete_distributed("key1")
        assert manager.retrieve_distributed("key1", None) is None
        assert [] == manager.repair().unreadable
        assert all(state["up_to_date"] for state in manager.get_node_status().values())


@pytest.mark.skipif(REDIS is None, reason="no redis-server is installed here")
def test_servers_of_redis_do_what_those_of_valkey_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Debian has Redis 7: the same commands, and a server that restarts empty is refilled."""
    monkeypatch.setattr(local_server, "server_binary", lambda: Path(str(REDIS)))
    with LocalGroup(tmp_path, 3) as group:
        everything_works(group.names)
        with DistributedMemoryManager(
            "5MB", "5MB", "5MB", nodes=group.names, migration=False
        ) as manager:
            status = manager.get_node_status()
            group.servers[0].restart()
            until(lambda: all(s["up_to_date"] for s in manager.get_node_status().values()))
            assert all(7 <= int(state["version"].split(".")[0]) for state in status.values())
            assert 299 == manager.retrieve_distributed("key299")


def test_servers_without_resp3_and_tracking_are_used(tmp_path: Path) -> None:
    """As old servers and many proxies: repeated reads ask the nodes, and all else is the same."""
    with ExitStack() as stack:
        servers = []
        for number in range(3):
            folder = tmp_path / str(number)
            folder.mkdir()
            arguments = ("--rename-command", "HELLO", "")
            servers.append(stack.enter_context(LocalServer(folder, arguments=arguments)))
        everything_works([server.name for server in servers])
