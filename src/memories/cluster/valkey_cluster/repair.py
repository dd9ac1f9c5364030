"""Repairs the copies on a Valkey Cluster: damage on one node that another node has undamaged.

Copying to replicas is done by the Cluster itself. A register or chunk that is damaged anywhere is
written to its primary again, and the primary passes it on to the replicas.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from memories.cluster.client import scripts
from memories.cluster.client.node import Node
from memories.cluster.client.resp import ReplyError
from memories.cluster.manifest import ChunkManifest
from memories.cluster.register_copy import RegisterCopy, read_copy
from memories.cluster.register_format import key_of
from memories.cluster.repair_report import RepairReport
from memories.cluster.repair_walk import ChunkRepairCounts, chunks_to_repair
from memories.cluster.run_script import replace_copy, run_script
from memories.cluster.valkey_cluster.shards import Shards
from memories.cluster.valkey_cluster.slots import Shard
from memories.cluster.versions import RegisterVersion
from memories.errors import CorruptDataError, UnavailableError


class ClusterRepair:
    """The part of a repair that is particular to a Valkey Cluster."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards
        self._by_primary = {shard.primary: shard for shard in shards.slot_map.all_shards()}

    def nodes(self) -> Sequence[Node]:
        """Return the primary of every shard."""
        return [self._shards.node(name) for name in self._by_primary]

    def repair_registers(
        self, node: Node, names: Sequence[bytes], report: RepairReport, *, deep: bool
    ) -> Iterator[tuple[bytes, RegisterCopy]]:
        """Repair the copies of registers found on a primary; see `ReplicaRepair`."""
        shard = self._by_primary[node.name]
        for name in names:
            report.keys += 1
            copies = self._read_copies(shard, name, report)
            sound = [copy for copy in copies if copy is not None]
            if not sound:
                report.add_unreadable(key_of(name))
                continue
            newest = max(sound, key=lambda copy: copy.version)
            if len(sound) < len(copies) and newest.data is not None:
                self._rewrite(node, name, newest.data, report)
            yield name, newest

    def repair_chunks(self, manifest: ChunkManifest, *, deep: bool) -> ChunkRepairCounts:
        """Write chunks that are damaged or missing on a node again; see `ReplicaRepair`."""
        mended = 0
        buffer = memoryview(bytearray(manifest.chunk_bytes))
        for chunk in chunks_to_repair(manifest):
            shard = self._shards.shard_of(chunk.name)
            nodes = [self._shards.node(name) for name in shard.nodes]
            if deep:
                sound = [one for one in nodes if chunk.is_sound(one, buffer)]
            else:
                sound = [one for one in nodes if one.call("STRLEN", chunk.name) == chunk.nbytes]
            if len(sound) == len(nodes):
                continue
            if not sound or not chunk.is_sound(sound[0], buffer):
                raise CorruptDataError(f"no node has a sound copy of chunk {chunk.name.decode()}")
            primary = self._shards.node(shard.primary)
            primary.call("SET", chunk.name, buffer[: chunk.nbytes])
            mended += 1
        return ChunkRepairCounts(mended=mended)

    def drop_tombstone(self, name: bytes, version: RegisterVersion) -> bool:
        """Remove a tombstone from its primary, and so from the replicas."""
        primary = self._shards.node(self._shards.shard_of(name).primary)
        return bool(run_script(primary, scripts.DROP, [name], version.text))

    def _read_copies(
        self, shard: Shard, name: bytes, report: RepairReport
    ) -> list[RegisterCopy | None]:
        """Return the copy of a register on each node that answers, None where it is damaged."""
        copies: list[RegisterCopy | None] = []
        for node in shard.nodes:
            try:
                reply = self._shards.node(node).call("GET", name)
                copies.append(read_copy(name, reply, whole=True))
            except CorruptDataError:
                copies.append(None)
            except (UnavailableError, ReplyError) as error:
                report.silent[node] = str(error)
        return copies

    def _rewrite(self, primary: Node, name: bytes, data: bytes, report: RepairReport) -> None:
        """Write a register to its primary again, which copies it to all replicas."""
        try:
            there = primary.call("GET", name) or b""
            report.mended += replace_copy(primary, name, there, data)
        except (UnavailableError, ReplyError) as error:
            report.silent[primary.name] = str(error)
