"""A primary and two replicas that three Sentinels watch: it fails, and a replica takes over."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from tests.support.waiting import until

from memories import DistributedMemoryManager
from memories.cluster.client.connection import Connection
from memories.cluster.local import LocalServer
from memories.cluster.local.process import ServerProcess
from memories.cluster.local.server import free_port, server_binary
from memories.errors import InvalidOptionError, MemoriesError, UnavailableError

pytestmark = pytest.mark.server
TIERS = (0.01, 0.05, 0.1)
DOWN_SECONDS = 3.0  # No stall of a busy machine is a failure.
PASSWORD = "of-the-servers"


class Watched:
    """Three servers, of which the first is the primary at the beginning, and their Sentinels."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.servers = []
        for number in range(3):
            place = folder / f"server{number}"
            place.mkdir()
            options = ("--repl-diskless-sync-delay", "0")
            server = LocalServer(place, arguments=options, password=PASSWORD)
            self.servers.append(stack.enter_context(server))
        first = self.servers[0]
        for server in self.servers[1:]:
            server.call("REPLICAOF", "127.0.0.1", first.port)
            until(lambda: b"master_link_status:up" in server.call("INFO", "replication"))  # noqa: B023
        self.sentinels: list[tuple[int, ServerProcess]] = []
        for number in range(3):
            self.sentinels.append(self._sentinel(folder / f"sentinel{number}.conf", first.port))
            stack.callback(self.sentinels[-1][1].stop)
        until(lambda: all(self._complete(port) for port, _ in self.sentinels))

    @property
    def url(self) -> str:
        """Return the `nodes` of a manager."""
        hosts = ",".join(f"127.0.0.1:{port}" for port, _ in self.sentinels)
        return f"sentinel://:{PASSWORD}@{hosts}/values"

    def primary(self) -> LocalServer:
        """Return the server that the first Sentinel calls the primary."""
        with Connection(LocalServer(Path(), port=self.sentinels[0][0]).address) as connection:
            _, port = connection.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "values")
        return next(server for server in self.servers if server.port == int(port))

    def _sentinel(self, path: Path, watched: int) -> tuple[int, ServerProcess]:
        """Start a Sentinel; another process may bind the port after it was found free."""
        while True:
            port, process = self._spawn(path, watched)
            until(lambda: _answers(port) or not process.alive())  # noqa: B023
            if process.alive():
                return port, process

    def _spawn(self, path: Path, watched: int) -> tuple[int, ServerProcess]:
        port = free_port()
        path.write_text(
            f"port {port}\nbind 127.0.0.1\ndir {path.parent}\n"
            f"sentinel monitor values 127.0.0.1 {watched} 2\n"
            f"sentinel auth-pass values {PASSWORD}\n"
            f"sentinel down-after-milliseconds values {DOWN_SECONDS * 1000:.0f}\n"
            "sentinel failover-timeout values 3000\n"
        )
        flags = os.O_WRONLY | os.O_CREAT
        log = str(path.with_suffix(".log"))
        pid = os.posix_spawn(
            server_binary(),
            ["valkey-server", str(path), "--sentinel"],
            os.environ,
            file_actions=[(os.POSIX_SPAWN_OPEN, 1, log, flags, 0o600)],
            setpgroup=0,
        )
        return port, ServerProcess.of(pid)

    def _complete(self, port: int) -> bool:
        """Return whether a Sentinel knows both replicas and both other Sentinels."""
        try:
            with Connection(LocalServer(Path(), port=port).address) as connection:
                reply = connection.call("SENTINEL", "MASTER", "values")
        except MemoriesError:
            return False
        fields = dict(zip(reply[::2], reply[1::2], strict=True))
        return fields[b"num-slaves"] == fields[b"num-other-sentinels"] == b"2"


def _answers(port: int) -> bool:
    try:
        LocalServer(Path(), port=port).call("PING")
    except MemoriesError:
        return False
    return True


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    """Yield servers that Sentinels watch."""
    with ExitStack() as stack:
        yield Watched(tmp_path, stack)


def test_values_survive_a_failover_by_sentinels(watched: Watched) -> None:
    """What was acknowledged is on a replica, which is promoted; stores go on by themselves."""
    with DistributedMemoryManager(
        *TIERS, nodes=watched.url, migration=False, prefetch="off"
    ) as manager:
        values = {f"key{number}": number for number in range(50)}
        manager.store_many_distributed(values)
        manager.store_distributed("large", np.arange(300_000))
        manager.store_distributed("deleted", 1)
        manager.delete_distributed("deleted")
        states = manager.get_node_status()
        assert ["master", "slave", "slave"] == sorted(one["role"] for one in states.values())
        before = watched.primary()
        before.kill()
        assert values == manager.retrieve_many_distributed(values)  # By the replicas.
        until(lambda: stored(manager, "after"), 60.0)
        assert watched.primary() is not before
        assert values == manager.retrieve_many_distributed(values)
        assert np.array_equal(np.arange(300_000), manager.retrieve_distributed("large"))
        assert manager.retrieve_distributed("deleted", None) is None
        assert sorted([*values, "after", "large"]) == list(manager.scan_distributed())
        before.restart()  # It is made a replica.
        until(lambda: len(manager.get_node_status()) == 3, 60.0)
        assert [] == manager.repair().unreadable


def stored(manager: DistributedMemoryManager, key: str) -> bool:
    """Return whether a store is acknowledged."""
    try:
        manager.store_distributed(key, key)
    except UnavailableError:
        return False
    return True


def check_addresses(watched: Watched) -> None:
    """Check that wrong names have an error of ours, and that none shows the password."""
    wrong = watched.url.replace("/values", "/others")
    with pytest.raises(UnavailableError, match="do not say which server is 'others'") as raised:
        DistributedMemoryManager(*TIERS, nodes=wrong)
    assert PASSWORD not in str(raised.value)
    with pytest.raises(InvalidOptionError, match="sentinel://host1:26379"):
        DistributedMemoryManager(*TIERS, nodes="sentinel://host1:26379")
    with pytest.raises(InvalidOptionError, match="replication_factor=4"):
        DistributedMemoryManager(*TIERS, nodes=watched.url, replication_factor=4)
    with (
        DistributedMemoryManager(*TIERS, nodes=watched.url, replication_factor=3) as manager,
        pytest.raises(InvalidOptionError, match="Cluster"),
    ):
        manager.add_node("127.0.0.1:1")


def test_a_primary_that_the_sentinels_gave_up_acknowledges_nothing_alone(watched: Watched) -> None:
    """Its replicas follow another one: what it accepts is lost."""
    check_addresses(watched)
    with DistributedMemoryManager(
        *TIERS, nodes=[watched.url], near_cache=False, migration=False, prefetch="off"
    ) as manager:
        manager.store_distributed("key", "before")
        before = watched.primary()
        before.pause()
        try:
            until(lambda: watched.primary() is not before, 60.0)
            until(lambda: stored(manager, "key"), 60.0)
        finally:
            before.resume()
        time.sleep(0.2)
        assert "key" == manager.retrieve_distributed("key")
