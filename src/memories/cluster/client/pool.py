"""A pool of connections to one node; each connection is used by one thread at a time.

A connection returns to the pool only if every reply was received, and an idle one is checked before
it is used again. The pool is bounded: who needs one more waits. It neither retries nor breaks a
circuit: `Node` does that.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

from memories.cluster.client.address import NodeAddress
from memories.cluster.client.connection import Connection
from memories.cluster.client.latency import NodeLatency
from memories.cluster.client.resp import ReplyError
from memories.errors import ClosedError, UnavailableError
from memories.foundation.fork_lock import new_lock
from memories.foundation.forks import after_fork
from memories.foundation.periodic import AutoResetEvent

IDLE_CONNECTIONS = 8
# A firewall or load balancer may have forgotten a connection that was idle for longer.
CHECKED_SECONDS = 10.0
_TRUSTED_SECONDS = 0.5  # So soon the end of a connection need not be looked for.
_LOOK_SECONDS = 0.05


class _Ticket:
    """Stands for one connection that is open, or being opened; counted until it is garbage."""

    __slots__ = ("__weakref__",)


class ConnectionPool:
    """Gives connections to any number of threads, and keeps some that are idle.

    A forked child does not use the connections of its parent.

    Args:
        address: The node; `max_connections` and `timeout` of it hold for all threads together.
        latency: What is known of the node; its limits hold for opening and checking.
        size: How many idle connections are kept.
        options: The options of every `Connection`.
    """

    def __init__(
        self,
        address: NodeAddress,
        *,
        latency: NodeLatency | None = None,
        size: int = IDLE_CONNECTIONS,
        **options: Any,
    ) -> None:
        self.address = address
        self._latency = latency or NodeLatency(address.timeout)
        self._size = size
        self._options = options
        self._idle: list[Connection] = []
        self._tickets: weakref.WeakSet[_Ticket] = weakref.WeakSet()
        self._returned = AutoResetEvent()
        self._waiting = 0
        self._lock = new_lock()
        self._pid = os.getpid()
        self._closed = False
        _pools.add(self)

    @property
    def idle(self) -> tuple[Connection, ...]:
        """Return the connections that are idle now, in this process."""
        return tuple(self._idle)

    @contextmanager
    def acquire(self) -> Iterator[Connection]:
        """Yield a connection, which the block uses alone.

        Raises:
            UnavailableError: a new one was needed, and the node cannot be reached; or all are in
                use for too long.
            ReplyError: the node refuses the login.
            ClosedError: the pool was closed.
        """
        connection = self.take()
        try:
            yield connection
        finally:
            self.give(connection)

    def take(self, connect_seconds: float | None = None) -> Connection:
        """Return a connection, which the caller gives back; raises like `acquire`.

        Args:
            connect_seconds: How long each step of opening one may take; by default as measured.
        """
        end = time.monotonic() + self.address.timeout
        while True:
            connection = self._idle_connection()
            if connection is not None:
                return connection
            ticket = self._ticket()
            if ticket is not None:
                break
            if time.monotonic() >= end:
                raise UnavailableError(
                    f"all {self.address.max_connections} connections to the node "
                    f"{self.address.name} were in use for {self.address.timeout:g} s; raise "
                    "max_connections in node_options, or use fewer threads"
                )
            self._waiting += 1
            try:
                self._returned.wait(_LOOK_SECONDS)
            finally:
                self._waiting -= 1
        limit = self._latency.connect_seconds if connect_seconds is None else connect_seconds
        options = {"connect_seconds": limit, **self._options}
        connection = Connection(self.address, **options)
        connection.ticket = ticket
        return connection

    def take_idle(self) -> Connection | None:
        """Return a prepared connection that was in use a moment ago; None if there is none."""
        try:
            connection = self._idle.pop()
        except IndexError:
            return None
        recent = time.monotonic() - connection.idle_since < _TRUSTED_SECONDS
        if recent and connection.run_id and not self._closed:
            return connection
        self._idle.append(connection)
        return None

    def give(self, connection: Connection) -> None:
        """Give back a connection of `take`; it is closed unless it can be used again."""
        sound = not (connection.closed or connection.pending or self._closed)
        if sound and len(self._idle) < self._size and connection.pid == self._pid:
            connection.idle_since = time.monotonic()
            self._idle.append(connection)
            if self._closed:
                self.drop_idle()  # Closed by another thread in between.
        else:
            connection.close()
        if self._waiting:
            self._returned.add()

    def drop_idle(self) -> None:
        """Close the idle connections, after one of them gave no answer."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def close(self) -> None:
        """Close idle connections now, and those in use once they are released. Idempotent."""
        self._closed = True
        self.drop_idle()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<ConnectionPool of {self.address.name}>"

    def _ticket(self) -> _Ticket | None:
        with self._lock:
            if len(self._tickets) >= self.address.max_connections:
                return None
            ticket = _Ticket()
            self._tickets.add(ticket)
            return ticket

    def _idle_connection(self) -> Connection | None:
        while True:
            with self._lock:
                if self._closed:
                    raise ClosedError(f"the connections to {self.address.name} were closed")
                if not self._idle:
                    return None
                connection = self._idle.pop()
            # Bytes without a request, or the end of the connection: it cannot be used again.
            if not connection.ready() and self._is_alive(connection):
                return connection
            connection.close()

    def _is_alive(self, connection: Connection) -> bool:
        """Ask for an answer, if the connection was idle for long."""
        if time.monotonic() - connection.idle_since < CHECKED_SECONDS:
            return True
        try:
            connection.call("PING", seconds=self._latency.hedge_seconds)
        except ReplyError:
            return True  # The server refuses the command, but it has answered.
        except UnavailableError:
            self.drop_idle()  # What has forgotten this one has forgotten the others.
            return False
        return True

    def _in_child(self) -> None:
        self._pid = os.getpid()
        self._idle = []
        self._tickets = weakref.WeakSet()


# Asking for the process id at each call would take as long as some requests of a small value.
_pools: weakref.WeakSet[ConnectionPool] = weakref.WeakSet()
after_fork(_pools, ConnectionPool._in_child)
