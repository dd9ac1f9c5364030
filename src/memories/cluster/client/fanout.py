"""Requests to several nodes at once from one thread: send to all, then receive from each.

The caller decides when it has enough answers. The connection to a node that has not answered by
then is closed, so that a slow node delays a call by no more than the chosen wait. One small request
to each node has a way of its own, `ask_at_once`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self, TypeAlias

from memories.cluster.client.connection import Connection, ready
from memories.cluster.client.latency import HEDGE_SECONDS, PATIENCE_SECONDS
from memories.cluster.client.node import Node
from memories.cluster.client.resp import Command, ReplyError
from memories.errors import UnavailableError

# The run id of a server, and its replies: bytes if they end as expected, else decoded.
SmallReply: TypeAlias = tuple[str, bytes | list[Any]]
Commands = Callable[[str], Sequence[Command]]  # Made from the run id of the server.


def ask_at_once(
    nodes: Sequence[Node],
    build: Callable[[int, str], bytes],
    count: int,
    begin: bytes,
    end: Callable[[str], bytes],
    monotonic: Callable[[], float],
    *,
    seconds: float = 0.0,
) -> list[SmallReply] | None:
    """Send one small request to each node, and return the replies; None if one does not come.

    It uses connections that were in use a moment ago, so that nothing has to be opened or checked.
    If there is none, nothing is sent, and the list is empty.

    Args:
        nodes: They are asked in this order.
        build: Returns `count` encoded commands for a node, from its index and its run id.
        count: How many commands.
        begin: The bytes with which the replies begin if they are as expected.
        end: Returns the bytes with which they end then, from the run id.
        monotonic: Returns seconds that never run backwards.
        seconds: How much longer than usually an answer may take.
    """
    held: list[Connection] = []
    began = monotonic()
    try:
        for node in nodes:
            connection = node.take_idle()
            if connection is None:
                return []
            held.append(connection)
        for index, connection in enumerate(held):
            data = build(index, connection.run_id)
            connection.post(data, count, nodes[index].latency.hedge_seconds + seconds)
        replies: list[SmallReply] = []
        for connection in held:
            run_id = connection.run_id
            replies.append((run_id, connection.fetch(begin, end(run_id))))
    except UnavailableError:
        if monotonic() - began >= HEDGE_SECONDS + seconds:
            for node, connection in zip(nodes, held, strict=False):
                if connection.pending:
                    node.record_timeout()
        return None  # The caller asks in the other way.
    finally:
        for node, connection in zip(nodes, held, strict=False):
            node.give(connection)
    spent = monotonic() - began
    for node in nodes:
        node.record_quick(spent)
    return replies


class NodeRequest:
    """Commands sent to one node, and the replies received so far."""

    def __init__(self, node: Node, tag: Any, began: float) -> None:
        self.node = node
        self.tag = tag
        self.began = began
        self.commands: Sequence[Command] = ()
        self.replies: list[Any] = []
        self.error: BaseException | None = None
        self.connection: Connection | None = None
        self.run_id = ""  # Of the server process that got the commands.

    @property
    def done(self) -> bool:
        """Return whether all replies have come, or the request has failed."""
        return self.error is not None or len(self.replies) == len(self.commands)


class RequestRound:
    """Sends requests and collects answers; as a context manager it releases the connections."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._held: list[tuple[Node, Connection]] = []
        self.hedge_seconds = HEDGE_SECONDS  # Of the slowest node that was asked.
        self.patience_seconds = PATIENCE_SECONDS
        self._open: dict[Connection, NodeRequest] = {}
        self._failed: list[NodeRequest] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        if kind is None or issubclass(kind, Exception):  # Else the caller was interrupted.
            for request in self._open.values():
                request.node.record_timeout()
        for node, connection in self._held:
            node.give(connection)

    @property
    def waiting(self) -> int:
        """Return how many nodes have not answered yet."""
        return len(self._open)

    def ask(self, node: Node, commands: Commands, tag: Any = None) -> None:
        """Send commands to a node; if that fails, `wait` returns the request with the error."""
        request = NodeRequest(node, tag, self._monotonic())
        try:
            connection = node.take()
            self._held.append((node, connection))
            request.connection = connection
            request.run_id = connection.run_id
            request.commands = commands(request.run_id)
            connection.send(request.commands, seconds=node.latency.patience_seconds)
        except (UnavailableError, ReplyError) as error:
            self._fail(request, error)
        else:
            self._open[connection] = request
            self.hedge_seconds = max(self.hedge_seconds, node.latency.hedge_seconds)
            self.patience_seconds = max(self.patience_seconds, node.latency.patience_seconds)

    def wait(self, seconds: float) -> list[NodeRequest]:
        """Return the requests that are done; wait at most `seconds` for the first of them."""
        failed, self._failed = self._failed, []
        if failed:
            return failed
        done: list[NodeRequest] = []
        end = self._monotonic() + seconds
        while self._open and not done:
            found = ready(list(self._open), end - self._monotonic())
            for connection in found:
                request = self._open[connection]
                self._receive(request, connection)
                if request.done:
                    self._open.pop(connection, None)
                    done.append(request)
            if not found and self._monotonic() >= end:
                break
        self._failed.clear()
        return done

    def _receive(self, request: NodeRequest, connection: Connection) -> None:
        try:
            while not request.done and connection.ready():
                request.replies += connection.receive_some()
        except UnavailableError as error:
            self._fail(request, error)
            return
        if request.done:
            request.node.record_success((self._monotonic() - request.began) / len(request.commands))
            for reply in request.replies:
                if isinstance(reply, ReplyError):
                    request.node.record_refusal(reply)

    def _fail(self, request: NodeRequest, error: BaseException) -> None:
        request.error = error
        if isinstance(error, ReplyError):
            request.node.record_refusal(error)
        request.node.record_failure(error)
        self._failed.append(request)
