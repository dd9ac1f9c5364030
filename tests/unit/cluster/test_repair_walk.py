"""The walk of a repair, over nodes that are simulated in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

from memories.cluster.client.node import Node
from memories.cluster.limits import ORPHAN_SECONDS, TOMBSTONE_SECONDS
from memories.cluster.manifest import ChunkManifest, chunk_sum, new_upload
from memories.cluster.register_copy import RegisterCopy, read_copy
from memories.cluster.register_format import RegisterKind, pack_register, register_name
from memories.cluster.repair_report import RepairReport
from memories.cluster.repair_walk import ChunkRepairCounts, RepairWalk
from memories.cluster.versions import RegisterVersion
from memories.errors import UnavailableError

NOW = 2_000_000_000.0
OLD = NOW - ORPHAN_SECONDS - TOMBSTONE_SECONDS


class MemoryNode:
    """A node that knows the commands of a walk."""

    def __init__(self, name: str, strings: dict[bytes, bytes]) -> None:
        self.name = name
        self.strings = strings
        self.down = False

    def call(self, command: str, *args: Any) -> Any:
        if self.down:
            raise UnavailableError(f"the node {self.name} is down")
        if command == "DBSIZE":
            return len(self.strings)
        if command == "SCAN":
            prefix = args[2].removesuffix(b"*")
            return b"0", [name for name in list(self.strings) if name.startswith(prefix)]
        assert command == "UNLINK"
        return int(self.strings.pop(args[0], None) is not None)

    def pipeline(self, commands: Sequence[tuple[Any, ...]], *, strict: bool) -> list[Any]:
        assert strict
        return [self.call(*command) for command in commands]


class Replicas:
    """Repairs nothing; yields the registers of a node, each key once."""

    def __init__(self, *nodes: MemoryNode) -> None:
        self.all = nodes
        self.seen: set[bytes] = set()
        self.chunk_error: UnavailableError | None = None

    def nodes(self) -> Sequence[Node]:
        return cast("Sequence[Node]", self.all)

    def repair_registers(
        self, node: Node, names: Sequence[bytes], report: RepairReport, *, deep: bool
    ) -> Iterator[tuple[bytes, RegisterCopy]]:
        for name in names:
            if name not in self.seen:
                self.seen.add(name)
                report.keys += 1
                strings = cast("MemoryNode", node).strings
                yield name, read_copy(name, strings[name], whole=True)

    def repair_chunks(self, manifest: ChunkManifest, *, deep: bool) -> ChunkRepairCounts:
        if self.chunk_error is not None:
            raise self.chunk_error
        return ChunkRepairCounts(copied=1)

    def drop_tombstone(self, name: bytes, version: RegisterVersion) -> bool:
        removed = [node.strings.pop(name, None) for node in self.all]
        return any(data is not None for data in removed)


def register(key: str, kind: RegisterKind, at: float, body: bytes = b"") -> dict[bytes, bytes]:
    """Return a register of that time, by its name."""
    name, version = register_name(key), RegisterVersion(int(at * 1_000_000), 1)
    return {name: b"".join(pack_register(name, version, kind, [memoryview(body)]))}


def value_in_chunks(key: str, at: float) -> dict[bytes, bytes]:
    """Return the register and the one chunk of a value that was uploaded at that time."""
    upload, chunk_bytes = new_upload(4, at)
    manifest = ChunkManifest(upload, 4, chunk_bytes, (chunk_sum([memoryview(b"data")]),))
    chunk = {upload.names()[0]: b"data"}
    return register(key, RegisterKind.MANIFEST, at, manifest.pack()) | chunk


def orphan(at: float) -> dict[bytes, bytes]:
    """Return a chunk of that time without a manifest."""
    upload, _ = new_upload(4, at)
    return {upload.names()[0]: b"data"}


def walk_over(replicas: Replicas) -> RepairWalk:
    """Return a walk over these nodes."""
    return RepairWalk(replicas, lambda: NOW, pause=lambda seconds: False)


def test_old_garbage_is_removed_and_nothing_else() -> None:
    """Chunks of a value, a young orphan and a young tombstone stay."""
    kept = {
        **value_in_chunks("large", OLD),
        **register("small", RegisterKind.VALUE, OLD),
        **register("deleted just now", RegisterKind.TOMBSTONE, NOW),
        **orphan(NOW),
        b"m:c:not an upload:0": b"data",
    }
    garbage = {**orphan(OLD), **register("deleted", RegisterKind.TOMBSTONE, OLD)}
    one, two = MemoryNode("one", kept | garbage), MemoryNode("two", dict(kept))
    shown: list[tuple[int, int]] = []
    report = walk_over(Replicas(one, two)).run(lambda done, total: shown.append((done, total)))
    assert kept == one.strings == two.strings
    assert (4, 1, 1, 1) == (report.keys, report.orphans, report.tombstones, report.chunks_copied)
    assert {} == report.silent and [] == report.unreadable
    assert (14, 14) == shown[-1]


def test_nothing_is_removed_unless_every_node_answers() -> None:
    """The only manifest that names a chunk may be on a node that does not answer."""
    garbage = {**orphan(OLD), **register("deleted", RegisterKind.TOMBSTONE, OLD)}
    one, two = MemoryNode("one", dict(garbage)), MemoryNode("two", {})
    two.down = True
    report = walk_over(Replicas(one, two)).run()
    assert garbage == one.strings
    assert ["two"] == list(report.silent) and (0, 0) == (report.orphans, report.tombstones)


def test_nothing_is_removed_after_a_value_could_not_be_read() -> None:
    """Its chunks would count as orphans."""
    strings = {**value_in_chunks("large", OLD), **orphan(OLD)}
    node = MemoryNode("one", dict(strings))
    replicas = Replicas(node)
    replicas.chunk_error = UnavailableError("too few nodes answer")
    report = walk_over(replicas).run()
    assert strings == node.strings
    assert ["large"] == report.unreadable and "too few" in report.silent["large"]


def test_a_walk_ends_early_when_the_service_is_closed() -> None:
    """No garbage is removed then, because not all registers were visited."""
    strings = {**orphan(OLD), **register("small", RegisterKind.VALUE, OLD)}
    node = MemoryNode("one", dict(strings))
    report = RepairWalk(Replicas(node), lambda: NOW, pause=lambda seconds: True).run()
    assert (1, 0) == (report.keys, report.orphans) and strings == node.strings
