"""Connections to one node, lent to one thread at a time and used again.

Not a circuit breaker and no retries. The one idea: a connection comes back only if every reply was
received, and what lies idle is looked at before it is lent again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

from memories.cluster.client.address import NodeAddress
from memories.cluster.client.connection import Connection
from memories.cluster.client.resp import Arg, Buffer, Command, Reply
from memories.errors import ClosedError
from memories.foundation.fork_lock import new_lock

IDLE_CONNECTIONS = 8


class ConnectionPool:
    """Lends connections to one node to any number of threads, and keeps some that are idle.

    It makes as many as are lent at once. In a forked child it forgets those of its parent.

    Args:
        address: The node.
        size: How many idle connections are kept.
        options: Those of every `Connection`.
    """

    def __init__(
        self, address: NodeAddress, *, size: int = IDLE_CONNECTIONS, **options: Any
    ) -> None:
        self.address = address
        self._size = size
        self._options = options
        self._idle: list[Connection] = []
        self._lock = new_lock()
        self._pid = os.getpid()
        self._closed = False

    @contextmanager
    def acquire(self) -> Iterator[Connection]:
        """Lend a connection for as long as the block lasts.

        Raises:
            UnavailableError: a new one was needed, and the node cannot be reached.
            ReplyError: the node does not let us in.
            ClosedError: the pool was closed.
        """
        connection = self._idle_connection() or Connection(self.address, **self._options)
        try:
            yield connection
        finally:
            self._release(connection)

    def call(self, *args: Arg, seconds: float | None = None) -> Reply:
        """Call as `Connection.call` does, on a connection of the pool."""
        with self.acquire() as connection:
            return connection.call(*args, seconds=seconds)

    def pipeline(
        self,
        commands: Sequence[Command],
        *,
        into: Sequence[Sequence[Buffer] | None] | None = None,
        seconds: float | None = None,
    ) -> list[Reply]:
        """Send commands as `Connection.pipeline` does, on a connection of the pool."""
        with self.acquire() as connection:
            return connection.pipeline(commands, into=into, seconds=seconds)

    def read_into(
        self, command: Command, *buffers: Buffer, seconds: float | None = None
    ) -> int | None:
        """Read as `Connection.read_into` does, on a connection of the pool."""
        with self.acquire() as connection:
            return connection.read_into(command, *buffers, seconds=seconds)

    def close(self) -> None:
        """Close what is idle, and what is lent once it comes back; closing twice is fine."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Pool of {self.address.name}>"

    def _idle_connection(self) -> Connection | None:
        while True:
            with self._lock:
                if self._closed:
                    raise ClosedError(f"the connections to {self.address.name} were closed")
                self._drop_parents_connections()
                if not self._idle:
                    return None
                connection = self._idle.pop()
            # Bytes that nobody asked for, or the end: either way it is of no use any more.
            if not connection.ready():
                return connection
            connection.close()

    def _release(self, connection: Connection) -> None:
        if connection.closed:
            return
        with self._lock:
            sound = not connection.pending and not self._closed and self._pid == os.getpid()
            if sound and len(self._idle) < self._size:
                self._idle.append(connection)
                return
        connection.close()

    def _drop_parents_connections(self) -> None:
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._idle = []
