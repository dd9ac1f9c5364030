"""Registers on a Valkey Cluster: one script on the slot's primary, then WAIT for its replicas."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from memories.cluster.client.node import Node
from memories.cluster.client.resp import ReplyError
from memories.cluster.client.scan import scan_node
from memories.cluster.limits import BATCH
from memories.cluster.reasons import join_reasons
from memories.cluster.register_api import (
    FoundRegister,
    Registers,
    WrittenRegister,
    found_register,
)
from memories.cluster.register_format import PREFIX, RegisterBody
from memories.cluster.settling import bury, vanish
from memories.cluster.valkey_cluster.read import NOT_ANSWERED, NOT_COPIED, ClusterRead, has_copy
from memories.cluster.valkey_cluster.redundancy import Redundancy
from memories.cluster.valkey_cluster.shards import Shards
from memories.cluster.valkey_cluster.slots import Shard, group_by_shard
from memories.cluster.valkey_cluster.write import ClusterWrite
from memories.cluster.versions import RegisterVersion, VersionMaker
from memories.errors import UnavailableError


class ClusterRegisters(Registers):
    """Registers that the Cluster replicates.

    Args:
        shards: The nodes, and which of them serves which slot.
        redundancy: Knows how many replicas must have a write.
        versions: Makes the versions of new values.
        pause: Waits for some seconds, and returns True once the service is being closed.
    """

    def __init__(
        self,
        shards: Shards,
        redundancy: Redundancy,
        versions: VersionMaker,
        pause: Callable[[float], bool],
    ) -> None:
        self._shards = shards
        self._reader = ClusterRead(shards, pause)
        self._writer = ClusterWrite(shards, redundancy, versions, pause)

    def read(
        self, names: Sequence[bytes], *, fetch: bool = True
    ) -> dict[bytes, FoundRegister | Exception | None]:
        """Return the content of each register; see `Registers`."""
        results: dict[bytes, FoundRegister | Exception | None] = {}
        for start in range(0, len(names), BATCH):
            replies = self._reader.read(names[start : start + BATCH], whole=fetch)
            for name, copy in replies.items():
                results[name] = copy if isinstance(copy, Exception) else found_register(copy)
        return results

    def write(
        self, bodies: Mapping[bytes, RegisterBody], *, if_version: int | None = None
    ) -> dict[bytes, WrittenRegister | Exception]:
        """Write each register; see `Registers`."""
        return self._writer.write(bodies, if_version)

    def settle(self, ended: Mapping[bytes, RegisterVersion]) -> set[bytes]:
        """Let tombstones vanish: the primary of their slot decides alone; see `Registers`."""
        done: set[bytes] = set()
        try:
            for shard, names in group_by_shard(self._shards.slot_map, list(ended)).items():
                node = self._shards.node(shard.primary)
                if node.usable:
                    some = {name: ended[name] for name in names}
                    stored = bury(node, some)
                    vanish(node, {name: some[name] for name in names if stored[name]})
                    done.update(names)
        except (UnavailableError, ReplyError):
            return done  # The node has noted why; a slot may have moved.
        return done

    def scan(self, prefix: bytes) -> Iterator[list[bytes]]:
        """Yield batches of names from the primary of each shard, or a replica; see `Registers`."""
        slot_map = self._shards.slot_map
        if not slot_map.whole:
            raise UnavailableError("the keys could not all be listed: no node serves some slots")
        for shard in slot_map.all_shards():
            yield from self._scan_shard(shard, PREFIX + prefix)

    def _scan_shard(self, shard: Shard, prefix: bytes) -> Iterator[list[bytes]]:
        reasons: dict[str, str] = {}
        for name in shard.nodes:
            node = self._shards.node(name)
            if not (node.usable or node.due):
                reasons[name] = node.last_error
                continue
            try:
                self._require_copy(node)
                yield from scan_node(node, prefix)
                return
            except (UnavailableError, ReplyError) as error:
                reasons[name] = str(error)
        raise UnavailableError(
            f"the keys could not all be listed: {join_reasons(reasons, otherwise=NOT_ANSWERED)}"
        )

    def _require_copy(self, node: Node) -> None:
        """Raise `UnavailableError` unless a node may say which keys there are.

        SCAN is answered by a node whose Cluster is down, too: a primary that has just restarted
        empty.
        """
        topology = self._shards.topology
        health, replication = node.pipeline([topology.health, ("INFO", "replication")], strict=True)
        if not (topology.is_healthy(health) and has_copy(replication)):
            raise UnavailableError(NOT_COPIED)
