"""Chunks on a Valkey Cluster: spread over its slots, and replicated by the Cluster.

Every window of chunks is followed by WAIT on the same connection. Its reply says how many replicas
have the chunks, and waiting for it keeps the primary from getting far ahead of its replicas.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from memories.cluster.chunks import ChunkPlacement, ChunkStore, NodeTransfer
from memories.cluster.client.node import Node
from memories.cluster.client.resp import Command, Reply, ReplyError
from memories.cluster.manifest import ChunkManifest
from memories.cluster.reasons import join_reasons
from memories.cluster.valkey_cluster.redundancy import Redundancy
from memories.cluster.valkey_cluster.shards import Shards
from memories.cluster.valkey_cluster.write import WRITE_SECONDS, wait_command
from memories.errors import ReplicationError, UnavailableError
from memories.foundation.worker_pool import Task

_PAUSE_SECONDS = 0.1
_READ_SECONDS = 5.0


class ClusterChunks(ChunkStore):
    """Writes each chunk to the primary of its slot, and waits for the replicas.

    Args:
        shards: The nodes, and which of them serves which slot.
        redundancy: Knows how many replicas must have a write.
        submit: Runs a function with its arguments in another thread.
        pause: Waits for some seconds, and returns True once the service is being closed.
    """

    def __init__(
        self,
        shards: Shards,
        redundancy: Redundancy,
        submit: Callable[..., Task[Any]],
        pause: Callable[[float], bool],
    ) -> None:
        super().__init__(submit)
        self._shards = shards
        self._redundancy = redundancy
        self._pause = pause

    def placement(self) -> ChunkPlacement:
        """Return where chunks may be: on the primary of their slot, and on its replicas."""
        nodes: Mapping[str, Node] = {node.name: node for node in self._shards.all_nodes()}
        primaries = len(self._shards.slot_map.all_shards())
        return ChunkPlacement(
            nodes,
            lambda name: list(self._shards.shard_of(name).nodes),
            copies=1,
            receivers=primaries,
        )

    def plan_write(self, names: Sequence[bytes]) -> _ClusterWritePlan:
        """Return the plan of a write of chunks that have these names."""
        return _ClusterWritePlan(self._shards, names, self._pause)

    def confirmation(self, node: Node) -> Sequence[Command]:
        """Return the WAIT for the replicas of a primary."""
        return [wait_command(self._redundancy, node.name)]

    def doubt(self, node: Node, replies: Sequence[Reply]) -> str:
        """Return why the replicas of a primary do not have what it was sent."""
        (copies,) = replies
        if isinstance(copies, ReplyError):
            return str(copies)
        if self._redundancy.accepts(node.name, copies):
            return ""
        return f"{copies} of the {self._redundancy.wanted} replicas needed have it"

    def nodes_of(self, names: Sequence[bytes]) -> Sequence[Sequence[Node]]:
        """Return the primary of each chunk, which passes commands on to its replicas."""
        return [[self._shards.node(self._shards.shard_of(name).primary)] for name in names]

    def read_some(self, manifest: ChunkManifest, views: Mapping[int, memoryview]) -> None:
        """Read as `ChunkStore` does, and retry for some seconds while nodes fail over.

        Raises:
            CorruptDataError: a chunk is damaged or missing on every node that may have it.
            UnavailableError: no sound copy of a chunk can be reached.
        """
        end = self._shards.monotonic() + _READ_SECONDS
        while True:
            try:
                return super().read_some(manifest, views)
            except UnavailableError:
                if self._shards.monotonic() >= end or self._pause(_PAUSE_SECONDS):
                    raise
                self._shards.refresh()


class _ClusterWritePlan:
    """Sends each chunk to the primary of its slot, again after a failure until time is up."""

    def __init__(
        self, shards: Shards, names: Sequence[bytes], pause: Callable[[float], bool]
    ) -> None:
        self._shards = shards
        self._names = names
        self._pause = pause
        self._end = shards.monotonic() + WRITE_SECONDS
        self._left = set(range(len(names)))
        self._first = True
        self._reasons: dict[str, str] = {}

    def next_targets(self) -> dict[Node, list[int]]:
        """Return the chunks to send to each primary; an empty dict once all are stored.

        Raises:
            ReplicationError: time is up, or the service is being closed.
        """
        if self._left and not self._first:
            if self._shards.monotonic() >= self._end or self._pause(_PAUSE_SECONDS):
                raise ReplicationError(
                    f"the value could not be stored on {self._shards.copies} nodes: "
                    f"{join_reasons(self._reasons)}; nothing has changed: what was stored before "
                    "is still there, and the parts written are removed"
                )
            self._shards.refresh()
        self._first = False
        self._reasons = {}
        targets: dict[Node, list[int]] = {}
        for index in sorted(self._left):
            primary = self._shards.shard_of(self._names[index]).primary
            targets.setdefault(self._shards.node(primary), []).append(index)
        return targets

    def record(self, transfer: NodeTransfer) -> None:
        """Record the result of sending to one primary."""
        self._left.difference_update(transfer.done)
        if transfer.reason:
            self._reasons[transfer.node.name] = transfer.reason
