"""Looks after what lies on a Cluster: damage that a replica can mend, and garbage.

Not replication, which the Cluster does itself. The one idea: what is damaged on a primary and whole
on a replica is written to the primary again, and from there it spreads.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence

from memories.cluster.client import scripts
from memories.cluster.client.node import Node
from memories.cluster.client.resp import ReplyError
from memories.cluster.client.scan import scan_node
from memories.cluster.deadlines import ORPHAN_SECONDS, TOMBSTONE_SECONDS
from memories.cluster.manifest import (
    ChunkManifest,
    chunk_sum,
    read_manifest,
    upload_of,
    upload_seconds,
)
from memories.cluster.register_copy import RegisterCopy, read_copy
from memories.cluster.register_format import (
    CHUNK_PREFIX,
    HEADER_BYTES,
    PREFIX,
    RegisterKind,
    key_of,
)
from memories.cluster.repair_report import RepairReport
from memories.cluster.valkey_cluster.registers import ClusterRegisters
from memories.cluster.valkey_cluster.shards import Shards
from memories.cluster.valkey_cluster.slots import Shard
from memories.errors import CorruptDataError, MemoriesError, UnavailableError
from memories.progress import Progress

_BATCH = 64  # Registers whose values may be in memory at once.


class ClusterRepair:
    """One walk over everything; the arguments are those of `repair.Repair`."""

    def __init__(
        self,
        shards: Shards,
        registers: ClusterRegisters,
        wall: Callable[[], float],
        *,
        pause: Callable[[float], bool],
        deep: bool = True,
        orphan_seconds: float = ORPHAN_SECONDS,
    ) -> None:
        self._shards = shards
        self._registers = registers
        self._pause = pause
        self._deep = deep
        self._began = wall()
        self._orphan_seconds = orphan_seconds
        self._live: set[bytes] = set()
        self.report = RepairReport()

    def run(self, progress: Progress | None = None) -> RepairReport:
        """Walk over all registers, then over all chunks, and return what was done."""
        shards = self._shards.slot_map.all_shards()
        total, done = sum(self._count(shard) for shard in shards), 0
        for shard in shards:
            for batch in self._names(shard, PREFIX):
                for start in range(0, len(batch), _BATCH):
                    self._look_at(shard, batch[start : start + _BATCH])
                done += len(batch)
                if progress is not None:
                    progress(min(done, total), total)
                if self._pause(0):
                    return self.report
        if not self.report.silent and not self.report.unreadable:
            for shard in shards:
                self._sweep(shard)
        if progress is not None:
            progress(total, total)
        return self.report

    def _count(self, shard: Shard) -> int:
        try:
            return int(self._primary(shard).call("DBSIZE"))
        except (UnavailableError, ReplyError) as error:
            self.report.silent[shard.primary] = str(error)
            return 0

    def _names(self, shard: Shard, prefix: bytes) -> Iterable[list[bytes]]:
        try:
            yield from scan_node(self._primary(shard), prefix)
        except (UnavailableError, ReplyError) as error:
            self.report.silent[shard.primary] = str(error)

    def _look_at(self, shard: Shard, names: Sequence[bytes]) -> None:
        copies = {name: self._copies(shard, name) for name in names}
        for name, replies in copies.items():
            self.report.keys += 1
            sound = {node: copy for node, copy in replies.items() if copy is not None}
            if not sound:
                self.report.add_unreadable(key_of(name))
                continue
            newest = max(sound.values(), key=lambda copy: copy.version)
            damaged = [node for node, copy in replies.items() if copy is None]
            if damaged and newest.data is not None:
                self._mend(shard, name, newest.data)
            self._look_into(name, newest)

    def _copies(self, shard: Shard, name: bytes) -> dict[str, RegisterCopy | None]:
        """Return what each node has of a register, None where it is damaged."""
        copies: dict[str, RegisterCopy | None] = {}
        for node in shard.nodes:
            try:
                copies[node] = read_copy(
                    name, self._shards.node(node).call("GET", name), whole=True
                )
            except CorruptDataError:
                copies[node] = None
            except (UnavailableError, ReplyError) as error:
                self.report.silent[node] = str(error)
        return copies

    def _mend(self, shard: Shard, name: bytes, data: bytes) -> None:
        """Write a register again, from where it spreads to the replicas that have it damaged."""
        try:
            primary = self._primary(shard)
            there = primary.call("GET", name) or b""
            command = scripts.SLOT_REPLACE.call([name], hashlib.sha1(there).hexdigest(), data)
            self.report.mended += int(primary.call(*command))
        except (UnavailableError, ReplyError) as error:
            self.report.silent[shard.primary] = str(error)

    def _look_into(self, name: bytes, copy: RegisterCopy) -> None:
        if copy.header is None:
            return
        if copy.header.kind is RegisterKind.TOMBSTONE:
            if copy.version.at_seconds < self._began - TOMBSTONE_SECONDS:
                primary = self._primary(self._shards.shard_of(name))
                dropped = primary.call(*scripts.DROP.call([name], copy.version.text))
                self.report.tombstones += int(dropped)
        elif copy.header.kind is RegisterKind.MANIFEST and copy.data is not None:
            try:
                manifest = read_manifest(memoryview(copy.data)[HEADER_BYTES:])
                self._live.add(manifest.upload.id)
                self._look_at_chunks(manifest)
            except MemoriesError as error:
                self.report.add_unreadable(key_of(name))
                self.report.silent.setdefault(key_of(name), str(error))

    def _look_at_chunks(self, manifest: ChunkManifest) -> None:
        buffer = memoryview(bytearray(manifest.chunk_bytes))
        spans = [stop - start for start, stop in manifest.spans()]
        for name, nbytes, total in zip(manifest.upload.names(), spans, manifest.sums, strict=True):
            shard = self._shards.shard_of(name)
            room = buffer[:nbytes]
            if not self._deep:
                sound = [n for n in shard.nodes if self._length(n, name) == nbytes]
            else:
                sound = [n for n in shard.nodes if self._is_sound(n, name, room, total)]
            if len(sound) == len(shard.nodes):
                continue
            if not sound or not self._is_sound(sound[0], name, room, total):
                raise CorruptDataError(f"no node has a sound copy of chunk {name.decode()}")
            self._primary(shard).call("SET", name, room)
            self.report.mended += 1

    def _length(self, node: str, name: bytes) -> int:
        return int(self._shards.node(node).call("STRLEN", name))

    def _is_sound(self, node: str, name: bytes, room: memoryview, total: int) -> bool:
        (reply,) = self._shards.node(node).pipeline([("GET", name)], into=[[room]], strict=True)
        return bool(reply == room.nbytes) and chunk_sum([room]) == total

    def _sweep(self, shard: Shard) -> None:
        for batch in self._names(shard, CHUNK_PREFIX):
            for name in batch:
                if self._is_orphan(name):
                    self.report.orphans += int(self._primary(shard).call("UNLINK", name))

    def _is_orphan(self, name: bytes) -> bool:
        upload = upload_of(name)
        try:
            age = self._began - upload_seconds(upload)
        except ValueError:
            return False  # Not a name of ours.
        return upload not in self._live and age > self._orphan_seconds

    def _primary(self, shard: Shard) -> Node:
        return self._shards.node(shard.primary)
