"""Makes what lies on the nodes whole again: missing, damaged and stray copies, garbage, tombstones.

Not needed for correctness, which reads see to, but for the next fault to find enough copies. The
one idea: it walks over every node's registers, looks at each key once, and leaves alone what it is
not certain of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from memories.cluster.client import scripts
from memories.cluster.client.node import Node
from memories.cluster.client.resp import ReplyError
from memories.cluster.client.scan import scan_node
from memories.cluster.deadlines import ORPHAN_SECONDS, TOMBSTONE_SECONDS
from memories.cluster.manifest import (
    ChunkManifest,
    read_manifest,
    upload_of,
    upload_seconds,
)
from memories.cluster.quorum.chunk_repair import ChunkRepair
from memories.cluster.quorum.members import Members
from memories.cluster.quorum.registers import REPAIR_BATCH, QuorumRegisters
from memories.cluster.quorum.rules import RegisterQuery
from memories.cluster.register_format import (
    CHUNK_PREFIX,
    HEADER_BYTES,
    PREFIX,
    RegisterKind,
    key_of,
)
from memories.cluster.repair_report import RepairReport
from memories.cluster.versions import RegisterVersion
from memories.errors import CorruptDataError, MemoriesError, UnavailableError
from memories.progress import Progress


class QuorumRepair:
    """One walk over everything.

    Args:
        members: The nodes.
        registers: Asks and tells them.
        chunks: Looks after the chunks of a value.
        wall: Seconds since the epoch.
        pause: Returns True when the walk is to end early.
        deep: Read every copy of every chunk and check it, instead of asking for its length.
        orphan_seconds: How old a chunk that nothing names must be to be swept.
    """

    def __init__(
        self,
        members: Members,
        registers: QuorumRegisters,
        chunks: ChunkRepair,
        wall: Callable[[], float],
        *,
        pause: Callable[[float], bool],
        deep: bool = True,
        orphan_seconds: float = ORPHAN_SECONDS,
    ) -> None:
        self._members = members
        self._registers = registers
        self._chunks = chunks
        self._pause = pause
        self._deep = deep
        self._wall = wall
        self._began = wall()
        self._orphan_seconds = orphan_seconds
        self._live: set[bytes] = set()
        self._tombstones: dict[bytes, RegisterVersion] = {}
        self.report = RepairReport()

    def run(self, progress: Progress | None = None) -> RepairReport:
        """Walk over all registers, then over all chunks, and return what was done."""
        nodes = list(self._members.all_members())
        total, done = self._count(nodes), 0
        for node in nodes:
            for batch in self._names(node, PREFIX):
                self._look_after(node, batch)
                done += len(batch)
                if progress is not None:
                    progress(min(done, total), total)
                if self._pause(0):
                    return self.report
        self._sweep(nodes)
        if progress is not None:
            progress(total, total)
        return self.report

    def _names(self, node: Node, prefix: bytes) -> Iterable[list[bytes]]:
        try:
            yield from scan_node(node, prefix)
        except (UnavailableError, ReplyError) as error:
            self.report.silent[node.name] = str(error)

    def _count(self, nodes: Sequence[Node]) -> int:
        total = 0
        for node in nodes:
            try:
                total += int(node.call("DBSIZE"))
            except (UnavailableError, ReplyError) as error:
                self.report.silent[node.name] = str(error)
        return total

    def _look_after(self, node: Node, names: Sequence[bytes]) -> None:
        for start in range(0, len(names), REPAIR_BATCH):
            self._look_at(node, names[start : start + REPAIR_BATCH])

    def _look_at(self, node: Node, names: Sequence[bytes]) -> None:
        queries = self._registers.query(names, deep=self._deep)
        # A key is looked at where it is met first, which is on the first node that has it at all.
        mine = [query for query in queries if self._first(query) in (node.name, None)]
        sure = [query for query in mine if query.missing_answers <= 0]
        for query in mine:
            self.report.keys += 1
            if query.missing_answers > 0:
                self.report.add_unreadable(key_of(query.name))
        try:
            self.report.mended += self._registers.repair_damaged(sure)
            self.report.copied += self._registers.copy_newest(sure)
        except UnavailableError as error:
            for query in sure:
                self.report.add_unreadable(key_of(query.name))
            self.report.silent.setdefault(node.name, str(error))
            return
        for query in sure:
            self._look_into(query)
        for query in queries:
            self._drop_stray(node, query)

    def _first(self, query: RegisterQuery) -> str | None:
        """Return the first member, in the order of the walk, that holds any version of a key."""
        has = {node for node, copy in query.replies.items() if copy.header is not None}
        has |= query.damaged
        return next((node.name for node in self._members.all_members() if node.name in has), None)

    def _look_into(self, query: RegisterQuery) -> None:
        if not query.replies or query.newest.header is None:
            return
        if query.newest.header.kind is RegisterKind.TOMBSTONE:
            if query.version.at_seconds < self._began - TOMBSTONE_SECONDS:
                self._tombstones[query.name] = query.version
        elif query.newest.upload is not None:
            self._live.add(query.newest.upload.id)
            self._repair_chunks(query)

    def _repair_chunks(self, query: RegisterQuery) -> None:
        try:
            manifest = self._manifest(query)
            copied, mended, strays = self._chunks.repair(manifest, deep=self._deep)
        except MemoriesError as error:
            self.report.add_unreadable(key_of(query.name))
            self.report.silent.setdefault(key_of(query.name), str(error))
            return
        self.report.chunks_copied += copied
        self.report.mended += mended
        self.report.strays += strays

    def _manifest(self, query: RegisterQuery) -> ChunkManifest:
        self._registers.fetch_missing([query])
        data = query.newest.data
        if data is None:
            raise CorruptDataError("its manifest cannot be read")
        return read_manifest(memoryview(data)[HEADER_BYTES:])

    def _drop_stray(self, node: Node, query: RegisterQuery) -> None:
        """Remove a copy from a node that is not one of the key's any more, or only stood in."""
        preferred = {name for one in query.lists for name in one.nodes[: one.copies]}
        if node.name in preferred or query.missing_answers > 0 or preferred - set(query.holders):
            return
        there = node.call("GETRANGE", query.name, 0, 31)
        if there and there <= query.version.text:
            self.report.strays += int(node.call(*scripts.DROP.call([query.name], there)))

    def _sweep(self, nodes: Sequence[Node]) -> None:
        """Remove garbage, which is certain only if every node was heard."""
        if self.report.silent or self.report.unreadable:
            return
        for name, version in self._tombstones.items():
            dropped = [node.call(*scripts.DROP.call([name], version.text)) for node in nodes]
            self.report.tombstones += any(dropped)
        for node in nodes:
            for batch in self._names(node, CHUNK_PREFIX):
                orphans = [name for name in batch if self._is_orphan(name)]
                if orphans:
                    self.report.orphans += int(node.call("UNLINK", *orphans))

    def _is_orphan(self, name: bytes) -> bool:
        upload = upload_of(name)
        try:
            age = self._began - upload_seconds(upload)
        except ValueError:
            return False  # Not a name of ours.
        return upload not in self._live and age > self._orphan_seconds
