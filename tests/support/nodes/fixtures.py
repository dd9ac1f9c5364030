"""Real nodes for tests: plain servers, a Valkey Cluster, and proxies that misbehave.

`tests/nodes/conftest.py` imports these for the tests beside it; others import them by name.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.nodes import certificates
from tests.support.nodes.proxy import NodeProxy, in_front_of
from tests.support.waiting import comes_true

from memories.cluster.client.connection import Connection
from memories.cluster.client.resp import ReplyError
from memories.cluster.local import LocalGroup, LocalServer
from memories.cluster.local.group import is_formed
from memories.cluster.valkey_cluster import write
from memories.errors import UnavailableError

PRIMARIES = 3
PLAIN_NODES = 3
GIVE_BACK_SECONDS = 3.0  # Then it is quicker to make another Cluster.
# Instead of the limits of the client, in a package of `memories.cluster`. The first two are what a
# call loses by a node that hangs, once or twice.
PATIENT_LIMITS = {
    "client.latency.HEDGE_SECONDS": 1.6,
    "client.fanout.HEDGE_SECONDS": 1.6,
    "client.quick_round.HEDGE_SECONDS": 1.6,
    "client.latency.CONNECT_SECONDS": 2.5,
    "client.latency.PATIENCE_SECONDS": 2.5,
    "client.fanout.PATIENCE_SECONDS": 2.5,
    "client.opening._LATE_SECONDS": 2.5,
    "valkey_cluster.redundancy._ASK_SECONDS": 2.0,
    "valkey_cluster.redundancy._VALID_SECONDS": 10.0,
    "valkey_cluster.read.READ_SECONDS": 20.0,
    "valkey_cluster.write.WRITE_SECONDS": 30.0,
    "valkey_cluster.write.WAIT_SECONDS": 2.0,
}


@pytest.fixture(autouse=True)
def patient_clients(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Let a server stall for more than a second, as on a busy machine, before it counts as failed.

    Tests of the limits themselves have the mark `usual_limits`, or `usual_limits("HEDGE")` where
    only some of them matter.
    """
    mark = request.node.get_closest_marker("usual_limits")
    kept = () if mark is None else mark.args or ("SECONDS",)
    for name, seconds in PATIENT_LIMITS.items():
        if not any(word in name for word in kept):
            monkeypatch.setattr(f"memories.cluster.{name}", seconds)
    if "SECONDS" not in kept:
        defaults = Connection.__init__.__kwdefaults__
        for name in ("connect_seconds", "call_seconds"):
            monkeypatch.setitem(defaults, name, PATIENT_LIMITS["client.latency.PATIENCE_SECONDS"])
    write._encoded_wait.cache_clear()  # It holds one of them.
    yield
    write._encoded_wait.cache_clear()


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
            folder = tempfile.mkdtemp(prefix="memories-cluster-")
            self._stack.callback(shutil.rmtree, folder, ignore_errors=True)
            self._group = self._stack.enter_context(LocalGroup(Path(folder), PRIMARIES, replicas=1))
        return self._group

    def close(self) -> None:
        self._stack.close()
        self._group = None

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

    The first three of `.servers` are the primaries.
    """
    return _shared_cluster.get()


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
