"""Requests to several nodes at once from one thread: send to all, then receive from each.

The caller decides when it has enough answers. The connection to a node that has not answered by
then is closed, so that a slow node delays a call by no more than the chosen wait. One small request
to each node has a way of its own, `quick_round`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Self, TypeAlias

from memories.cluster.client.connection import Connection, ready
from memories.cluster.client.latency import HEDGE_SECONDS, PATIENCE_SECONDS
from memories.cluster.client.node import Node
from memories.cluster.client.opening import open_connections
from memories.cluster.client.resp import Command, ReplyError
from memories.errors import MemoriesError, UnavailableError

# What is sent to a node, or what makes it from the run id of its server.
Commands: TypeAlias = Sequence[Command] | Callable[[str], Sequence[Command]]


class NodeRequest:
    """Commands sent to one node, and the replies received so far."""

    def __init__(self, node: Node, tag: Any, began: float) -> None:
        self.node = node
        self.tag = tag
        self.began = began
        self.commands: Sequence[Command] = ()
        self.replies: list[Any] = []
        self.error: MemoriesError | None = None
        self.connection: Connection | None = None
        self.run_id = ""  # Of the server process that got the commands.

    @property
    def done(self) -> bool:
        """Return whether all replies have come, or the request has failed."""
        return self.error is not None or len(self.replies) == len(self.commands)

    @property
    def first_error(self) -> MemoriesError | None:
        """Return why it has failed, or else the first error among its replies."""
        refused = (reply for reply in self.replies if isinstance(reply, ReplyError))
        return self.error or next(refused, None)


class RequestRound:
    """Sends requests and collects answers; as a context manager it releases the connections.

    Each node has one connection, on which its requests follow one another without waiting.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._held: list[tuple[Node, Connection]] = []
        self._newest: dict[Node, Connection] = {}  # Of those held.
        self.hedge_seconds = HEDGE_SECONDS  # Of the slowest node that was asked.
        self.patience_seconds = PATIENCE_SECONDS
        self._open: dict[Connection, deque[NodeRequest]] = {}
        self._failed: list[NodeRequest] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        # Another error came from this process, such as an interrupt: no node is to blame for it.
        if kind is None or issubclass(kind, MemoriesError):
            for requests in self._open.values():
                requests[0].node.record_timeout(requests[0].began)
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
            connection = self._newest.get(node)
            if connection is None or connection.closed or not connection.run_id:
                connection = node.take()
                self._held.append((node, connection))
                self._newest[node] = connection
            request.connection = connection
            request.run_id = connection.run_id
            request.commands = commands(request.run_id) if callable(commands) else commands
            connection.send(request.commands, seconds=node.latency.patience_seconds)
        except (UnavailableError, ReplyError) as error:
            self._fail(request, error)
            if request.connection is not None:
                self._fail_all(request.connection, error)
        else:
            self._open.setdefault(connection, deque()).append(request)
            self.hedge_seconds = max(self.hedge_seconds, node.latency.hedge_seconds)
            self.patience_seconds = max(self.patience_seconds, node.latency.patience_seconds)

    def wait(self, seconds: float) -> list[NodeRequest]:
        """Return the requests that are done; wait at most `seconds` for the first of them."""
        done: list[NodeRequest] = []
        end = self._monotonic() + seconds
        while self._open and not self._failed and not done:
            found = ready(list(self._open), end - self._monotonic())
            for connection in found:
                self._receive(connection, done)
            if not found and self._monotonic() >= end:
                break
        done += self._failed
        self._failed = []
        return done

    def _receive(self, connection: Connection, done: list[NodeRequest]) -> None:
        requests = self._open[connection]
        try:
            while requests and connection.ready():
                request = requests[0]
                lacking = len(request.commands) - len(request.replies)
                request.replies += connection.receive_some(lacking)
                if request.done:
                    requests.popleft()
                    done.append(request)
                    self._record(request)
        except UnavailableError as error:
            self._fail_all(connection, error)
            return
        if not requests:
            del self._open[connection]

    def _record(self, request: NodeRequest) -> None:
        request.node.record_success((self._monotonic() - request.began) / len(request.commands))
        for reply in request.replies:
            if isinstance(reply, ReplyError):
                request.node.record_refusal(reply)

    def _fail_all(self, connection: Connection, error: MemoriesError) -> None:
        """Fail what waits for an answer on a connection that was closed."""
        if connection.closed:
            for request in self._open.pop(connection, ()):
                self._fail(request, error)

    def _fail(self, request: NodeRequest, error: MemoriesError) -> None:
        request.error = error
        if isinstance(error, ReplyError):
            request.node.record_refusal(error)
        request.node.record_failure(error)
        self._failed.append(request)


def ask_nodes(
    requests: Sequence[tuple[Node, Sequence[Command]]],
    monotonic: Callable[[], float],
    seconds: float,
) -> list[NodeRequest]:
    """Send each node its commands, all at once, and return the requests that are done in time.

    Connections that are lacking are opened first, and all at once, too.

    Args:
        requests: The nodes, and what to send to each.
        monotonic: Returns seconds that never run backwards.
        seconds: How long to wait for the next answer, if the nodes are not far.
    """
    done: list[NodeRequest] = []
    errors = open_connections(node for node, _ in requests)
    with RequestRound(monotonic) as round_:
        for node, commands in requests:
            if node in errors:
                failed = NodeRequest(node, None, monotonic())
                failed.error = errors[node]
                done.append(failed)
            else:
                round_.ask(node, commands)
        while answers := round_.wait(max(seconds, round_.patience_seconds)):
            done += answers
    return done
