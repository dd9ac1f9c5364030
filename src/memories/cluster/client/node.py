"""One node: its connections, the run id of its server process, and whether it is failing.

Only one call waits for a node that fails. Until a probe has got an answer, later calls skip the
node at once.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from memories.cluster.client import scripts
from memories.cluster.client.address import NodeAddress
from memories.cluster.client.connection import Connection
from memories.cluster.client.latency import NodeLatency
from memories.cluster.client.pool import ConnectionPool
from memories.cluster.client.resp import Buffer, Command, ReplyError
from memories.errors import InvalidOptionError, UnavailableError
from memories.foundation.fork_lock import new_lock
from memories.foundation.printable import printable

CLIENT_NAME = "memories"
_MOST_SHOWN = 200  # Characters of what a node says of itself.
_NUMBER = re.compile(r"-?[0-9]{1,19}")
_FIRST_PAUSE_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 4.0
_QUICK_SECONDS = 0.005  # Below, the limits do not depend on the exact time.
_NEAR_SECONDS = 0.002  # A chunk takes many times as long on a line of 1 Gbit/s.
# Errors that concern the whole node, not one command: an immediate retry would fail, too.
REFUSING_CODES = frozenset({"NOAUTH", "WRONGPASS", "NOPERM", "LOADING", "BUSY", "DENIED"})


_SECTIONS = ("server", "memory", "cluster", "replication")


class ServerInfo(NamedTuple):
    """What a server has said of itself."""

    run_id: str = ""  # Empty while it has said nothing.
    clustered: bool = False
    is_replica: bool = False


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
        expected_seconds: float = 0.0,
        with_values: bool = True,
    ) -> None:
        self.address = address
        self.name = address.name  # Or by which name the members know it.
        self.last_error = ""
        self.latency = NodeLatency(address.timeout, expected_seconds)
        self.up_to_date = False  # As its latest reply with an incarnation has shown.
        self.server = ServerInfo()  # As the newest connection has found it.
        self._monotonic = monotonic
        self._allow_eviction = allow_eviction
        self._setup_commands = setup_commands  # Sent first on every new connection.
        self._scripts = scripts.ALL if with_values else ()  # A Sentinel runs none.
        self.pool = ConnectionPool(address, latency=self.latency)
        self._lock = new_lock()
        self._pause_seconds = 0.0
        self._paused_until = 0.0
        self._given_up = math.inf  # When the first caller stopped waiting, since the last answer.
        self._probing = False

    @property
    def usable(self) -> bool:
        """Return whether requests may be sent to it: it is not failing."""
        return not self._pause_seconds

    @property
    def connected(self) -> bool:
        """Return whether a prepared connection to it is idle."""
        return any(one.run_id for one in self.pool.idle)

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
        connection = self.take()
        try:
            yield connection
        finally:
            self.give(connection)

    def take(self, seconds: float | None = None) -> Connection:
        """Return a connection, which the caller gives back; raises like `acquire`.

        Args:
            seconds: How long each step of opening one may take; by default as measured.
        """
        limit = self.latency.connect_seconds if seconds is None else seconds
        connection = self.pool.take(limit)
        if not connection.run_id:
            try:
                self._prepare(connection, limit)
            except BaseException:
                connection.close()
                self.pool.give(connection)
                raise
        return connection

    def give(self, connection: Connection) -> None:
        """Give back a connection; it is closed unless all of its replies were received."""
        self.pool.give(connection)

    def use_setup(self, commands: Sequence[Command]) -> None:
        """Send other commands first on every connection, also on those that are idle now."""
        self._setup_commands = commands
        for connection in self.pool.idle:
            self.forget_scripts(connection)

    def forget_scripts(self, connection: Connection) -> None:
        """Load the scripts again when this connection is acquired next."""
        connection.run_id = ""

    def record_success(self, seconds: float) -> None:
        """Record an answer in time: the node is usable."""
        self.latency.record(seconds)
        self._given_up = math.inf
        if self._pause_seconds:
            with self._lock:
                self._pause_seconds = self._paused_until = 0.0

    def record_quick(self, seconds: float) -> None:
        """Record an answer in time as `record_success` does; most of them change nothing."""
        if (
            seconds > _QUICK_SECONDS
            or self.latency.seconds > _QUICK_SECONDS
            or self._pause_seconds
            or self._given_up < math.inf
        ):
            self.record_success(seconds)

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

    def record_timeout(self, asked: float) -> None:
        """Record that a caller, who asked at this time, stopped waiting for an answer.

        One timeout may be a moment in which the server stalls, and any number of threads wait for
        it then. A request that was sent after the first of them gave up, and got no answer either,
        shows that the node hangs.
        """
        self.pool.drop_idle()
        if self._given_up == math.inf:
            self._given_up = self._monotonic()
            self.latency.back_off()
        elif asked >= self._given_up:
            self.latency.back_off()
            self.record_failure(UnavailableError(f"the node {self.name} does not answer in time"))

    def probe(self) -> None:
        """Ask a failing node for an answer, with more patience than others have; record it.

        Raises:
            UnavailableError: the node did not answer.
            ReplyError: it refused the command.
        """
        if self._probing:
            return
        self._probing = True
        try:
            limit = self.latency.probe_seconds
            connection = self.take(limit)
            try:
                began = self._monotonic()
                connection.call("PING", seconds=limit)
                self.latency.record_probe(self._monotonic() - began)
            finally:
                self.give(connection)
        except (UnavailableError, ReplyError) as error:
            self.latency.back_off()
            self.record_failure(error)
            raise
        finally:
            self._probing = False
        self.record_success(self.latency.seconds)

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
        if seconds is None:
            seconds = self.latency.patience_seconds
        with self._tracked(len(commands)) as connection:
            replies = connection.pipeline(commands, into=into, seconds=seconds)
        refusals = self._record_refusals(replies)
        if strict and refusals:
            raise refusals[0]
        return replies

    def upload(self, commands: Iterable[Command], *, window: int) -> list[Any]:
        """Run commands with chunks as `Connection.upload` does, and record success or failure.

        A near node answers at once: there each waits for the answer to the one before. More of them
        would push each other out of the processor's cache.
        """
        near = self.latency.seconds < _NEAR_SECONDS
        with self._tracked() as connection:
            replies = connection.upload(
                commands, window=1 if near else window, seconds=self.address.timeout
            )
        self._record_refusals(replies)
        return replies

    def stream(
        self, commands: Sequence[Command], into: Sequence[Sequence[Buffer]], *, window: int
    ) -> Generator[Any, None, None]:
        """Yield replies as `Connection.stream` does, and record success or failure.

        Raises:
            UnavailableError: the node did not answer; the replies before are valid.
            ReplyError: it refuses the login.
        """
        seconds = self.latency.patience_seconds
        with self._tracked() as connection:
            for reply in connection.stream(commands, into, window=window, seconds=seconds):
                if isinstance(reply, ReplyError):
                    self.record_refusal(reply)
                yield reply

    def close(self) -> None:
        """Close its connections."""
        self.pool.close()

    def __repr__(self) -> str:
        return f"<Node {self.name}{'' if self.usable else ', failing'}>"

    @contextmanager
    def _tracked(self, count: int = 0) -> Iterator[Connection]:
        """Yield a connection, and record success or failure, and how long `count` commands took."""
        try:
            with self.acquire() as connection:
                asked = self._monotonic()
                yield connection
        except (UnavailableError, EvictingNodeError) as error:
            self.record_failure(error)
            raise
        except ReplyError as error:
            self.record_refusal(error)
            raise
        spent = (self._monotonic() - asked) / count if count else self.latency.seconds
        self.record_success(spent)

    def _record_refusals(self, replies: Iterable[Any]) -> list[ReplyError]:
        refusals = [reply for reply in replies if isinstance(reply, ReplyError)]
        for refusal in refusals:
            self.record_refusal(refusal)
        return refusals

    def _prepare(self, connection: Connection, seconds: float) -> None:
        loads = [("SCRIPT", "LOAD", script.source) for script in self._scripts]
        began = self._monotonic()
        _, *replies = connection.pipeline(
            [
                ("CLIENT", "SETNAME", CLIENT_NAME),  # A node may refuse this one.
                *(("INFO", section) for section in _SECTIONS),
                *loads,
                *self._setup_commands,
            ],
            seconds=seconds,
        )
        for reply in replies[: len(_SECTIONS) + len(loads)]:
            if isinstance(reply, ReplyError):
                raise reply
        fields: dict[str, str] = {}
        for reply in replies[: len(_SECTIONS)]:
            fields.update(parse_info(reply))
        policy = fields.get("maxmemory_policy", "")
        if policy.startswith("allkeys-") and not self._allow_eviction:
            raise EvictingNodeError(
                f"the node {self.name} has maxmemory-policy {policy}: it would drop values "
                "silently when it is full; set noeviction there, or pass allow_eviction=True if "
                "stored values may be lost"
            )
        if not self.latency.seconds:
            self.latency.record_probe(self._monotonic() - began)
        self.server = ServerInfo(
            fields.get("run_id", ""),
            fields.get("cluster_enabled") == "1",
            fields.get("role") in ("slave", "replica"),
        )
        connection.run_id = self.server.run_id


def parse_info(reply: Any) -> dict[str, str]:
    """Return the fields of a reply to INFO, fit for display; none of one that is no text."""
    text = reply.decode("utf-8", "replace") if isinstance(reply, bytes) else ""
    lines = (line.partition(":") for line in text.splitlines() if ":" in line)
    return {name: printable(value, _MOST_SHOWN) for name, _, value in lines}


def info_number(fields: Mapping[str, str], name: str) -> int:
    """Return a number in a reply to INFO; 0 if it is missing, or is none."""
    text = fields.get(name, "")
    return int(text) if _NUMBER.fullmatch(text) else 0
