"""One small request to each of a few nodes, from one thread, and replies that need no decoding.

The connections were in use a moment ago: nothing has to be opened or checked. Everything unusual is
left to the caller, who asks in the general way (`fanout`).
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

    __slots__ = ("_held", "_monotonic", "_nodes", "run_ids")

    def __init__(self, nodes: Sequence[Node], monotonic: Callable[[], float]) -> None:
        self._nodes = nodes
        self._monotonic = monotonic
        self._held: list[Connection] = []
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
        for node, connection in zip(self._nodes, self._held, strict=False):
            node.pool.give(connection)

    def ask(
        self,
        requests: Sequence[bytes],
        count: int,
        parsers: Sequence[Callable[[bytes], bytes | None]],
        *,
        meanwhile: Callable[[], object] | None = None,
        seconds: float = 0.0,
    ) -> list[SmallReply] | None:
        """Send a request to each node, and return the replies; None if one does not come.

        Args:
            requests: Encoded commands for each node; for the first nodes only, if there are fewer.
            count: How many commands are in each.
            parsers: For each node, what makes a value of all its replies. It returns None unless
                the bytes are all replies and nothing else; then they are decoded.
            meanwhile: Called while the nodes work.
            seconds: How much longer than usually an answer may take.
        """
        began = self._monotonic()
        replies: list[SmallReply] = []
        try:
            for connection, data in zip(self._held, requests, strict=False):
                connection.pending = count  # It is closed when it is given back like that.
                connection.transport.post(data)
            if meanwhile is not None:
                meanwhile()
            for node, connection, parse in zip(self._nodes, self._held, parsers, strict=False):
                limit = node.latency.hedge_seconds + seconds
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
            if self._monotonic() - began >= HEDGE_SECONDS + seconds:
                for node, connection in zip(self._nodes, self._held, strict=False):
                    if connection.pending:
                        node.record_timeout(began)
            return None  # The caller asks in the other way.
        spent = self._monotonic() - began
        for node in self._nodes:
            node.record_quick(spent)
        return replies
