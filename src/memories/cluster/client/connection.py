"""One connection to one node: send commands, receive replies in order.

Only one thread may use a connection at a time; `ConnectionPool` sees to that. After any failure of
the transport the connection is closed instead of resynchronised, so that a reply is never returned
for another command. It never retries.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Self

from memories.cluster.client import redis_py
from memories.cluster.client.address import NodeAddress
from memories.cluster.client.latency import CONNECT_SECONDS, PATIENCE_SECONDS
from memories.cluster.client.reply_kinds import misfit
from memories.cluster.client.resp import (
    Arg,
    Buffer,
    Command,
    GarbledError,
    Reply,
    ReplyDecoder,
    ReplyError,
    encode,
)
from memories.cluster.client.transport import Transport
from memories.errors import ForkedError, UnavailableError

MAX_REPLY_BYTES = 64 << 20

OnPush = Callable[[list[Reply]], None]


class Connection:
    """A connection after login.

    Args:
        address: The node.
        connect_seconds: How long connecting, TLS and logging in may take, each.
        call_seconds: How long a call may wait without receiving anything; it may last as long in
            total, plus a second for every megabyte that it moves.
        on_push: Called with every push message, in the thread that receives; without it the
            connection uses RESP2, which all servers and proxies speak.
        max_reply_bytes: The largest reply that is accepted.

    Raises:
        UnavailableError: the node cannot be reached, or does not use the protocol.
        ReplyError: it refuses the login; `code` is WRONGPASS, NOAUTH, NOPERM, LOADING or similar.
    """

    def __init__(
        self,
        address: NodeAddress,
        *,
        connect_seconds: float = CONNECT_SECONDS,
        call_seconds: float = PATIENCE_SECONDS,
        on_push: OnPush | None = None,
        max_reply_bytes: int = MAX_REPLY_BYTES,
    ) -> None:
        self.address = address
        self.pending = 0  # Commands sent whose replies have not been received.
        self.closed = False
        self.run_id = ""  # Of the server process, once `Node` has asked for it.
        self.idle_since = 0.0  # Since when it has been in its pool.
        self.ticket: object = None  # What its pool counts.
        self.pid = os.getpid()  # Of the process that opened it.
        self._seconds = call_seconds
        self._on_push = on_push
        if address.refusal:
            raise UnavailableError(address.refusal)
        self._opened = redis_py.open_connection(address.dial, connect_seconds, 3 if on_push else 2)
        self.transport = Transport(self._opened._sock, address.name)
        self._decoder = ReplyDecoder(self.transport, address.name, max_reply_bytes)

    def call(self, *args: Arg, seconds: float | None = None) -> Reply:
        """Send one command and return its reply.

        Raises:
            ReplyError: the node refuses it.
            UnavailableError: the node did not answer in time, closed the connection, or broke the
                protocol. Whether it has run the command is unknown.
        """
        self.send((args,), seconds=seconds)
        reply = self.receive()
        self._require_fitting((args,), (reply,))
        return _raised(reply)

    def pipeline(
        self,
        commands: Sequence[Command],
        *,
        into: Sequence[Sequence[Buffer] | None] | None = None,
        seconds: float | None = None,
    ) -> list[Reply]:
        """Send all the commands and return all the replies, a `ReplyError` where one is refused.

        Args:
            commands: Any number of them; large arguments are sent without a copy.
            into: The buffers into which the bulk reply of each command is received, one after the
                other. The reply in the result is then its length in bytes, which may be less than
                the buffers hold, or more: then the rest was dropped. None for a nil.
            seconds: Replaces `call_seconds`.

        Raises:
            UnavailableError: as for `call`; then each of the commands is in doubt, and the content
                of the buffers is undefined.
        """
        self.send(commands, seconds=seconds)
        targets: Iterable[Sequence[Buffer] | None] = into or (None,) * len(commands)
        replies = [self.receive(target) for target in targets]
        if into is None:
            self._require_fitting(commands, replies)
        return replies

    def upload(
        self, commands: Iterable[Command], *, window: int, seconds: float | None = None
    ) -> list[Reply]:
        """Send commands with chunks as they are made, and return all the replies like `pipeline`.

        At most `window` of them are in flight, and may be slow as long as they move. The next one
        is made just before it is sent, so that it is still in the processor's cache.

        Raises:
            UnavailableError: as for `call`; then each of the commands is in doubt.
        """
        sent: list[Command] = []
        replies: list[Reply] = []
        for command in commands:
            if len(sent) - len(replies) == window:
                replies.append(self.receive())
            self.send((command,), seconds=seconds, bulk=True)
            sent.append(command)
        replies += [self.receive() for _ in range(len(sent) - len(replies))]
        self._require_fitting(sent, replies)
        return replies

    def stream(
        self,
        commands: Sequence[Command],
        into: Sequence[Sequence[Buffer]],
        *,
        window: int,
        seconds: float | None = None,
    ) -> Generator[Reply, None, None]:
        """Yield the replies like `pipeline`, with at most `window` commands in flight.

        The node works on the next commands while the caller processes a reply. If the caller stops
        before the last reply, the connection is not reused.

        Raises:
            UnavailableError: as for `call`; the replies before it are valid.
        """
        self.send(commands[:window], seconds=seconds, bulk=True)
        for following, target in enumerate(into, window):
            reply = self.receive(target)
            if following < len(commands):
                self.send(commands[following : following + 1], seconds=seconds, bulk=True)
            yield reply

    def decode(self, data: bytes) -> list[Reply]:
        """Return all pending replies, of which `data` was received elsewhere.

        Raises:
            UnavailableError: as for `receive`.
        """
        self._decoder.feed(data)
        self.transport.allow(self._seconds)
        return [self.receive() for _ in range(self.pending)]

    def send(
        self, commands: Sequence[Command], *, seconds: float | None = None, bulk: bool = False
    ) -> None:
        """Send commands; as many calls of `receive` must follow before the connection is reused.

        The time limit for sending and receiving together starts here.

        Raises:
            UnavailableError: they could not be sent in time.
        """
        self._begin(seconds, bulk=bulk)
        try:
            self.pending += len(commands)
            self.transport.send(encode(commands))
        except BaseException:
            self.close()
            raise

    def receive(
        self, into: Sequence[Buffer] | None = None, *, seconds: float | None = None
    ) -> Reply:
        """Return the reply to the oldest command that has none yet; a `ReplyError` is returned too.

        Args:
            into: The buffers for a bulk reply, as for `pipeline`.
            seconds: Restart the time limit, with this length.

        Raises:
            UnavailableError: the reply did not come in time, or breaks the protocol.
        """
        self._check()
        if seconds is not None:
            self.transport.allow(seconds)
        try:
            while True:
                pushed, reply = self._read(into)
                if not pushed:
                    self.pending -= 1
                    if type(reply) is ReplyError and redis_py.FULL in reply.text:
                        raise self.transport.fault(redis_py.FULL_ADVICE)
                    return reply
                self._push(reply)
        except GarbledError as error:
            self.close()
            raise self.transport.fault(f"cannot be understood: {error}") from None
        except BaseException:
            self.close()
            raise

    def receive_some(self, count: int) -> list[Reply]:
        """Return the next reply, and of the `count - 1` after it those values that are here."""
        replies = [self.receive()]
        if count > 1:
            more = self._decoder.read_here(count - 1)
            self.pending -= len(more)
            replies += more
        return replies

    def listen(self, seconds: float) -> int:
        """Wait for push messages, pass them to `on_push`, and return how many there were.

        It returns once at least one has come and no more have been received.

        Raises:
            UnavailableError: the connection was closed.
        """
        count = 0
        end = time.monotonic() + seconds
        while self.ready(0.0 if count else end - time.monotonic()):
            self._begin(None)
            try:
                pushed, reply = self._decoder.read()
                if not pushed:
                    raise GarbledError("it sent a reply that nothing had asked for")
            except GarbledError as error:
                self.close()
                raise self.transport.fault(f"cannot be understood: {error}") from None
            except BaseException:
                self.close()
                raise
            self._push(reply)
            count += 1
        return count

    def ready(self, seconds: float = 0.0) -> bool:
        """Return whether `receive` would not wait: data has come, or the end of the connection."""
        self._check()
        return self._decoder.waiting or self.transport.readable(seconds)

    def fileno(self) -> int:
        """Return the descriptor of the socket."""
        return self.transport.fileno()

    def close(self) -> None:
        """Close the connection. Idempotent; in a forked child, the parent's stays open."""
        self.closed = True
        self.ticket = None
        self._opened.disconnect()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Connection to {self.address.name}{', closed' if self.closed else ''}>"

    def _read(self, into: Sequence[Buffer] | None) -> tuple[bool, Reply]:
        if into is None:
            return self._decoder.read()
        return self._decoder.read_into([memoryview(one).cast("B") for one in into])

    def _require_fitting(self, commands: Sequence[Command], replies: Sequence[Reply]) -> None:
        """Raise UnavailableError, and close the connection, if a reply is of the wrong kind."""
        if wrong := misfit(commands, replies):
            self.close()
            raise self.transport.fault(f"sent something else than a reply to {wrong}")

    def _push(self, message: list[Reply]) -> None:
        if self._on_push is not None:
            self._on_push(message)

    def _begin(self, seconds: float | None, *, bulk: bool = False) -> None:
        self._check()
        self.transport.allow(self._seconds if seconds is None else seconds, bulk=bulk)

    def _check(self) -> None:
        if self.pid != os.getpid():
            raise ForkedError(
                f"the connection to {self.address.name} belongs to the parent process; "
                "open another one in this process"
            )
        if self.closed:
            raise UnavailableError(f"the connection to the node {self.address.name} is closed")


def ready(connections: Sequence[Connection], seconds: float) -> list[Connection]:
    """Return the connections that have something to receive; wait until at least one has.

    The list is empty if none has within `seconds`.
    """
    if at_hand := [one for one in connections if one.ready()]:
        return at_hand
    poll = select.poll()
    by_descriptor = {one.fileno(): one for one in connections}
    for descriptor in by_descriptor:
        poll.register(descriptor, select.POLLIN)
    return [by_descriptor[one] for one, _ in poll.poll(max(0.0, seconds) * 1000)]


def _raised(reply: Reply) -> Reply:
    if isinstance(reply, ReplyError):
        raise reply
    return reply
