"""Requests to several nodes at once from one thread: send to all, then receive from each.

The caller decides when it has enough answers. The connection to a node that has not answered by
then is closed, so that a slow node delays a call by no more than the chosen wait.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, Self

from memories.cluster.client.connection import Connection, ready
from memories.cluster.client.node import Node
from memories.cluster.client.resp import Command, ReplyError
from memories.errors import UnavailableError

Commands = Callable[[str], Sequence[Command]]  # Made from the run id of the server.


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
        self._stack = ExitStack()
        self._open: dict[Connection, NodeRequest] = {}
        self._failed: list[NodeRequest] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        if kind is None or issubclass(kind, Exception):  # Else the caller was interrupted.
            for request in self._open.values():
                request.node.record_timeout()
        self._stack.close()

    @property
    def waiting(self) -> int:
        """Return how many nodes have not answered yet."""
        return len(self._open)

    def ask(self, node: Node, commands: Commands, tag: Any = None) -> None:
        """Send commands to a node; if that fails, `wait` returns the request with the error."""
        request = NodeRequest(node, tag, self._monotonic())
        try:
            request.connection = self._stack.enter_context(node.acquire())
            request.run_id = node.run_id_of(request.connection)
            request.commands = commands(request.run_id)
            request.connection.send(request.commands)
        except (UnavailableError, ReplyError) as error:
            self._fail(request, error)
        else:
            self._open[request.connection] = request

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
                request.replies.append(connection.receive())
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
