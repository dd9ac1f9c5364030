"""A pool of connections to one node; each connection is used by one thread at a time.

A connection returns to the pool only if every reply was received, and an idle one is checked before
it is used again. It neither retries nor breaks a circuit: `Node` does that.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

from memories.cluster.client.address import NodeAddress
from memories.cluster.client.connection import Connection
from memories.errors import ClosedError
from memories.foundation.fork_lock import new_lock

IDLE_CONNECTIONS = 8


class ConnectionPool:
    """Gives connections to any number of threads, and keeps some that are idle.

    There is no limit on how many are in use at once. A forked child does not use the connections of
    its parent.

    Args:
        address: The node.
        size: How many idle connections are kept.
        options: The options of every `Connection`.
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
        """Yield a connection, which the block uses alone.

        Raises:
            UnavailableError: a new one was needed, and the node cannot be reached.
            ReplyError: the node refuses the login.
            ClosedError: the pool was closed.
        """
        connection = self._idle_connection() or Connection(self.address, **self._options)
        try:
            yield connection
        finally:
            self._release(connection)

    def close(self) -> None:
        """Close idle connections now, and those in use once they are released. Idempotent."""
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
        return f"<ConnectionPool of {self.address.name}>"

    def _idle_connection(self) -> Connection | None:
        while True:
            with self._lock:
                if self._closed:
                    raise ClosedError(f"the connections to {self.address.name} were closed")
                self._drop_parents_connections()
                if not self._idle:
                    return None
                connection = self._idle.pop()
            # Bytes without a request, or the end of the connection: it cannot be used again.
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
