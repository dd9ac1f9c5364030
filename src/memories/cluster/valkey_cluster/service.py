"""The service over a Valkey Cluster: who serves what, and who looks after that knowledge.

Not the Cluster's own work: slots, replicas and failover are its business. The one idea: the view of
the Cluster is renewed on a schedule and after every surprise, so that calls mostly find it right.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from memories.cluster.client.address import NodeAddress
from memories.cluster.client.node import Node
from memories.cluster.near_cache.invalidation import ListenerQuorum
from memories.cluster.node_service import NodeService
from memories.cluster.repair_report import RepairReport
from memories.cluster.repair_walk import RepairWalk
from memories.cluster.status import cluster_node_status
from memories.cluster.store import FrameStore
from memories.cluster.valkey_cluster.chunks import ClusterChunks
from memories.cluster.valkey_cluster.registers import ClusterRegisters
from memories.cluster.valkey_cluster.repair import ClusterRepair
from memories.cluster.valkey_cluster.shards import Shards
from memories.cluster.versions import new_client
from memories.errors import InvalidOptionError
from memories.foundation.clock import Clock
from memories.progress import Progress

_REFRESH_SECONDS = 1.0
_OWN_TOOL = (
    "the nodes are a Valkey Cluster, which moves slots and takes in nodes by its own tool: "
    "valkey-cli --cluster; the manager notices by itself"
)


class ClusterService(NodeService):
    """A Valkey or Redis Cluster.

    Raises:
        UnavailableError: too few nodes answer.
        InvalidOptionError: a primary has too few replicas, or a node would lose data.
    """

    def __init__(
        self, seeds: Sequence[NodeAddress], copies: int, *, clock: Clock, allow_eviction: bool
    ) -> None:
        super().__init__(clock)
        self.shards = Shards(
            seeds, copies, monotonic=clock.monotonic, allow_eviction=allow_eviction
        )
        self._refreshed_at = 0.0
        self.registers = ClusterRegisters(self.shards, new_client(), clock, self.pause)
        self.chunks = ClusterChunks(self.shards, self.workers.submit, self.pause)
        self.store = FrameStore(self.registers, self.chunks, clock)
        try:
            self.shards.bootstrap()
            for node in self.shards.all_nodes():
                if node.usable:
                    self._probe(node, refuse_evicting=True)
        except BaseException:
            self.close()
            raise

    def maintain(self) -> None:
        """Probe nodes that failed, and renew the view of the Cluster."""
        failing = [node for node in self.shards.all_nodes() if not node.usable]
        for node in failing:
            if node.due:
                self.workers.submit(self._probe, node)
        wait = _REFRESH_SECONDS / 4 if failing else _REFRESH_SECONDS
        if self.clock.monotonic() >= self._refreshed_at + wait:
            self._refreshed_at = self.clock.monotonic()
            self.shards.refresh()

    def nodes(self) -> Iterable[Node]:
        """Return all primaries."""
        return self.shards.primaries()

    def listener_quorums(self) -> Iterable[ListenerQuorum]:
        """Return every primary by itself: no other one hears of the writes to its slots."""
        return [ListenerQuorum((node.name,), 1) for node in self.shards.primaries()]

    def status(self) -> dict[str, dict[str, Any]]:
        """Return what is known of each node, by its name."""
        return self._ask_status(
            self.shards.all_nodes(), lambda node: cluster_node_status(node, self.clock.monotonic)
        )

    def repair(self, progress: Progress | None, *, deep: bool) -> RepairReport:
        """Look at every value, mend what a replica has whole, and sweep garbage."""
        self.shards.refresh()
        walk = RepairWalk(ClusterRepair(self.shards), self.clock.wall, pause=self.pause, deep=deep)
        return walk.run(progress)

    def add_node(self, address: NodeAddress, progress: Progress | None) -> None:
        """Refuse: see the message."""
        raise InvalidOptionError(_OWN_TOOL)

    def remove_node(self, name: str, progress: Progress | None) -> None:
        """Refuse: see the message."""
        raise InvalidOptionError(_OWN_TOOL)

    def disconnect(self) -> None:
        """Close all connections."""
        self.shards.close()
