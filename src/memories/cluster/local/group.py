"""Several local servers at once: plain ones, or a Valkey Cluster of primaries and replicas.

Each step of forming a Cluster waits until the servers report it as done, so that a started group
is complete.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from memories.cluster.local.server import LocalServer
from memories.cluster.valkey_cluster.slots import SLOTS
from memories.errors import UnavailableError

FORM_SECONDS = 60.0
_LOOK_SECONDS = 0.02


class LocalGroup:
    """Servers in a folder, started together.

    Args:
        folder: Each server gets a folder of its own in it.
        count: How many plain servers, or how many primaries.
        replicas: None for plain servers; in a cluster, how many replicas each primary has.
        arguments: More of every server's command line.
        password: The password that clients must send; None for none.
    """

    def __init__(
        self,
        folder: Path,
        count: int,
        *,
        replicas: int | None = None,
        arguments: Sequence[str] = (),
        password: str | None = None,
    ) -> None:
        self.clustered = replicas is not None
        self._primaries = count
        self.servers: list[LocalServer] = []
        for number in range(count * (1 + (replicas or 0))):
            place = folder / f"node-{number}"
            place.mkdir(mode=0o700)
            self.servers.append(
                LocalServer(place, arguments=arguments, clustered=self.clustered, password=password)
            )

    @property
    def names(self) -> list[str]:
        """Return `host:port` of every server, for the `nodes` of a manager."""
        return [server.name for server in self.servers]

    def start(self, on_started: Callable[[], None] = lambda: None) -> None:
        """Start all servers and form the Cluster, if any; call `on_started` after every start.

        Raises:
            UnavailableError: one of them did not start; the others are stopped again.
        """
        try:
            for server in self.servers:
                server.start()
                on_started()
            if self.clustered:
                form_cluster(self.servers, self._primaries)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop all of them."""
        for server in self.servers:
            server.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()


@contextmanager
def local_nodes(count: int = 3, *, clustered: bool = False) -> Iterator[list[str]]:
    """Run real servers for as long as the block lasts, and yield their addresses.

    Args:
        count: How many servers; of a Cluster, how many primaries, each with one replica.
        clustered: Whether they form a Valkey Cluster.

    Raises:
        MissingPackageError: no server is installed.
        UnavailableError: one did not start.
    """
    folder = Path(tempfile.mkdtemp(prefix="memories-nodes-"))
    try:
        with LocalGroup(folder, count, replicas=1 if clustered else None) as group:
            yield group.names
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def form_cluster(servers: Sequence[LocalServer], primaries: int) -> None:
    """Form a Cluster of new servers: the first are primaries, the rest replicas.

    Raises:
        UnavailableError: that took too long.
    """
    for epoch, server in enumerate(servers, 1):
        server.call("CLUSTER", "SET-CONFIG-EPOCH", epoch)
    for server in servers[1:]:
        servers[0].call("CLUSTER", "MEET", "127.0.0.1", server.port)
    for number, server in enumerate(servers[:primaries]):
        first, last = number * SLOTS // primaries, (number + 1) * SLOTS // primaries - 1
        server.call("CLUSTER", "ADDSLOTSRANGE", first, last)
    _wait_until(
        lambda: all(_links(server) == len(servers) for server in servers), "did not all meet"
    )
    for number, server in enumerate(servers[primaries:]):
        primary = servers[number % primaries].call("CLUSTER", "MYID")
        assert isinstance(primary, bytes)
        server.call("CLUSTER", "REPLICATE", primary)
    _wait_until(lambda: is_formed(servers, primaries), "did not form a cluster")


def is_formed(servers: Sequence[LocalServer], primaries: int) -> bool:
    """Return whether all servers know that every slot is served, and all replicas are linked."""
    for number, server in enumerate(servers):
        state = _text(server, "CLUSTER", "INFO")
        if "cluster_state:ok" not in state or f"cluster_slots_ok:{SLOTS}" not in state:
            return False
        if _known(server) != len(servers):
            return False
        replication = _text(server, "INFO", "replication")
        if number >= primaries and "master_link_status:up" not in replication:
            return False
        if number < primaries and len(servers) > primaries and "state=online" not in replication:
            return False
    return True


def _known(server: LocalServer) -> int:
    """Return how many primaries and replicas of slots a server knows."""
    reply = server.call("CLUSTER", "SLOTS")
    assert isinstance(reply, list)
    return sum(len(served[2:]) for served in reply)


def _links(server: LocalServer) -> int:
    return _text(server, "CLUSTER", "NODES").count(" connected")


def _text(server: LocalServer, *command: str) -> str:
    reply = server.call(*command)
    assert isinstance(reply, bytes)
    return reply.decode()


def _wait_until(condition: Callable[[], bool], otherwise: str) -> None:
    end = time.monotonic() + FORM_SECONDS
    while not condition():
        if time.monotonic() > end:
            raise UnavailableError(f"the local servers {otherwise} within {FORM_SECONDS:.0f} s")
        time.sleep(_LOOK_SECONDS)
