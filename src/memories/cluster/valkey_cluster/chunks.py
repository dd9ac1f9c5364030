"""Chunks of large values on a Cluster: spread over its slots, and replicated by it.

Not registers. The one idea: every few chunks are followed by WAIT on the same connection, which
tells that the replicas have them, and keeps the primary from being ahead of them by much.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from memories.cluster.chunks import WINDOW, ChunkPlacement, ChunkStore, NodeTransfer
from memories.cluster.client.node import Node
from memories.cluster.client.resp import Command, ReplyError
from memories.cluster.manifest import ChunkManifest, ChunkUpload, chunk_sum, cut
from memories.cluster.valkey_cluster.shards import Shards
from memories.cluster.valkey_cluster.write import WAIT_SECONDS, WRITE_SECONDS
from memories.errors import ReplicationError, UnavailableError
from memories.foundation.worker_pool import Task

_PAUSE_SECONDS = 0.1
_READ_SECONDS = 5.0


class ClusterChunks(ChunkStore):
    """Writes, reads and sweeps chunks, each shard served by a thread of its own."""

    def __init__(
        self,
        shards: Shards,
        submit: Callable[..., Task[Any]],
        pause: Callable[[float], bool],
    ) -> None:
        super().__init__(self._chunk_placement, submit)
        self._shards = shards
        self._pause = pause

    def write(
        self, upload: ChunkUpload, chunk_bytes: int, segments: Sequence[memoryview]
    ) -> tuple[int, ...]:
        """Write a frame as the chunks of `upload`, and return their sums.

        Raises:
            ReplicationError: a chunk is not on enough nodes; nothing refers to those written.
        """
        chunks, names = list(cut(segments, chunk_bytes)), upload.names()
        sums = self._submit(lambda: tuple(map(chunk_sum, chunks)))

        def send(node: str, indices: Sequence[int]) -> NodeTransfer:
            commands = [("SET", names[i], tuple(chunks[i])) for i in indices]
            return self._send(self._shards.node(node), indices, commands)

        try:
            self._send_until_done(names, send)
        except BaseException:
            self.remove(upload)
            raise
        total: tuple[int, ...] = sums.result()
        return total

    def read(self, manifest: ChunkManifest, frame: memoryview) -> None:
        """Fill `frame` with the chunks that the manifest names, each checked as it comes.

        Raises:
            CorruptDataError: a chunk is damaged or gone on every node that may have it.
            UnavailableError: no sound copy of a chunk can be reached.
        """
        end = self._shards.monotonic() + _READ_SECONDS
        while True:
            try:
                return super().read(manifest, frame)
            except UnavailableError:
                if self._shards.monotonic() >= end or self._pause(_PAUSE_SECONDS):
                    raise
                self._shards.refresh()

    def _send_until_done(
        self, names: Sequence[bytes], send: Callable[[str, Sequence[int]], NodeTransfer]
    ) -> None:
        left = set(range(len(names)))
        end = self._shards.monotonic() + WRITE_SECONDS
        while left:
            targets: dict[str, list[int]] = {}
            for index in sorted(left):
                targets.setdefault(self._primary_of(names[index]), []).append(index)
            reasons: dict[str, str] = {}
            for sent in self._in_parallel(send, targets):
                left.difference_update(sent.done)
                if sent.reason:
                    reasons[sent.node] = sent.reason
            if left and (self._shards.monotonic() >= end or self._pause(_PAUSE_SECONDS)):
                told = "; ".join(f"{node}: {reason}" for node, reason in sorted(reasons.items()))
                raise ReplicationError(
                    f"the value could not be stored on {self._shards.copies} nodes: {told}. "
                    "Nothing has changed: what was stored before is still there, and the parts "
                    "written are removed"
                )
            if left:
                self._shards.refresh()

    def _send(
        self, node: Node, indices: Sequence[int], commands: Sequence[Command]
    ) -> NodeTransfer:
        done: list[int] = []
        needed = self._shards.copies - 1
        waiting = ("WAIT", needed, int(WAIT_SECONDS * 1000))
        if not (node.usable or node.due):
            return NodeTransfer(node.name, done, [], node.last_error)
        for start in range(0, len(indices), WINDOW):
            window = indices[start : start + WINDOW]
            try:
                *replies, copies = node.pipeline([*commands[start : start + WINDOW], waiting])
            except (UnavailableError, ReplyError) as error:
                return NodeTransfer(node.name, done, [], str(error))
            refusals = [reply for reply in (*replies, copies) if isinstance(reply, ReplyError)]
            if refusals:
                return NodeTransfer(node.name, done, [], str(refusals[0]))
            if copies < needed:
                reason = f"{copies} of the {needed} replicas needed have it"
                return NodeTransfer(node.name, done, [], reason)
            done += window
        return NodeTransfer(node.name, done, [], "")

    def _send_commands(self, commands: Sequence[Any]) -> None:
        """Tell each chunk's primary something; where that fails, a later sweep finds the chunk."""
        told: dict[str, list[Any]] = {}
        for command in commands:
            told.setdefault(self._primary_of(command[1]), []).append(command)
        usable = {name: some for name, some in told.items() if self._shards.node(name).usable}
        if usable:
            self._in_parallel(lambda node, some: _try(self._shards.node(node), some), usable)

    def _primary_of(self, name: bytes) -> str:
        return self._shards.shard_of(name).primary

    def _chunk_placement(self) -> ChunkPlacement:
        nodes: Mapping[str, Node] = {node.name: node for node in self._shards.all_nodes()}
        return ChunkPlacement(nodes, lambda name: list(self._shards.shard_of(name).nodes), 1)


def _try(node: Node, commands: Sequence[Any]) -> None:
    try:
        node.pipeline(commands)
    except (UnavailableError, ReplyError) as error:
        node.last_error = str(error)
