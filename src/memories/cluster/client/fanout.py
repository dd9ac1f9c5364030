"""One question to several nodes at once, by one thread: send to all, then receive from each.

Not a quorum: who asks says when it has heard enough. The one idea: whoever is not heard in time is
left behind with its connection, so that one slow node costs nobody more than the wait he chose.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, Self

from memories.cluster.client.connection import Connection, ready
from memories.cluster.client.node import Node
from memories.cluster.client.resp import Command, ReplyError
from memories.errors import UnavailableError

Commands = Callable[[str], Sequence[Command]]  # From the life of the server that is asked.


class NodeRequest:
    """A question under way to one node, or its answer."""

    def __init__(self, node: Node, tag: Any, began: float) -> None:
        self.node = node
        self.tag = tag
        self.began = began
        self.commands: Sequence[Command] = ()
        self.replies: list[Any] = []
        self.error: BaseException | None = None
        self.connection: Connection | None = None
        self.run_id = ""  # The run id of the server that was asked.

    @property
    def done(self) -> bool:
        """Return whether all replies are there, or will never come."""
        return self.error is not None or len(self.replies) == len(self.commands)


class RequestRound:
    """Asks nodes and gathers their answers; a context manager that gives connections back."""

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
        """Send commands to a node; a fault shows as an answer of `wait`."""
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
        """Return what was answered, waiting for the first at most so long; empty if nothing was."""
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
