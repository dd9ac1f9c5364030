"""Chunks of large values on three real servers: which node is asked for which chunk."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from memories.cluster.chunks import ChunkPlacement, ChunkStore
from memories.cluster.client.node import Node, parse_info
from memories.cluster.local import LocalGroup, LocalServer
from memories.cluster.manifest import ChunkManifest, ChunkUpload, new_upload
from memories.cluster.quorum.chunks import QuorumChunks
from memories.errors import UnavailableError
from memories.foundation.worker_pool import WorkerPool

pytestmark = pytest.mark.server
COUNT = 6


@pytest.fixture
def nodes(plain_nodes: LocalGroup) -> Iterator[dict[str, Node]]:
    """The three nodes as the store sees them."""
    nodes = {s.name: Node(s.address, monotonic=time.monotonic) for s in plain_nodes.servers}
    yield nodes
    for node in nodes.values():
        node.close()


@pytest.fixture
def chunks(nodes: dict[str, Node]) -> Iterator[ChunkStore]:
    """A store where every chunk prefers the nodes in the same order, and has two copies."""
    workers = WorkerPool(4, "test")
    placement = ChunkPlacement(nodes, lambda name: list(nodes), 2, len(nodes))
    yield QuorumChunks(lambda: placement, workers.submit, lambda manifest: None)
    workers.close()


def written(chunks: ChunkStore, data: bytes) -> ChunkManifest:
    """Write `data` as chunks, and return its manifest."""
    upload, chunk_bytes = new_upload(len(data), time.time())
    sums = chunks.write(upload, chunk_bytes, [memoryview(data)])
    return ChunkManifest(upload, len(data), chunk_bytes, sums)


def read(chunks: ChunkStore, manifest: ChunkManifest) -> bytes:
    """Return the bytes of the chunks."""
    frame = bytearray(manifest.nbytes)
    chunks.read(manifest, memoryview(frame))
    return bytes(frame)


def gets(server: LocalServer) -> int:
    """Return how often a server was asked for a string since its figures were reset."""
    text = server.call("INFO", "commandstats")
    assert isinstance(text, bytes)
    counts = parse_info(text).get("cmdstat_get", "calls=0,")
    return int(counts.removeprefix("calls=").partition(",")[0])


def test_all_nodes_that_have_the_chunks_send_their_share(
    plain_nodes: LocalGroup, chunks: ChunkStore
) -> None:
    """A value comes as late as the busiest node has sent its part of it."""
    data = os.urandom(COUNT << 22)
    manifest = written(chunks, data)
    for server in plain_nodes.servers:
        server.call("CONFIG", "RESETSTAT")
    assert data == read(chunks, manifest)
    assert [COUNT // 2, COUNT // 2, 0] == [gets(server) for server in plain_nodes.servers]


def test_a_node_that_fails_leaves_its_share_to_the_other(
    plain_nodes: LocalGroup, chunks: ChunkStore, nodes: dict[str, Node]
) -> None:
    """Sharing the work out must not tie a chunk to a node that is gone, or that lost it."""
    data = os.urandom(COUNT << 22)
    manifest = written(chunks, data)
    first, second, third = plain_nodes.servers
    first.kill()
    assert data == read(chunks, manifest)
    assert not nodes[first.name].usable
    nodes[first.name].last_error = "none since"
    for server in (second, third):
        server.call("CONFIG", "RESETSTAT")
    assert data == read(chunks, manifest)
    assert "none since" == nodes[first.name].last_error
    assert [COUNT, 0] == [gets(second), gets(third)]
    second.kill()
    with pytest.raises(UnavailableError, match="chunk 0 of the value cannot be reached"):
        read(chunks, manifest)


def test_of_a_few_uploads_the_most_even_one_is_used(
    nodes: dict[str, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write lasts as long as its busiest node, and the names of chunks are random."""
    names = list(nodes)
    crowds = iter([0, 1, 2, 3, *[0] * 12])  # How many chunks of each upload are not on node 0.
    moved: dict[bytes, int] = {}

    def drawn(nbytes: int, wall_seconds: float, count: int) -> tuple[ChunkUpload, int]:
        upload, chunk_bytes = new_upload(nbytes, wall_seconds, count)
        moved[upload.id] = next(crowds)
        return upload, chunk_bytes

    def rank(name: bytes) -> list[str]:
        upload, _, index = name.removeprefix(b"m:c:").partition(b":")
        first = int(int(index) < moved[upload])
        return names[first:] + names[:first]

    monkeypatch.setattr("memories.cluster.chunks.new_upload", drawn)
    workers = WorkerPool(1, "test")
    placement = ChunkPlacement(nodes, rank, 1, len(nodes))
    store = QuorumChunks(lambda: placement, workers.submit, lambda manifest: None)
    upload, _ = store.new_upload(COUNT << 22, time.time())
    assert 3 == moved[upload.id] == placement.most_on_one(upload.names())
    assert 16 == len(moved)
    crowds = iter([2])
    placement = ChunkPlacement({names[0]: nodes[names[0]]}, lambda name: names[:1], 1, 1)
    assert 1 == store.new_upload(1, time.time())[0].chunks, "one draw is as even as can be"
    workers.close()
