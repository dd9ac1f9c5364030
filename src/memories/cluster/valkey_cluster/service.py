"""The service over a Valkey Cluster: slot map, registers, chunks, and maintenance.

The Cluster itself does replication and failover. The slot map is refreshed on a schedule and after
every redirection or failure, so that most calls reach the right node at once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from memories.cluster.client.address import NodeAddress
from memories.cluster.client.node import Node
from memories.cluster.near_cache.invalidation import ListenerQuorum
from memories.cluster.node_service import NodeService
from memories.cluster.repair_report import RepairReport
from memories.cluster.repair_walk import RepairWalk
from memories.cluster.status import cluster_node_status
from memories.cluster.valkey_cluster.chunks import ClusterChunks
from memories.cluster.valkey_cluster.redundancy import Redundancy, count_missing
from memories.cluster.valkey_cluster.registers import ClusterRegisters
from memories.cluster.valkey_cluster.repair import ClusterRepair
from memories.cluster.valkey_cluster.shards import Shards
from memories.cluster.valkey_cluster.topology import Topology
from memories.cluster.versions import VersionMaker
from memories.errors import InvalidOptionError
from memories.foundation.clock import Clock
from memories.progress import Progress

_REFRESH_SECONDS = 1.0
_OWN_TOOL = (
    "the nodes are a Valkey Cluster, whose nodes are added and removed by valkey-cli --cluster; "
    "the manager notices the change by itself"
)


class ClusterService(NodeService):
    """A Valkey or Redis Cluster, or a primary that Sentinels watch.

    Raises:
        UnavailableError: too few nodes answer.
        InvalidOptionError: a primary has too few replicas, or a node may evict values.
    """

    def __init__(
        self,
        topology: Topology,
        copies: int,
        clock: Clock,
        allow_eviction: bool,
        strict: bool,
    ) -> None:
        super().__init__(clock)
        self.shards = Shards(
            topology, copies, monotonic=clock.monotonic, allow_eviction=allow_eviction
        )
        self._refreshed_at = 0.0
        self.redundancy = Redundancy(self.shards, strict=strict)
        self.registers = ClusterRegisters(
            self.shards, self.redundancy, VersionMaker(clock.wall), self.pause
        )
        self.chunks = ClusterChunks(self.shards, self.redundancy, self.workers.submit, self.pause)
        try:
            self.shards.bootstrap()
        except BaseException:
            self.close()
            raise

    def look_after(self) -> None:
        """Refresh the slot map, more often while nodes fail."""
        sound = all(node.usable for node in self.all_nodes())
        wait = _REFRESH_SECONDS if sound else _REFRESH_SECONDS / 4
        if self.clock.monotonic() >= self._refreshed_at + wait:
            self._refreshed_at = self.clock.monotonic()
            self.shards.refresh()
            self.redundancy.refresh()

    def nodes(self) -> Iterable[Node]:
        """Return all primaries."""
        return self.shards.primaries()

    def all_nodes(self) -> Iterable[Node]:
        """Return the primaries and the replicas."""
        return self.shards.all_nodes()

    def listener_quorums(self) -> Iterable[ListenerQuorum]:
        """Return a set for every primary, because only it reports the writes to its slots."""
        return [ListenerQuorum((node.name,), 1) for node in self.shards.primaries()]

    def status(self) -> dict[str, dict[str, Any]]:
        """Return the state of each node, by its name."""
        states = self._ask_status(lambda node: cluster_node_status(node, self.clock.monotonic))
        shards = self.shards.slot_map.all_shards()
        count_missing(states, shards, self.redundancy.wanted)
        for shard in shards:
            if shard.primary in states:
                short = self.redundancy.short_writes(shard.primary)
                states[shard.primary]["short_writes"] = short
        return states

    def repair(self, progress: Progress | None, *, deep: bool) -> RepairReport:
        """Repair damage that another node has undamaged, remove garbage, and return the report."""
        self.shards.refresh()
        walk = RepairWalk(ClusterRepair(self.shards), self.clock.wall, pause=self.pause, deep=deep)
        return walk.run(progress)

    def change_members(
        self,
        add: Sequence[NodeAddress],
        remove: Collection[str],
        *,
        lost: bool,
        progress: Progress | None,
    ) -> None:
        """Refuse: see the message."""
        raise InvalidOptionError(_OWN_TOOL)

    def abandon_change(self) -> None:
        """Refuse: see the message."""
        raise InvalidOptionError(_OWN_TOOL)

    def disconnect(self) -> None:
        """Close all connections."""
        self.shards.close()
