"""One node: its connections, the run id of its server process, and whether it is failing.

Only one call waits for a node that fails. Until a probe has got an answer, later calls skip the
node at once.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from memories.cluster.client import scripts
from memories.cluster.client.address import NodeAddress
from memories.cluster.client.connection import Connection
from memories.cluster.client.pool import ConnectionPool
from memories.cluster.client.resp import Buffer, Command, ReplyError
from memories.errors import InvalidOptionError, UnavailableError
from memories.foundation.fork_lock import new_lock

CONNECT_SECONDS = 0.5
CALL_SECONDS = 0.9
_FIRST_PAUSE_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 4.0
_MOST_TIMEOUTS = 2  # After so many timeouts in a row a node counts as hung.
# Errors that concern the whole node, not one command: an immediate retry would fail, too.
REFUSING_CODES = frozenset({"NOAUTH", "WRONGPASS", "NOPERM", "LOADING", "BUSY", "DENIED"})


class EvictingNodeError(UnavailableError, InvalidOptionError):
    """A node would drop values silently when it is full."""


class Node:
    """A node: its connection pool and its latest failures. Safe to use from many threads."""

    def __init__(
        self,
        address: NodeAddress,
        *,
        monotonic: Callable[[], float],
        allow_eviction: bool = False,
        setup_commands: Sequence[Command] = (),
    ) -> None:
        self.address = address
        self.name = address.name
        self.last_error = ""
        self.latency_seconds = 0.0
        self.up_to_date = False  # As its latest reply with an incarnation has shown.
        self._monotonic = monotonic
        self._allow_eviction = allow_eviction
        self._setup_commands = setup_commands  # Sent first on every new connection.
        self._pool = ConnectionPool(
            address, connect_seconds=CONNECT_SECONDS, call_seconds=CALL_SECONDS
        )
        self._run_ids: weakref.WeakKeyDictionary[Connection, str] = weakref.WeakKeyDictionary()
        self._lock = new_lock()
        self._pause_seconds = 0.0
        self._paused_until = 0.0
        self._timeouts = 0

    @property
    def usable(self) -> bool:
        """Return whether requests may be sent to it: it is not failing."""
        return not self._pause_seconds

    @property
    def due(self) -> bool:
        """Return whether it is failing, and the next attempt is due."""
        return bool(self._pause_seconds) and self._monotonic() >= self._paused_until

    @contextmanager
    def acquire(self) -> Iterator[Connection]:
        """Yield a connection whose server's run id is known.

        Raises:
            UnavailableError: the node cannot be reached.
            ReplyError: it refuses the login.
            EvictingNodeError: it would drop values silently.
        """
        with self._pool.acquire() as connection:
            if connection not in self._run_ids:
                self._prepare(connection)
            yield connection

    def run_id_of(self, connection: Connection) -> str:
        """Return the run id of the server process at the other end of an acquired connection."""
        return self._run_ids[connection]

    def forget_scripts(self, connection: Connection) -> None:
        """Load the scripts again when this connection is acquired next."""
        self._run_ids.pop(connection, None)

    def record_success(self, seconds: float) -> None:
        """Record an answer in time: the node is usable."""
        self.latency_seconds += (seconds - self.latency_seconds) / 8
        self._timeouts = 0
        if self._pause_seconds:
            with self._lock:
                self._pause_seconds = self._paused_until = 0.0

    def record_failure(self, error: BaseException) -> None:
        """Record a failed request: the node is not usable until a later one succeeds."""
        with self._lock:
            self.last_error = str(error)
            self.up_to_date = False
            longer = max(_FIRST_PAUSE_SECONDS, 2 * self._pause_seconds)
            self._pause_seconds = min(longer, _LONGEST_PAUSE_SECONDS)
            self._paused_until = self._monotonic() + self._pause_seconds

    def record_refusal(self, error: ReplyError) -> None:
        """Record an error reply; the node stays usable, unless it refuses all commands."""
        self.last_error = str(error)
        if error.code in REFUSING_CODES:
            self.record_failure(error)

    def record_timeout(self) -> None:
        """Record that a caller stopped waiting for an answer."""
        self._timeouts += 1
        if self._timeouts >= _MOST_TIMEOUTS:
            self.record_failure(UnavailableError(f"the node {self.name} does not answer in time"))

    def call(self, *args: Any, seconds: float | None = None) -> Any:
        """Run one command, and record its success or failure.

        Raises:
            UnavailableError: the node did not answer.
            ReplyError: it refused the command.
        """
        return self.pipeline([args], seconds=seconds, strict=True)[0]

    def pipeline(
        self,
        commands: Any,
        *,
        into: Any = None,
        seconds: float | None = None,
        strict: bool = False,
    ) -> list[Any]:
        """Run commands, and record their success or failure; with `strict` raise error replies."""
        with self._tracked(len(commands)) as connection:
            replies = connection.pipeline(commands, into=into, seconds=seconds)
        refusals = [reply for reply in replies if isinstance(reply, ReplyError)]
        for refusal in refusals:
            self.record_refusal(refusal)
        if strict and refusals:
            raise refusals[0]
        return replies

    def stream(
        self, commands: Sequence[Command], into: Sequence[Sequence[Buffer]], *, window: int
    ) -> Generator[Any, None, None]:
        """Yield replies as `Connection.stream` does, and record success or failure.

        Raises:
            UnavailableError: the node did not answer; the replies before are valid.
            ReplyError: it refuses the login.
        """
        with self._tracked(len(commands)) as connection:
            for reply in connection.stream(commands, into, window=window):
                if isinstance(reply, ReplyError):
                    self.record_refusal(reply)
                yield reply

    def close(self) -> None:
        """Close its connections."""
        self._pool.close()

    def __repr__(self) -> str:
        return f"<Node {self.name}{'' if self.usable else ', failing'}>"

    @contextmanager
    def _tracked(self, count: int) -> Iterator[Connection]:
        """Yield a connection for `count` commands, and record their success or failure."""
        began = self._monotonic()
        try:
            with self.acquire() as connection:
                yield connection
        except (UnavailableError, EvictingNodeError) as error:
            self.record_failure(error)
            raise
        except ReplyError as error:
            self.record_refusal(error)
            raise
        self.record_success((self._monotonic() - began) / max(1, count))

    def _prepare(self, connection: Connection) -> None:
        loads = [("SCRIPT", "LOAD", script.source) for script in scripts.ALL]
        info, memory, *loaded = connection.pipeline(
            [("INFO", "server"), ("INFO", "memory"), *loads, *self._setup_commands]
        )
        for reply in (info, memory, *loaded):
            if isinstance(reply, ReplyError):
                raise reply
        policy = parse_info(memory).get("maxmemory_policy", "")
        if policy.startswith("allkeys-") and not self._allow_eviction:
            raise EvictingNodeError(
                f"the node {self.name} has maxmemory-policy {policy}: it would drop values "
                "silently when it is full; set noeviction there, or pass allow_eviction=True if "
                "stored values may be lost"
            )
        self._run_ids[connection] = parse_info(info).get("run_id", "")


def parse_info(text: bytes) -> dict[str, str]:
    """Return the fields of a reply to INFO."""
    lines = (line for line in text.decode("utf-8", "replace").splitlines() if ":" in line)
    return dict(line.split(":", 1) for line in lines)
