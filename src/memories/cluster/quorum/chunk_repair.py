"""The copies of one large value's chunks: which nodes have sound ones, and which should.

Not the walk over all values, which is `repair`. It holds one chunk in memory at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from memories.cluster.chunks import ChunkPlacement
from memories.cluster.client.node import Node
from memories.cluster.client.resp import ReplyError
from memories.cluster.manifest import ChunkManifest, chunk_sum
from memories.errors import CorruptDataError, UnavailableError


class _Chunk(NamedTuple):
    name: bytes
    nbytes: int
    total: int


class ChunkRepair:
    """Copies chunks to the nodes that should have them, from those that have them."""

    def __init__(self, placement: Callable[[], ChunkPlacement]) -> None:
        self._placement = placement

    def repair(self, manifest: ChunkManifest, *, deep: bool) -> tuple[int, int, int]:
        """Return how many copies were made, how many were damaged, and how many removed.

        Raises:
            UnavailableError: a node that should have a copy cannot take it.
            CorruptDataError: no node has a sound copy of a chunk.
        """
        placement = self._placement()
        copied = mended = strays = 0
        buffer = memoryview(bytearray(manifest.chunk_bytes))
        spans = [stop - start for start, stop in manifest.spans()]
        chunks = map(_Chunk, manifest.upload.names(), spans, manifest.sums)
        for chunk in chunks:
            held = {name: _held(node, chunk) for name, node in placement.nodes.items()}
            ranked = [name for name in placement.rank(chunk.name) if held[name] is not None]
            has = [name for name in ranked if held[name] == chunk.nbytes]
            wanted = ranked[: placement.copies]
            if len(wanted) < placement.copies:
                raise UnavailableError("too few nodes answer to hold all copies of a chunk")
            sound = self._sound(placement, chunk, has, buffer, all_=deep)
            for name in wanted:
                if name in sound:
                    continue
                self._fetch(placement, chunk, [*sound, *(set(has) - sound)], buffer[: chunk.nbytes])
                placement.nodes[name].call("SET", chunk.name, buffer[: chunk.nbytes])
                sound.add(name)
                copied, mended = copied + (not held[name]), mended + bool(held[name])
            for name in {other for other in ranked if held[other]} - set(wanted):
                strays += int(placement.nodes[name].call("UNLINK", chunk.name))
        return copied, mended, strays

    def _sound(
        self,
        placement: ChunkPlacement,
        chunk: _Chunk,
        has: list[str],
        buffer: memoryview,
        *,
        all_: bool,
    ) -> set[str]:
        """Return which of those that have the chunk have it undamaged."""
        if not all_:
            return set(has)
        return {name for name in has if _read(placement.nodes[name], chunk, buffer)}

    def _fetch(
        self, placement: ChunkPlacement, chunk: _Chunk, sources: list[str], buffer: memoryview
    ) -> None:
        for name in sources:
            if _read(placement.nodes[name], chunk, buffer):
                return
        raise CorruptDataError(f"no node has a sound copy of chunk {chunk.name.decode()}")


def _held(node: Node, chunk: _Chunk) -> int | None:
    """Return how many bytes of the chunk a node has; None if it cannot be asked."""
    if not node.usable:
        return None
    try:
        return int(node.call("STRLEN", chunk.name))
    except (UnavailableError, ReplyError):
        return None


def _read(node: Node, chunk: _Chunk, buffer: memoryview) -> bool:
    """Read a node's copy into `buffer` and return whether it is sound."""
    room = buffer[: chunk.nbytes]
    try:
        (reply,) = node.pipeline([("GET", chunk.name)], into=[[room]], strict=True)
    except (UnavailableError, ReplyError):
        return False
    return bool(reply == chunk.nbytes) and chunk_sum([room]) == chunk.total
