"""Chunks of large values: written to many nodes in parallel, and read from those that have them.

A chunk never changes, so any copy that matches its checksum can be used. The bytes go from the
value's own memory to the socket, and from the socket to the memory of the new value, without a copy
in between.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from itertools import chain
from typing import Any, NamedTuple, Protocol, TypeVar

from memories.cluster.client.node import Node
from memories.cluster.client.resp import Command, Reply, ReplyError
from memories.cluster.manifest import ChunkManifest, ChunkUpload, chunk_sum, cut, new_upload
from memories.cluster.reasons import join_reasons
from memories.errors import CorruptDataError, MemoriesError, UnavailableError
from memories.foundation.worker_pool import Task

REPLACED_SECONDS = 20  # How long the chunks of a replaced value stay, for reads in progress.
WINDOW = 4  # Chunks in flight on one connection.
_DRAWS = 16  # Uploads to choose from.
_EVEN_ENOUGH = 20  # To draw again costs more than a twentieth more on one node.
T = TypeVar("T")
R = TypeVar("R")


class ChunkPlacement(NamedTuple):
    """Where chunks may be: nodes by name, and the order in which a chunk prefers them.

    A write sends `copies` of each chunk, all of them to `receivers` nodes.
    """

    nodes: Mapping[str, Node]
    rank: Callable[[bytes], list[str]]
    copies: int
    receivers: int

    def usable_first(self, name: bytes) -> list[Node]:
        """Return all nodes in the order in which `name` prefers them, the failing ones last."""
        return sorted(
            (self.nodes[one] for one in self.rank(name)), key=lambda node: not node.usable
        )

    def most_on_one(self, names: Sequence[bytes]) -> int:
        """Return how many of these chunks the node gets that gets the most of them."""
        holders = (one for name in names for one in self.rank(name)[: self.copies])
        return max(Counter(holders).values())


class NodeTransfer(NamedTuple):
    """The result of sending chunks to, or requesting them from, one node."""

    node: Node
    done: list[int]
    damaged: list[int]
    reason: str  # Why the transfer ended early; empty if it did not.


class WritePlan(Protocol):
    """Decides which chunks are sent to which nodes next."""

    def next_targets(self) -> Mapping[Node, Sequence[int]]:
        """Return the chunks to send to each node; an empty mapping once all are on enough nodes.

        Raises:
            ReplicationError: a chunk cannot be put on enough nodes.
        """

    def record(self, transfer: NodeTransfer) -> None:
        """Record the result of sending to one node."""


class ChunkStore(ABC):
    """Writes, reads and removes chunks; each node is served by a thread of its own.

    Each kind of replication says where chunks belong, and when a node has stored one.

    Args:
        submit: Runs a function with its arguments in another thread.
    """

    def __init__(self, submit: Callable[..., Task[Any]]) -> None:
        self._submit = submit

    @abstractmethod
    def placement(self) -> ChunkPlacement:
        """Return where chunks may be, as of now."""

    @abstractmethod
    def plan_write(self, names: Sequence[bytes]) -> WritePlan:
        """Return the plan of a write of chunks that have these names."""

    def confirmation(self, node: Node) -> Sequence[Command]:
        """Return the commands that follow each window of chunks on the way to a node."""
        return ()

    def doubt(self, node: Node, replies: Sequence[Reply]) -> str:
        """Return why a window is not stored, by the replies to `confirmation`; "" if it is."""
        return ""

    @abstractmethod
    def nodes_of(self, names: Sequence[bytes]) -> Sequence[Sequence[Node]]:
        """Return for each chunk the nodes that must run a command which expires or removes it."""

    def new_upload(self, nbytes: int, wall_seconds: float) -> tuple[ChunkUpload, int]:
        """Return a new upload for a frame of `nbytes`, and how long its chunks are.

        The names of chunks are random, and say where they belong. Of a few uploads this is one
        whose chunks lie most evenly, because a write lasts as long as its busiest node.
        """
        placement = self.placement()
        nodes = max(1, placement.receivers)
        best = new_upload(nbytes, wall_seconds, nodes)
        least = placement.most_on_one(best[0].names())
        even = -(-best[0].chunks * placement.copies // nodes)
        for _ in range(_DRAWS - 1):
            if least <= even + even // _EVEN_ENOUGH:
                break
            drawn = new_upload(nbytes, wall_seconds, nodes)
            most = placement.most_on_one(drawn[0].names())
            if most < least:
                best, least = drawn, most
        return best

    def write(
        self,
        upload: ChunkUpload,
        chunk_bytes: int,
        segments: Sequence[memoryview],
        *,
        ttl_ms: int | None = None,
    ) -> tuple[int, ...]:
        """Write a frame as the chunks of `upload`, each to enough nodes, and return their sums.

        With `ttl_ms` the nodes remove them after so many milliseconds.

        Raises:
            ReplicationError: a chunk is on too few nodes; the chunks already written are removed.
        """
        chunks, names = list(cut(segments, chunk_bytes)), upload.names()
        ending = () if ttl_ms is None else ("PX", ttl_ms)
        plan = self.plan_write(names)
        summed_for: dict[int, Node] = {}
        sums: dict[int, int] = {}

        def command(node: Node, index: int) -> Command:
            # It is about to be sent, and then comes from the processor's cache. `setdefault` is
            # atomic: of the threads that send it to different nodes one sums it.
            if summed_for.setdefault(index, node) is node:
                sums[index] = chunk_sum(chunks[index])
            return ("SET", names[index], tuple(chunks[index]), *ending)

        def send(node: Node, indices: Sequence[int]) -> NodeTransfer:
            return self._send(node, indices, command)

        try:
            while targets := plan.next_targets():
                for transfer in self._in_parallel(send, targets):
                    plan.record(transfer)
        except BaseException:
            self.remove(upload)
            raise
        return tuple(sums[index] for index in range(len(chunks)))

    def read(self, manifest: ChunkManifest, frame: memoryview) -> None:
        """Fill `frame` with the chunks that the manifest names; each is checked as it comes.

        Raises:
            CorruptDataError: a chunk is damaged or missing on every node that may have it.
            UnavailableError: no sound copy of a chunk can be reached.
        """
        spans = enumerate(manifest.spans())
        self.read_some(manifest, {index: frame[start:stop] for index, (start, stop) in spans})

    def read_some(self, manifest: ChunkManifest, views: Mapping[int, memoryview]) -> None:
        """Fill each view with the chunk of that index; raises like `read`."""
        names = manifest.upload.names()
        plan = _ReadPlan(self.placement(), names, views)

        def receive(node: Node, indices: Sequence[int]) -> NodeTransfer:
            return _receive(node, indices, names, views, manifest.sums)

        while targets := plan.next_targets():
            for transfer in self._in_parallel(receive, targets):
                plan.record(transfer)

    def expire(self, upload: ChunkUpload) -> None:
        """Remove the chunks of a replaced value after a delay, which lets reads of them finish."""
        self._run_on_nodes(upload.names(), lambda name: ("EXPIRE", name, REPLACED_SECONDS))

    def remove(self, upload: ChunkUpload) -> None:
        """Remove the chunks of an upload that no manifest names."""
        self._run_on_nodes(upload.names(), lambda name: ("UNLINK", name))

    def _send(
        self, node: Node, indices: Sequence[int], command: Callable[[Node, int], Command]
    ) -> NodeTransfer:
        """Store the chunks of these indices on a node, a window of commands at a time."""
        done: list[int] = []
        if not (node.usable or node.due):
            return NodeTransfer(node, done, [], node.last_error)
        last = self.confirmation(node)
        for start in range(0, len(indices), WINDOW):
            window = indices[start : start + WINDOW]
            commands = (command(node, index) for index in window)
            try:
                replies = node.upload(chain(commands, last), window=WINDOW)
            except (UnavailableError, ReplyError) as error:
                return NodeTransfer(node, done, [], str(error))
            if reason := self.doubt(node, replies[len(window) :]):
                return NodeTransfer(node, done, [], reason)
            for index, reply in zip(window, replies, strict=False):
                if isinstance(reply, ReplyError):
                    reason = reason or str(reply)
                else:
                    done.append(index)
            if reason:
                return NodeTransfer(node, done, [], reason)
        return NodeTransfer(node, done, [], "")

    def _run_on_nodes(self, names: Sequence[bytes], command: Callable[[bytes], Command]) -> None:
        """Run a command for each chunk on the nodes of that chunk.

        Failures are only noted on the node: a later repair removes chunks that are left behind.
        """
        by_node: dict[Node, list[Command]] = defaultdict(list)
        for name, nodes in zip(names, self.nodes_of(names), strict=True):
            for node in nodes:
                if node.usable:
                    by_node[node].append(command(name))
        if by_node:
            self._in_parallel(_run_or_note, by_node)

    def _in_parallel(self, work: Callable[[Node, T], R], targets: Mapping[Node, T]) -> list[R]:
        """Return `work` of every item, done in parallel; the calling thread does the last one."""
        *others, mine = targets.items()
        tasks: list[Task[R]] = []
        try:
            for item in others:
                tasks.append(self._submit(work, *item))
            return [work(*mine), *(task.result() for task in tasks)]
        finally:
            for task in tasks:
                task.cancel()
            for task in tasks:
                task.wait()


class _ReadPlan:
    """Decides which chunks are requested from which nodes next."""

    def __init__(
        self, placement: ChunkPlacement, names: Sequence[bytes], wanted: Iterable[int]
    ) -> None:
        self._wanted = set(wanted)
        self._untried = {i: placement.usable_first(names[i]) for i in self._wanted}
        self._likely = {i: _likely(placement, names[i]) for i in self._wanted}
        self._damaged: set[int] = set()
        self._reasons: dict[str, str] = {}

    def next_targets(self) -> dict[Node, list[int]]:
        """Return the chunks to request from each node; an empty dict once all have come.

        Among the nodes that should have a chunk, the one with the fewest requests so far is chosen,
        because the call lasts as long as its busiest node.

        Raises:
            CorruptDataError: every node was asked for a chunk, and none has a sound copy.
            UnavailableError: some node that may have it could not be asked.
        """
        targets: dict[Node, list[int]] = defaultdict(list)
        for index in sorted(self._wanted):
            untried = self._untried[index]
            if not untried:
                raise self._error(index)
            likely = [node for node in untried if node in self._likely[index]] or untried[:1]
            node = min(likely, key=lambda one: len(targets.get(one, ())))
            untried.remove(node)
            targets[node].append(index)
        return targets

    def record(self, transfer: NodeTransfer) -> None:
        """Record what one node has sent."""
        self._wanted.difference_update(transfer.done)
        self._damaged.update(transfer.damaged)
        if transfer.reason:
            self._reasons[transfer.node.name] = transfer.reason

    def _error(self, index: int) -> MemoriesError:
        if self._reasons:
            return UnavailableError(
                f"chunk {index} of the value cannot be reached: {join_reasons(self._reasons)}"
            )
        state = "damaged" if index in self._damaged else "missing"
        return CorruptDataError(f"chunk {index} of the value is {state} on every node")


def _receive(
    node: Node,
    indices: Sequence[int],
    names: Sequence[bytes],
    views: Mapping[int, memoryview],
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
                    return NodeTransfer(node, done, damaged, str(reply))
                if reply == views[index].nbytes and chunk_sum([views[index]]) == sums[index]:
                    done.append(index)
                elif reply is not None:
                    damaged.append(index)
    except (UnavailableError, ReplyError) as error:
        return NodeTransfer(node, done, damaged, str(error))
    return NodeTransfer(node, done, damaged, "")


def _run_or_note(node: Node, commands: Sequence[Command]) -> None:
    try:
        node.pipeline(commands)
    except (UnavailableError, ReplyError) as error:
        node.last_error = str(error)


def _likely(placement: ChunkPlacement, name: bytes) -> list[Node]:
    """Return the nodes that should have a chunk and have not failed lately."""
    preferred = (placement.nodes[one] for one in placement.rank(name)[: placement.copies])
    return [node for node in preferred if node.usable]
