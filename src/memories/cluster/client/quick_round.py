"""One small request to each of a few nodes, from one thread, and replies that need no decoding.

The connections were in use a moment ago: nothing has to be opened or checked. Everything unusual is
left to the caller, who asks in the general way (`fanout`). What the caller does between `send` and
`receive` is done while the nodes work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self, TypeAlias

from memories.cluster.client.connection import Connection
from memories.cluster.client.latency import HEDGE_SECONDS
from memories.cluster.client.node import Node
from memories.errors import UnavailableError

# The replies of a server: what its parser returns, or all of them, decoded.
SmallReply: TypeAlias = bytes | list[Any]


class QuickRound:
    """Connections for small requests to several nodes; as a context manager it gives them back.

    Attributes:
        run_ids: Of the server of each connection; empty if a node has no connection at hand.
    """

    __slots__ = ("_began", "_count", "_held", "_monotonic", "_nodes", "_spent", "run_ids")

    def __init__(self, nodes: Sequence[Node], monotonic: Callable[[], float]) -> None:
        self._nodes = nodes
        self._monotonic = monotonic
        self._held: list[Connection] = []
        self._began, self._count = 0.0, 0
        self._spent = 0.0  # The longest time in which all nodes have answered.
        self.run_ids: list[str] = []

    def __enter__(self) -> Self:
        for node in self._nodes:
            connection = node.pool.take_idle()
            if connection is None:
                self.run_ids = []
                break
            self._held.append(connection)
            self.run_ids.append(connection.run_id)
        return self

    def __exit__(self, *exc: object) -> None:
        spent = self._spent
        for index, connection in enumerate(self._held):
            node = self._nodes[index]
            node.pool.give(connection)
            if spent:
                node.record_quick(spent)

    def send(self, requests: Sequence[bytes], count: int) -> None:
        """Send a request of `count` encoded commands to each node; `receive` follows.

        Fewer requests than nodes go to the first nodes only.

        Raises:
            UnavailableError: a node did not take it.
        """
        self._began, self._count = self._monotonic(), count
        for index, data in enumerate(requests):
            connection = self._held[index]
            connection.pending = count  # It is closed when it is given back like that.
            connection.transport.post(data)

    def receive(
        self, parsers: Sequence[Callable[[bytes], bytes | None]], *, seconds: float = 0.0
    ) -> list[SmallReply]:
        """Return the replies of the nodes to which a request was sent.

        Args:
            parsers: For each node, what makes a value of all its replies. It returns None unless
                the bytes are all replies and nothing else; then they are decoded.
            seconds: How much longer than usually an answer may take.

        Raises:
            UnavailableError: a reply does not come.
        """
        began, count = self._began, self._count
        replies: list[SmallReply] = []
        try:
            for index, parse in enumerate(parsers):
                connection = self._held[index]
                limit = self._nodes[index].latency.hedge_seconds + seconds
                received = connection.transport.fetch(limit)
                parsed = parse(received)
                if parsed is None and received.count(b"\r\n") < count:
                    received += connection.transport.fetch(limit)  # A command that waits was last.
                    parsed = parse(received)
                if parsed is None:
                    replies.append(connection.decode(received))
                else:
                    connection.pending = 0
                    replies.append(parsed)
        except UnavailableError:
            self._spent = 0.0
            if self._monotonic() - began >= HEDGE_SECONDS + seconds:
                for index, connection in enumerate(self._held):
                    if connection.pending:
                        self._nodes[index].record_timeout(began)
            raise
        self._spent = max(self._spent, self._monotonic() - began)
        return replies
