"""Chunks on plain servers: the manager itself writes each chunk to enough nodes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from memories.cluster.chunks import ChunkPlacement, ChunkStore, NodeTransfer
from memories.cluster.client.node import Node
from memories.cluster.manifest import ChunkManifest
from memories.cluster.reasons import join_reasons
from memories.errors import ReplicationError
from memories.foundation.worker_pool import Task

_MOST_RESTORED = 4096


class QuorumChunks(ChunkStore):
    """Writes `copies` copies of each chunk, in the order in which the chunk prefers the nodes.

    Args:
        placement: Returns where chunks may be, as of now.
        submit: Runs a function with its arguments in another thread.
        restore: Brings the chunks of a value to enough nodes that answer.
    """

    def __init__(
        self,
        placement: Callable[[], ChunkPlacement],
        submit: Callable[..., Task[Any]],
        restore: Callable[[ChunkManifest], None],
    ) -> None:
        super().__init__(submit)
        self._current_placement = placement
        self._restore = restore
        # The uploads that were restored, with the nodes that were failing.
        self._restored: set[tuple[bytes, frozenset[str]]] = set()

    def placement(self) -> ChunkPlacement:
        """Return where chunks may be, as of now."""
        return self._current_placement()

    def plan_write(self, names: Sequence[bytes]) -> _QuorumWritePlan:
        """Return the plan of a write of chunks that have these names."""
        return _QuorumWritePlan(self.placement(), names)

    def read_some(self, manifest: ChunkManifest, views: Mapping[int, memoryview]) -> None:
        """Read as `ChunkStore` does; while nodes fail, copy in the background what they had.

        Raises:
            CorruptDataError: a chunk is damaged or missing on every node that may have it.
            UnavailableError: no sound copy of a chunk can be reached.
        """
        super().read_some(manifest, views)
        placement = self.placement()
        failing = frozenset(name for name, node in placement.nodes.items() if not node.usable)
        work = manifest.upload.id, failing
        if not failing or work in self._restored:
            return
        if len(self._restored) >= _MOST_RESTORED:
            self._restored.clear()
        self._restored.add(work)
        names = manifest.upload.names()
        if any(failing.intersection(placement.rank(one)[: placement.copies]) for one in names):
            self._submit(self._restore, manifest)

    def nodes_of(self, names: Sequence[bytes]) -> Sequence[Sequence[Node]]:
        """Return all nodes for each chunk, because a copy may be on any of them."""
        return [list(self.placement().nodes.values())] * len(names)


class _QuorumWritePlan:
    """Sends each chunk to the nodes that it prefers, and to the next ones where a node fails."""

    def __init__(self, placement: ChunkPlacement, names: Sequence[bytes]) -> None:
        self._copies = placement.copies
        self._untried = [
            [node for node in placement.usable_first(name) if node.usable or node.due]
            for name in names
        ]
        self._missing = dict.fromkeys(range(len(names)), placement.copies)  # Copies, by chunk.
        self._reasons: dict[str, str] = {}

    def next_targets(self) -> dict[Node, list[int]]:
        """Return the chunks to send to each node; an empty dict once all are on enough nodes.

        Raises:
            ReplicationError: for one of them too few nodes are left to try.
        """
        targets: dict[Node, list[int]] = defaultdict(list)
        for index, missing in self._missing.items():
            left = [node for node in self._untried[index] if node.name not in self._reasons]
            if len(left) < missing:
                reasons = join_reasons(self._reasons, otherwise="too few nodes answer")
                raise ReplicationError(
                    f"the value could not be stored on {self._copies} nodes: {reasons}; nothing "
                    "has changed: what was stored before is still there, and the parts written "
                    "are removed"
                )
            for node in left[:missing]:
                targets[node].append(index)
                self._untried[index].remove(node)
        return targets

    def record(self, transfer: NodeTransfer) -> None:
        """Record the result of sending to one node."""
        if transfer.reason:
            self._reasons[transfer.node.name] = transfer.reason
        for index in transfer.done:
            self._missing[index] -= 1
            if not self._missing[index]:
                del self._missing[index]
