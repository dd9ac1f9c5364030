"""Several local servers at once: plain ones, or a Valkey Cluster of primaries and replicas.

Not an operator of clusters: it forms one, once, on this machine. The one idea: every step waits for
what the servers themselves say, so that a group that was returned is whole.
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
from memories.errors import UnavailableError

SLOTS = 16_384
FORM_SECONDS = 30.0
_LOOK_SECONDS = 0.02


class LocalGroup:
    """Servers in a folder, started together.

    Args:
        folder: Where each gets a folder of its own.
        count: How many plain servers, or how many primaries.
        replicas: None for plain servers; in a cluster, how many replicas each primary has.
        arguments: More of every server's command line.
    """

    def __init__(
        self,
        folder: Path,
        count: int,
        *,
        replicas: int | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        self.clustered = replicas is not None
        self._primaries = count
        self.servers: list[LocalServer] = []
        for number in range(count * (1 + (replicas or 0))):
            place = folder / f"node-{number}"
            place.mkdir(mode=0o700)
            self.servers.append(LocalServer(place, arguments=arguments, clustered=self.clustered))

    @property
    def names(self) -> list[str]:
        """Return `host:port` of every server, as a manager is told."""
        return [server.name for server in self.servers]

    def start(self, on_started: Callable[[], None] = lambda: None) -> None:
        """Start all, and form the cluster if it is to be one; call `noted` after every start.

        Raises:
            UnavailableError: one of them did not come up; those that did are stopped again.
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
        """End all of them."""
        for server in self.servers:
            server.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()


@contextmanager
def local_nodes(count: int = 3, *, clustered: bool = False) -> Iterator[list[str]]:
    """Run real servers for as long as the block lasts, and give their addresses.

    Args:
        count: How many; of a cluster, how many primaries, each of which gets a replica.
        clustered: Whether they form a Valkey Cluster.

    Raises:
        MissingPackageError: no server is installed.
        UnavailableError: one did not come up.
    """
    folder = Path(tempfile.mkdtemp(prefix="memories-nodes-"))
    try:
        with LocalGroup(folder, count, replicas=1 if clustered else None) as group:
            yield group.names
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def form_cluster(servers: Sequence[LocalServer], primaries: int) -> None:
    """Make a cluster of servers that know of none: the first are primaries, the rest replicas.

    Raises:
        UnavailableError: they did not agree in time.
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
    """Return whether every slot is served, everybody knows, and every replica is in step."""
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
    """Return how many servers a server knows to serve slots, as primary or replica."""
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
