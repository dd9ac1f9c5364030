"""Chunks of large values: written to the nodes in parallel, and read from whoever has them.

Not registers: a chunk never changes, so that any copy of it that matches its checksum will do. The
one idea: bytes go from the value's own memory to the socket, and from it to where they stay.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from typing import Any, NamedTuple

from memories.cluster.client.node import Node
from memories.cluster.client.resp import ReplyError
from memories.cluster.manifest import ChunkManifest, ChunkUpload, chunk_sum, cut
from memories.errors import (
    CorruptDataError,
    MemoriesError,
    ReplicationError,
    UnavailableError,
)
from memories.foundation.worker_pool import Task

REPLACED_SECONDS = 20  # How long the chunks of a replaced value stay for those who read it.
WINDOW = 4  # Chunks under way on one connection.


class ChunkPlacement(NamedTuple):
    """Where chunks may lie: nodes by name, and the order in which a chunk prefers them."""

    nodes: Mapping[str, Node]
    rank: Callable[[bytes], list[str]]
    copies: int


class NodeTransfer(NamedTuple):
    """What came of sending to, or asking, one node: chunks that went well, and the fault if any."""

    node: str
    done: list[int]
    damaged: list[int]
    reason: str


class ChunkStore:
    """Writes, reads and sweeps chunks, each node served by a thread of its own."""

    def __init__(
        self, placement: Callable[[], ChunkPlacement], submit: Callable[..., Task[Any]]
    ) -> None:
        self._placement = placement
        self._submit = submit

    def write(
        self, upload: ChunkUpload, chunk_bytes: int, segments: Sequence[memoryview]
    ) -> tuple[int, ...]:
        """Write a frame as the chunks of `upload`, each to enough nodes, and return their sums.

        Raises:
            ReplicationError: a chunk is on too few nodes; nothing refers to those written.
        """
        chunks = list(cut(segments, chunk_bytes))
        placement, names = self._placement(), upload.names()
        sums = self._submit(lambda: tuple(map(chunk_sum, chunks)))
        plan = _WritePlan(placement, names)

        def send(node: str, indices: Sequence[int]) -> NodeTransfer:
            commands = [("SET", names[i], tuple(chunks[i])) for i in indices]
            return _send(placement.nodes[node], indices, commands)

        try:
            while targets := plan.next_targets():
                for sent in self._in_parallel(send, targets):
                    plan.record(sent)
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
        placement, names = self._placement(), manifest.upload.names()
        views = [frame[start:stop] for start, stop in manifest.spans()]
        plan = _ReadPlan(placement, names)

        def receive(node: str, indices: Sequence[int]) -> NodeTransfer:
            return _receive(placement.nodes[node], indices, names, views, manifest.sums)

        while targets := plan.next_targets():
            for sent in self._in_parallel(receive, targets):
                plan.record(sent)

    def expire(self, upload: ChunkUpload) -> None:
        """Let the chunks of a replaced value vanish once those who read them had the time."""
        self._send_commands([("EXPIRE", name, REPLACED_SECONDS) for name in upload.names()])

    def remove(self, upload: ChunkUpload) -> None:
        """Remove the chunks of an upload that nothing refers to."""
        self._send_commands([("UNLINK", name) for name in upload.names()])

    def _send_commands(self, commands: Sequence[Any]) -> None:
        """Tell all nodes something about chunks; where that fails, a later sweep finds them."""
        everyone = {name: commands for name, node in self._placement().nodes.items() if node.usable}
        for _ in self._in_parallel(
            lambda node, told: _try(self._placement().nodes[node], told), everyone
        ):
            pass

    def _in_parallel(
        self, work: Callable[[str, Any], Any], targets: Mapping[str, Any]
    ) -> Iterable[Any]:
        """Return `work` of every item, done at once; the caller does the last one himself."""
        *others, mine = targets.items()
        tasks: list[Task[Any]] = []
        try:
            for item in others:
                tasks.append(self._submit(work, *item))
            return [work(*mine), *(task.result() for task in tasks)]
        finally:
            for task in tasks:
                task.cancel()
            for task in tasks:
                task.wait()


class _WritePlan:
    """Which chunks still need a node, and which nodes each has left to try."""

    def __init__(self, placement: ChunkPlacement, names: Sequence[bytes]) -> None:
        self._placement = placement
        self._left = [_usable_first(placement, name) for name in names]
        self._lacking = dict.fromkeys(range(len(names)), placement.copies)
        self._reasons: dict[str, str] = {}

    def next_targets(self) -> dict[str, list[int]]:
        """Return the chunks to send to each node; nothing once all are on enough.

        Raises:
            ReplicationError: no node is left that a chunk could go to.
        """
        targets: dict[str, list[int]] = defaultdict(list)
        for index, lacking in self._lacking.items():
            left = [node for node in self._left[index] if node not in self._reasons]
            if len(left) < lacking:
                raise ReplicationError(
                    f"the value could not be stored on {self._placement.copies} nodes: "
                    f"{_say(self._reasons) or 'too few nodes answer'}. Nothing has changed: what "
                    "was stored before is still there, and the parts written are removed"
                )
            for node in left[:lacking]:
                targets[node].append(index)
                self._left[index].remove(node)
        return targets

    def record(self, sent: NodeTransfer) -> None:
        """Take in what came of sending to one node."""
        if sent.reason:
            self._reasons[sent.node] = sent.reason
        for index in sent.done:
            self._lacking[index] -= 1
            if not self._lacking[index]:
                del self._lacking[index]


class _ReadPlan:
    """Which chunks are still sought, and which nodes each may yet be found on."""

    def __init__(self, placement: ChunkPlacement, names: Sequence[bytes]) -> None:
        self._left = [_usable_first(placement, name, all_=True) for name in names]
        self._likely = [_likely(placement, name) for name in names]
        self._sought = set(range(len(names)))
        self._damaged: set[int] = set()
        self._reasons: dict[str, str] = {}

    def next_targets(self) -> dict[str, list[int]]:
        """Return the chunks to ask of each node; nothing once all are there.

        Of the nodes that should have a chunk the one with the least to do so far is asked, for the
        call lasts as long as the busiest of them.

        Raises:
            CorruptDataError: every node was asked for a chunk, and none has a sound copy.
            UnavailableError: some node that may have it could not be asked.
        """
        targets: dict[str, list[int]] = defaultdict(list)
        for index in sorted(self._sought):
            left = self._left[index]
            if not left:
                raise self._error(index)
            likely = [node for node in left if node in self._likely[index]] or left[:1]
            node = min(likely, key=lambda one: len(targets.get(one, ())))
            left.remove(node)
            targets[node].append(index)
        return targets

    def record(self, sent: NodeTransfer) -> None:
        """Take in what one node gave."""
        self._sought.difference_update(sent.done)
        self._damaged.update(sent.damaged)
        if sent.reason:
            self._reasons[sent.node] = sent.reason

    def _error(self, index: int) -> MemoriesError:
        if self._reasons:
            return UnavailableError(
                f"chunk {index} of the value cannot be reached: {_say(self._reasons)}"
            )
        state = "damaged" if index in self._damaged else "gone"
        return CorruptDataError(f"chunk {index} of the value is {state} on every node")


def _send(node: Node, indices: Sequence[int], commands: Sequence[Any]) -> NodeTransfer:
    done: list[int] = []
    for start in range(0, len(indices), WINDOW):
        try:
            replies = node.pipeline(commands[start : start + WINDOW])
        except (UnavailableError, ReplyError) as error:
            return NodeTransfer(node.name, done, [], str(error))
        refusals = [reply for reply in replies if isinstance(reply, ReplyError)]
        window = zip(indices[start : start + WINDOW], replies, strict=True)
        done += [index for index, reply in window if not isinstance(reply, ReplyError)]
        if refusals:
            return NodeTransfer(node.name, done, [], str(refusals[0]))
    return NodeTransfer(node.name, done, [], "")


def _receive(
    node: Node,
    indices: Sequence[int],
    names: Sequence[bytes],
    views: Sequence[memoryview],
    sums: Sequence[int],
) -> NodeTransfer:
    done: list[int] = []
    damaged: list[int] = []
    commands = [("GET", names[index]) for index in indices]
    into = [[views[index]] for index in indices]
    try:
        with closing(node.stream(commands, into, window=WINDOW)) as replies:
            for index, reply in zip(indices, replies, strict=True):
                if isinstance(reply, ReplyError):
                    return NodeTransfer(node.name, done, damaged, str(reply))
                if reply == views[index].nbytes and chunk_sum([views[index]]) == sums[index]:
                    done.append(index)
                elif reply is not None:
                    damaged.append(index)
    except (UnavailableError, ReplyError) as error:
        return NodeTransfer(node.name, done, damaged, str(error))
    return NodeTransfer(node.name, done, damaged, "")


def _try(node: Node, commands: Sequence[Any]) -> None:
    try:
        node.pipeline(commands)
    except (UnavailableError, ReplyError) as error:
        node.last_error = str(error)


def _usable_first(placement: ChunkPlacement, name: bytes, *, all_: bool = False) -> list[str]:
    """Return the nodes to try for a chunk; those that failed lately last, or only if `all_`."""
    ranked = placement.rank(name)
    usable = [node for node in ranked if placement.nodes[node].usable]
    rest = [node for node in ranked if node not in usable and (all_ or placement.nodes[node].due)]
    return usable + rest


def _likely(placement: ChunkPlacement, name: bytes) -> list[str]:
    """Return the nodes that should have a chunk and did not fail lately."""
    return [
        node for node in placement.rank(name)[: placement.copies] if placement.nodes[node].usable
    ]


def _say(reasons: Mapping[str, str]) -> str:
    return "; ".join(f"{node}: {reason}" for node, reason in sorted(reasons.items()))
