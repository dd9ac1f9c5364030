"""The walk of a repair over all registers and then all chunks, for both kinds of replication.

Reads give correct values without it; it makes sure that the next failure finds enough copies. It
visits the registers of one node after the other, and removes garbage only if every node has
answered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from memories.cluster.client.node import Node
from memories.cluster.client.resp import ReplyError
from memories.cluster.client.scan import scan_node
from memories.cluster.limits import ORPHAN_SECONDS, REPAIR_BATCH, TOMBSTONE_SECONDS
from memories.cluster.manifest import (
    ChunkManifest,
    chunk_sum,
    read_manifest,
    upload_of,
    upload_seconds,
)
from memories.cluster.register_copy import RegisterCopy
from memories.cluster.register_format import (
    CHUNK_PREFIX,
    HEADER_BYTES,
    PREFIX,
    RegisterKind,
    key_of,
)
from memories.cluster.repair_report import RepairReport
from memories.cluster.value_terms import is_expired, split_terms
from memories.cluster.versions import RegisterVersion
from memories.errors import CorruptDataError, MemoriesError, UnavailableError
from memories.progress import Progress


class ChunkRepairCounts(NamedTuple):
    """What was done to the chunks of one value."""

    copied: int = 0
    mended: int = 0
    strays: int = 0
    refusals: Mapping[str, str] = {}  # Why a chunk is on too few nodes, by node.


class ChunkToRepair(NamedTuple):
    """A chunk, as a manifest names it."""

    name: bytes
    nbytes: int
    total: int  # Its checksum.

    def is_sound(self, node: Node, buffer: memoryview) -> bool:
        """Read a node's copy into `buffer`, and return whether it is sound; raises as a call."""
        view = buffer[: self.nbytes]
        (reply,) = node.pipeline([("GET", self.name)], into=[[view]], strict=True)
        return bool(reply == self.nbytes) and chunk_sum([view]) == self.total


def chunks_to_repair(manifest: ChunkManifest) -> Iterator[ChunkToRepair]:
    """Yield the chunks of a value."""
    lengths = [stop - start for start, stop in manifest.spans()]
    return map(ChunkToRepair, manifest.upload.names(), lengths, manifest.sums)


class ReplicaRepair(Protocol):
    """The part of a repair that depends on how copies are made."""

    def nodes(self) -> Sequence[Node]:
        """Return the nodes to visit; together they hold every register and every chunk."""

    def repair_registers(
        self, node: Node, names: Sequence[bytes], report: RepairReport, *, deep: bool
    ) -> Iterator[tuple[bytes, RegisterCopy]]:
        """Repair the copies of registers found on a node, and yield the newest copy of each.

        Registers that another node has yielded, or whose newest version is unknown, are left out.
        The copy of a manifest has all of its bytes, if any node could give them.
        """

    def repair_chunks(self, manifest: ChunkManifest, *, deep: bool) -> ChunkRepairCounts:
        """Repair the copies of the chunks of one value.

        Raises:
            UnavailableError: no node that answers has a sound copy of a chunk.
            CorruptDataError: no node has a sound copy of a chunk.
        """

    def drop_tombstone(self, name: bytes, version: RegisterVersion) -> bool:
        """Remove the tombstone of that version from all nodes; return whether any had it."""


