"""Repairs the copies on plain servers: missing, old, damaged, or on a node of other keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from memories.cluster.chunks import ChunkPlacement
from memories.cluster.client import scripts
from memories.cluster.client.node import Node
from memories.cluster.client.resp import ReplyError
from memories.cluster.manifest import ChunkManifest
from memories.cluster.quorum.members import Members
from memories.cluster.quorum.registers import QuorumRegisters
from memories.cluster.quorum.rules import RegisterQuery
from memories.cluster.register_copy import RegisterCopy
from memories.cluster.register_format import key_of
from memories.cluster.repair_report import RepairReport
from memories.cluster.repair_walk import ChunkRepairCounts, ChunkToRepair, chunks_to_repair
from memories.cluster.run_script import run_script
from memories.cluster.versions import RegisterVersion
from memories.errors import CorruptDataError, UnavailableError

_NO_EXPIRY = -1  # The reply of PTTL.


class QuorumRepair:
    """The part of a repair that is particular to plain servers.

    Args:
        members: The nodes.
        registers: Queries and copies registers.
        placement: Returns where chunks may be, as of now.
    """

    def __init__(
        self,
        members: Members,
        registers: QuorumRegisters,
        placement: Callable[[], ChunkPlacement],
    ) -> None:
        self._members = members
        self._registers = registers
        self._placement = placement

    def nodes(self) -> Sequence[Node]:
        """Return all members."""
        return list(self._members.all_members())

    def repair_registers(
        self, node: Node, names: Sequence[bytes], report: RepairReport, *, deep: bool
    ) -> Iterator[tuple[bytes, RegisterCopy]]:
        """Repair the copies of registers found on a node; see `ReplicaRepair`."""
        queries = self._registers.query(names, deep=deep)
        # Each register is repaired during the visit to the first node that has any version of it.
        mine = [query for query in queries if self._first_holder(query) in (node.name, None)]
        sure = [query for query in mine if query.missing_answers <= 0]
        for query in mine:
            report.keys += 1
            if query.missing_answers > 0:
                report.add_unreadable(key_of(query.name))
                report.short += 1
        try:
            report.mended += self._registers.repair_damaged(sure)
            outcomes = self._registers.copy_newest(sure)
        except UnavailableError as error:  # The members have changed.
            report.short += len(sure)
            report.silent.setdefault(node.name, str(error))
            return
        for query in sure:
            failed = outcomes.get(query.name)
            report.copied += query.name in outcomes and failed is None
            if query.missing_copies > 0:
                report.short += 1
                reason = failed or "too few nodes have it, and no other one answers"
                report.silent.setdefault(key_of(query.name), str(reason))
        present = [query for query in sure if query.replies]
        self._registers.fetch_missing(
            [query for query in present if query.newest.upload is not None]
        )
        for query in present:
            yield query.name, query.newest
        for query in queries:
            report.strays += self._drop_stray(node, query)

    def repair_chunks(self, manifest: ChunkManifest, *, deep: bool) -> ChunkRepairCounts:
        """Copy chunks to the nodes that should have them; see `ReplicaRepair`.

        One chunk is in memory at a time.
        """
        placement, final = self._placement(), self._members.current.lists[-1]
        copied = mended = strays = 0
        refusals: dict[str, str] = {}
        short: dict[str, str] = {}  # Reasons, by node.
        buffer = memoryview(bytearray(manifest.chunk_bytes))
        for chunk in chunks_to_repair(manifest):
            held = {name: _held_bytes(node, chunk) for name, node in placement.nodes.items()}
            ranked = [name for name in placement.rank(chunk.name) if held[name] is not None]
            complete = [name for name in ranked if held[name] == chunk.nbytes]
            sound = set(complete)
            if deep:
                sound = {one for one in complete if _read(placement.nodes[one], chunk, buffer)}
            wanted: set[str] = set()
            for name in ranked:  # Where one refuses a copy, the next one gets it.
                if len(wanted) == placement.copies:
                    break
                if name not in sound:
                    sources = [*sound, *(set(complete) - sound)]
                    source = _fetch(placement, chunk, sources, buffer, held)
                    try:
                        _copy(chunk, buffer, placement.nodes[source], placement.nodes[name])
                    except (UnavailableError, ReplyError) as error:
                        refusals[name] = str(error)
                        continue
                    sound.add(name)
                    copied, mended = copied + (not held[name]), mended + bool(held[name])
                wanted.add(name)
            if not sound:
                _fetch(placement, chunk, (), buffer, held)
            if len(sound.intersection(final)) < placement.copies:
                away = {name: "it does not answer" for name in final if held.get(name) is None}
                short = short | away | refusals
            else:
                for name in {other for other in ranked if held[other]} - wanted:
                    strays += int(placement.nodes[name].call("UNLINK", chunk.name))
        return ChunkRepairCounts(copied, mended, strays, short)

    def drop_tombstone(self, name: bytes, version: RegisterVersion) -> bool:
        """Remove a tombstone from all members."""
        nodes = self._members.all_members()
        dropped = [run_script(node, scripts.DROP, [name], version.text) for node in nodes]
        return any(dropped)

    def _first_holder(self, query: RegisterQuery) -> str | None:
        """Return the first member, in the order of the walk, that holds any version of a key."""
        has = {node for node, copy in query.replies.items() if copy.header is not None}
        has |= query.damaged
        return next((node.name for node in self._members.all_members() if node.name in has), None)

    def _drop_stray(self, node: Node, query: RegisterQuery) -> int:
        """Remove a copy from a node that the key does not prefer, once the preferred ones have it.

        Such a copy stems from a write that a preferred node missed, or from an older member list.
        """
        preferred = {name for one in query.lists for name in one.nodes[: one.copies]}
        unsafe = query.missing_answers > 0 or preferred - set(query.holders)
        if node.name in preferred or unsafe:
            return 0
        there = node.call("GETRANGE", query.name, 0, 31)
        if there and there <= query.version.text:
            return int(run_script(node, scripts.DROP, [query.name], there))
        return 0


def _fetch(
    placement: ChunkPlacement,
    chunk: ChunkToRepair,
    sources: Sequence[str],
    buffer: memoryview,
    held: Mapping[str, int | None],
) -> str:
    """Read a chunk into `buffer` from the first of the nodes that has a sound copy; return it."""
    for name in sources:
        if _read(placement.nodes[name], chunk, buffer):
            return name
    silent = [name for name, nbytes in held.items() if nbytes is None]
    if silent:
        raise UnavailableError(
            f"no node that answers has a sound copy of chunk {chunk.name.decode()}; "
            f"{', '.join(silent)} may have one"
        )
    raise CorruptDataError(f"no node has a sound copy of chunk {chunk.name.decode()}")


def _copy(chunk: ChunkToRepair, buffer: memoryview, source: Node, target: Node) -> None:
    """Store a chunk on a node, for as long as the source of it will have it.

    Thread 1 reads a chunk. Thread 2 replaces the value, and makes the chunk expire on all nodes
    that have it. Thread 1 stores its copy, which would stay for ever.
    """
    target.call("SET", chunk.name, buffer[: chunk.nbytes])
    milliseconds = int(source.call("PTTL", chunk.name))
    if milliseconds != _NO_EXPIRY:
        target.call("PEXPIRE", chunk.name, max(0, milliseconds))


def _held_bytes(node: Node, chunk: ChunkToRepair) -> int | None:
    """Return how many bytes of the chunk a node has; None if it does not answer."""
    if not node.usable:
        return None
    try:
        return int(node.call("STRLEN", chunk.name))
    except (UnavailableError, ReplyError):
        return None


def _read(node: Node, chunk: ChunkToRepair, buffer: memoryview) -> bool:
    """Read a node's copy into `buffer` and return whether it is sound."""
    try:
        return chunk.is_sound(node, buffer)
    except (UnavailableError, ReplyError):
        return False
