"""One node as the store sees it: its connections, which life of the server they lead to, and
whether it is worth asking at all.

Not the protocol. The one idea: a fault is paid for once; until a probe has found the node well
again, whoever would ask it is told at once.
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
_SLOW_ASKS = 2  # So many in a row that came too late, and the node counts as hung.
# Refusals of the whole node, not of one command: asking again at once is of no use.
REFUSING = frozenset({"NOAUTH", "WRONGPASS", "NOPERM", "LOADING", "BUSY", "DENIED"})


class EvictingNodeError(UnavailableError, InvalidOptionError):
    """A node would drop values silently when it is full."""


class Node:
    """A node: lends connections, and remembers faults. Safe to use from many threads."""

    def __init__(
        self,
        address: NodeAddress,
        *,
        monotonic: Callable[[], float],
        allow_eviction: bool = False,
        greeting: Sequence[Command] = (),
    ) -> None:
        self.address = address
        self.name = address.name
        self.last_error = ""
        self.latency_seconds = 0.0
        self.well = False  # Whether its mark was right when it was last asked.
        self._monotonic = monotonic
        self._allow_eviction = allow_eviction
        self._greeting = greeting  # What else every new connection says first.
        self._pool = ConnectionPool(
            address, connect_seconds=CONNECT_SECONDS, call_seconds=CALL_SECONDS
        )
        self._lives: weakref.WeakKeyDictionary[Connection, str] = weakref.WeakKeyDictionary()
        self._lock = new_lock()
        self._pause_seconds = 0.0
        self._paused_until = 0.0
        self._slow = 0

    @property
    def usable(self) -> bool:
        """Return whether it may be asked: it has not failed lately."""
        return not self._pause_seconds

    @property
    def due(self) -> bool:
        """Return whether it failed, and it is time to try it again."""
        return bool(self._pause_seconds) and self._monotonic() >= self._paused_until

    @contextmanager
    def take(self) -> Iterator[Connection]:
        """Lend a connection whose server's life is known.

        Raises:
            UnavailableError: the node cannot be reached.
            ReplyError: it does not let us in.
            EvictingNodeError: it would drop values silently.
        """
        with self._pool.take() as connection:
            if connection not in self._lives:
                self._greet(connection)
            yield connection

    def life_of(self, connection: Connection) -> str:
        """Return the run id of the server process behind a connection that was lent."""
        return self._lives[connection]

    def forget_scripts(self, connection: Connection) -> None:
        """Load the scripts again when this connection is lent next."""
        self._lives.pop(connection, None)

    def answered(self, seconds: float) -> None:
        """Learn that it has answered in time."""
        self.latency_seconds += (seconds - self.latency_seconds) / 8
        self._slow = 0
        if self._pause_seconds:
            with self._lock:
                self._pause_seconds = self._paused_until = 0.0

    def failed(self, error: BaseException) -> None:
        """Learn that it could not be asked; nobody asks it again until it is due."""
        with self._lock:
            self.last_error = str(error)
            self.well = False
            longer = max(_FIRST_PAUSE_SECONDS, 2 * self._pause_seconds)
            self._pause_seconds = min(longer, _LONGEST_PAUSE_SECONDS)
            self._paused_until = self._monotonic() + self._pause_seconds

    def refused(self, error: ReplyError) -> None:
        """Learn that it refused a command: it lives, unless it refuses everything."""
        self.last_error = str(error)
        if error.code in REFUSING:
            self.failed(error)

    def lagged(self) -> None:
        """Learn that somebody stopped waiting for its answer."""
        self._slow += 1
        if self._slow >= _SLOW_ASKS:
            self.failed(UnavailableError(f"the node {self.name} does not answer in time"))

    def call(self, *args: Any, seconds: float | None = None) -> Any:
        """Run one command, and remember how the node took it.

        Raises:
            UnavailableError: it did not answer.
            ReplyError: it refused.
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
        """Run commands, and remember how the node took them; with `strict` raise a refusal."""
        with self._judged(len(commands)) as connection:
            replies = connection.pipeline(commands, into=into, seconds=seconds)
        refusals = [reply for reply in replies if isinstance(reply, ReplyError)]
        for refusal in refusals:
            self.refused(refusal)
        if strict and refusals:
            raise refusals[0]
        return replies

    def stream(
        self, commands: Sequence[Command], into: Sequence[Sequence[Buffer]], *, window: int
    ) -> Generator[Any, None, None]:
        """Yield replies as `Connection.stream` does, and remember how the node took it.

        Raises:
            UnavailableError: it did not answer; the replies before are good.
            ReplyError: it does not let us in.
        """
        with self._judged(len(commands)) as connection:
            for reply in connection.stream(commands, into, window=window):
                if isinstance(reply, ReplyError):
                    self.refused(reply)
                yield reply

    def close(self) -> None:
        """Close its connections."""
        self._pool.close()

    def __repr__(self) -> str:
        return f"<Node {self.name}{'' if self.usable else ', failing'}>"

    @contextmanager
    def _judged(self, count: int) -> Iterator[Connection]:
        """Lend a connection for `count` commands, and remember whether they came through."""
        began = self._monotonic()
        try:
            with self.take() as connection:
                yield connection
        except (UnavailableError, EvictingNodeError) as error:
            self.failed(error)
            raise
        except ReplyError as error:
            self.refused(error)
            raise
        self.answered((self._monotonic() - began) / max(1, count))

    def _greet(self, connection: Connection) -> None:
        loads = [("SCRIPT", "LOAD", script.source) for script in scripts.ALL]
        info, memory, *loaded = connection.pipeline(
            [("INFO", "server"), ("INFO", "memory"), *loads, *self._greeting]
        )
        for reply in (info, memory, *loaded):
            if isinstance(reply, ReplyError):
                raise reply
        policy = parse_info(memory).get("maxmemory_policy", "")
        if policy.startswith("allkeys-") and not self._allow_eviction:
            raise EvictingNodeError(
                f"the node {self.name} has maxmemory-policy {policy}: it would drop values "
                "silently when it is full. Set noeviction there, or pass allow_eviction=True if "
                "what you store may be lost"
            )
        self._lives[connection] = parse_info(info).get("run_id", "")


def parse_info(text: bytes) -> dict[str, str]:
    """Return the fields of a reply to INFO."""
    lines = (line for line in text.decode("utf-8", "replace").splitlines() if ":" in line)
    return dict(line.split(":", 1) for line in lines)
