"""Real nodes for tests: plain servers, a Valkey Cluster, and proxies that misbehave.

`tests/nodes/conftest.py` imports these for the tests beside it; others import them by name.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from tests.support.nodes import certificates
from tests.support.nodes.proxy import NodeProxy, in_front_of
from tests.support.waiting import comes_true

from memories.cluster.client.resp import ReplyError
from memories.cluster.local import LocalGroup, LocalServer
from memories.cluster.local.group import is_formed
from memories.errors import UnavailableError

PRIMARIES = 3
PLAIN_NODES = 3
GIVE_BACK_SECONDS = 3.0  # Then it is quicker to make another Cluster.


@pytest.fixture
def plain_nodes(tmp_path: Path) -> Iterator[LocalGroup]:
    """Three plain servers, fresh and empty; `.servers` and `.names`."""
    folder = tmp_path / "nodes"
    folder.mkdir()
    with LocalGroup(folder, PLAIN_NODES) as group:
        yield group


@pytest.fixture
def node(tmp_path: Path) -> Iterator[LocalServer]:
    """One plain server, fresh and empty."""
    folder = tmp_path / "node"
    folder.mkdir()
    with LocalServer(folder) as server:
        yield server


class _SharedCluster:
    """One cluster for many tests, made anew only after one of them has broken it."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._group: LocalGroup | None = None

    def get(self) -> LocalGroup:
        if self._group is None or not self._emptied(self._group):
            self.close()
            try:
                self._group = self._formed()
            except UnavailableError:  # On a machine that stalls again and again.
                self.close()
                self._group = self._formed()
        return self._group

    def close(self) -> None:
        self._stack.close()
        self._group = None

    def _formed(self) -> LocalGroup:
        folder = tempfile.mkdtemp(prefix="memories-cluster-")
        self._stack.callback(shutil.rmtree, folder, ignore_errors=True)
        return self._stack.enter_context(LocalGroup(Path(folder), PRIMARIES, replicas=1))

    def _emptied(self, group: LocalGroup) -> bool:
        try:
            for server in group.servers[:PRIMARIES]:
                if b"role:slave" in server.call("INFO", "replication"):  # type: ignore[operator]
                    server.call("CLUSTER", "FAILOVER")  # A test has let its replica take over.
            if not comes_true(lambda: is_formed(group.servers, PRIMARIES), GIVE_BACK_SECONDS):
                return False
            for server in group.servers[:PRIMARIES]:
                server.call("FLUSHALL")
        except (UnavailableError, ReplyError):
            return False
        return True


@pytest.fixture(scope="session")
def _shared_cluster() -> Iterator[_SharedCluster]:
    shared = _SharedCluster()
    yield shared
    shared.close()


@pytest.fixture
def cluster_nodes(_shared_cluster: _SharedCluster) -> LocalGroup:
    """Three primaries and their three replicas, empty; a test may break it at will.

    The first three of `.servers` are the primaries. No replica takes over from one that only
    stalls: see `fail_after`.
    """
    group = _shared_cluster.get()
    fail_after(20.0, group.servers)
    return group


def fail_after(seconds: float, servers: Sequence[LocalServer]) -> None:
    """Set how long a server of a Cluster may be silent before these ones say that it failed."""
    for server in servers:
        server.call("CONFIG", "SET", "cluster-node-timeout", int(1000 * seconds))


@pytest.fixture
def in_front() -> Iterator[Callable[..., NodeProxy]]:
    """A function that puts a proxy in front of a port; it has no faults at first."""
    with contextlib.ExitStack() as stack:
        yield lambda port, context=None: stack.enter_context(in_front_of(port, context))


@pytest.fixture
def node_proxy(node: LocalServer) -> Iterator[NodeProxy]:
    """A proxy in front of one server."""
    with in_front_of(node.port) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def certs(tmp_path_factory: pytest.TempPathFactory) -> certificates.Certificates:
    """Throw-away certificates for this run."""
    return certificates.make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def tls_node(node: LocalServer, certs: certificates.Certificates) -> Iterator[NodeProxy]:
    """A server behind TLS that accepts any client; `certs.file("ca.pem")` is its authority."""
    with in_front_of(node.port, certs.server_context()) as proxy:
        yield proxy