class RepairWalk:
    """One walk over everything that is stored.

    Args:
        replicas: Repairs the copies of a register, and of the chunks of a value.
        wall: Seconds since the epoch.
        pause: Waits for some seconds, and returns True when the walk must end early.
        deep: Read every copy of every value and check it, instead of its presence only.
        orphan_seconds: How old a chunk that no manifest names must be to be removed.
    """

    def __init__(
        self,
        replicas: ReplicaRepair,
        wall: Callable[[], float],
        *,
        pause: Callable[[float], bool],
        deep: bool = True,
        orphan_seconds: float = ORPHAN_SECONDS,
    ) -> None:
        self._replicas = replicas
        self._pause = pause
        self._deep = deep
        self._began = wall()
        self._orphan_seconds = orphan_seconds
        self._live_uploads: set[bytes] = set()
        self._old_tombstones: dict[bytes, RegisterVersion] = {}
        self.report = RepairReport()

    def run(self, progress: Progress | None = None) -> RepairReport:
        """Visit all registers, then all chunks, and return what was done."""
        nodes = self._replicas.nodes()
        total, done = sum(map(self._count, nodes)), 0
        for node in nodes:
            for batch in self._names(node, PREFIX):
                for start in range(0, len(batch), REPAIR_BATCH):
                    self._visit_registers(node, batch[start : start + REPAIR_BATCH])
                done += len(batch)
                if progress is not None:
                    progress(min(done, total), total)
                if self._pause(0):
                    return self.report
        # A node that did not answer may hold the only manifest that names a chunk.
        if not self.report.silent and not self.report.unreadable:
            self._remove_garbage(nodes)
        if progress is not None:
            progress(total, total)
        return self.report

    def _count(self, node: Node) -> int:
        try:
            return int(node.call("DBSIZE"))
        except (UnavailableError, ReplyError) as error:
            self.report.silent[node.name] = str(error)
            return 0

    def _names(self, node: Node, prefix: bytes) -> Iterator[list[bytes]]:
        try:
            yield from scan_node(node, prefix)
        except (UnavailableError, ReplyError) as error:
            self.report.silent[node.name] = str(error)

    def _visit_registers(self, node: Node, names: Sequence[bytes]) -> None:
        found = self._replicas.repair_registers(node, names, self.report, deep=self._deep)
        for name, copy in found:
            if copy.header is None:
                continue
            if copy.header.kind is RegisterKind.TOMBSTONE:
                if copy.version.at_seconds < self._began - TOMBSTONE_SECONDS:
                    self._old_tombstones[name] = copy.version
            elif is_expired(copy.expires_ms, self._began):
                if copy.expires_ms / 1000 < self._began - TOMBSTONE_SECONDS:
                    self._old_tombstones[name] = copy.version
            elif copy.upload is not None:
                self._live_uploads.add(copy.upload.id)
                self._visit_chunks(name, copy)

    def _visit_chunks(self, name: bytes, copy: RegisterCopy) -> None:
        try:
            if copy.data is None:
                raise CorruptDataError("its manifest cannot be read")
            assert copy.header is not None
            body = memoryview(copy.data)[HEADER_BYTES:]
            if copy.header.kind.has_terms:
                _, body = split_terms(body)
            manifest = read_manifest(body)
            done = self._replicas.repair_chunks(manifest, deep=self._deep)
        except (MemoriesError, ReplyError) as error:
            self.report.add_unreadable(key_of(name))
            self.report.short += not isinstance(error, CorruptDataError)
            self.report.silent.setdefault(key_of(name), str(error))
            return
        if done.refusals:
            self.report.short += 1
            self.report.silent.update(done.refusals)
        self.report.chunks_copied += done.copied
        self.report.mended += done.mended
        self.report.strays += done.strays

    def _remove_garbage(self, nodes: Sequence[Node]) -> None:
        for name, version in self._old_tombstones.items():
            self.report.tombstones += self._replicas.drop_tombstone(name, version)
        for node in nodes:
            for batch in self._names(node, CHUNK_PREFIX):
                unlinks = [("UNLINK", name) for name in batch if self._is_orphan(name)]
                if unlinks:
                    self.report.orphans += sum(node.pipeline(unlinks, strict=True))

    def _is_orphan(self, name: bytes) -> bool:
        upload = upload_of(name)
        try:
            age = self._began - upload_seconds(upload)
        except ValueError:
            return False  # The name was not made by this package.
        return upload not in self._live_uploads and age > self._orphan_seconds
