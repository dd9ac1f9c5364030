"""A non-blocking socket to one node (TCP, unix or TLS) in which every wait has a time limit.

All waiting is done in `_wait`, which knows how long a wait without data and how long the whole call
may last. Only one thread may use it at a time.
"""

from __future__ import annotations

import select
import socket
import time
from collections import deque
from collections.abc import Sequence
from typing import overload

from memories.cluster.client.address import NodeAddress
from memories.cluster.client.resp import Buffer
from memories.errors import InvalidOptionError, UnavailableError

# How much longer a call may last for every byte: networks below 10 MB/s are not supported.
SECONDS_PER_BYTE = 1e-7
_RECEIVE_BYTES = 128 << 10
_BUFFERS_AT_ONCE = 512  # Below the IOV_MAX of every system.
_EARLY_BYTES = 64 << 20
_OUT_OF_WORK = (BlockingIOError, InterruptedError)


class Transport:
    """One connected socket.

    Raises:
        UnavailableError: no answer came in `connect_seconds`, or TLS failed.
    """

    def __init__(self, address: NodeAddress, *, connect_seconds: float) -> None:
        self._node = address.name
        self._silence = connect_seconds
        self._deadline = time.monotonic() + connect_seconds
        try:
            self._socket = _connect(address, connect_seconds)
        except OSError as error:
            raise self.fault(f"cannot be connected to: {_reason(error)}") from error
        self._retry_read: tuple[type[Exception], ...] = _OUT_OF_WORK
        self._wants_write: tuple[type[Exception], ...] = ()
        self._plain = address.tls is None
        self._awaited = select.POLLIN
        self._socket.setblocking(False)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._early: deque[bytes] = deque()  # Replies that came before all was sent.
        self._early_bytes = 0
        if not self._plain:
            self._secure(address)

    def _secure(self, address: NodeAddress) -> None:
        import ssl

        assert address.tls is not None
        name = None if address.path else address.host
        try:
            context = address.tls.context()
            self._socket = context.wrap_socket(
                self._socket, server_hostname=name, do_handshake_on_connect=False
            )
            self._retry_read = (*_OUT_OF_WORK, ssl.SSLWantReadError)
            self._wants_write = (ssl.SSLWantWriteError,)
            self._handshake(self._socket)
        except InvalidOptionError:
            self.close()
            raise
        except (OSError, ValueError) as error:
            self.close()
            raise self.fault(f"did not agree on TLS: {_reason(error)}") from error
        except BaseException:
            self.close()
            raise

    def _handshake(self, secured: socket.socket) -> None:
        while True:
            try:
                secured.do_handshake()  # type: ignore[attr-defined]
                return
            except self._retry_read:
                self._wait(select.POLLIN)
            except self._wants_write:
                self._wait(select.POLLOUT)

    def allow(self, seconds: float) -> None:
        """Start the time limit of a call: `seconds` per wait, and in total, plus time per byte."""
        self._silence = seconds
        self._deadline = time.monotonic() + seconds

    def expect(self, count: int) -> None:
        """Extend the time limit of the call by the time that so many bytes take."""
        self._deadline += count * SECONDS_PER_BYTE

    def send(self, buffers: Sequence[Buffer]) -> None:
        """Send all buffers, several per system call where the socket supports that."""
        views = [memoryview(one).cast("B") for one in buffers]
        self.expect(sum(view.nbytes for view in views))
        start = 0
        while start < len(views):
            sent = self._send_some(views[start : start + _BUFFERS_AT_ONCE])
            while start < len(views) and sent >= views[start].nbytes:
                sent -= views[start].nbytes
                start += 1
            if sent:
                views[start] = views[start][sent:]

    def _send_some(self, views: list[memoryview]) -> int:
        while True:
            try:
                if self._plain:
                    return self._socket.sendmsg(views)
                return self._socket.send(views[0])
            except _OUT_OF_WORK:
                self._wait_to_send()
            except self._retry_read:
                self._wait(select.POLLIN)
            except self._wants_write:
                self._wait_to_send()
            except OSError as error:
                raise self.fault(f"broke the connection: {_reason(error)}") from error

    def _wait_to_send(self) -> None:
        """Wait until bytes can be sent, and receive replies meanwhile.

        The node may stop reading commands until its replies are read: without this, both sides
        would wait for each other.
        """
        if self._early_bytes > _EARLY_BYTES:
            self._wait(select.POLLOUT)
            return
        if self._wait(select.POLLIN | select.POLLOUT) & select.POLLIN:
            data = self._receive()
            if data is not None:
                self._early.append(data)
                self._early_bytes += len(data)

    def more(self) -> bytes:
        """Return received bytes, at least one."""
        if self._early:
            return self._pop_early()
        while (data := self._receive()) is None:
            self._wait(self._awaited)
        return data

    def fill(self, view: memoryview) -> None:
        """Fill all of `view`, directly from the socket."""
        while self._early and view.nbytes:
            data = self._pop_early()
            count = min(len(data), view.nbytes)
            view[:count] = data[:count]
            view = view[count:]
            if count < len(data):
                self._early.appendleft(data[count:])
                self._early_bytes += len(data) - count
        while view.nbytes:
            received = self._receive(view)
            if received is None:
                self._wait(self._awaited)
            else:
                view = view[received:]

    @overload
    def _receive(self) -> bytes | None: ...
    @overload
    def _receive(self, view: memoryview) -> int | None: ...
    def _receive(self, view: memoryview | None = None) -> bytes | int | None:
        """Receive without waiting; None means that the event `_awaited` must come first."""
        try:
            if view is None:
                data: bytes | int = self._socket.recv(_RECEIVE_BYTES)
            else:
                data = self._socket.recv_into(view)
        except self._retry_read:
            self._awaited = select.POLLIN
            return None
        except self._wants_write:
            self._awaited = select.POLLOUT
            return None
        except OSError as error:
            raise self.fault(f"broke the connection: {_reason(error)}") from error
        if not data:
            raise self.fault("closed the connection")
        return data

    def _pop_early(self) -> bytes:
        data = self._early.popleft()
        self._early_bytes -= len(data)
        return data

    def readable(self, seconds: float) -> bool:
        """Return whether bytes, or the end of the connection, come within `seconds`."""
        if self._early or (not self._plain and self._socket.pending()):  # type: ignore[attr-defined]
            return True
        self._poll.modify(self._socket, select.POLLIN)
        return bool(self._poll.poll(max(0.0, seconds) * 1000))

    def fileno(self) -> int:
        """Return the socket's descriptor, for select and poll."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket, without a TLS shutdown."""
        self._socket.close()

    def __del__(self) -> None:
        # An interrupt may come before the constructor has returned the object to its owner.
        if hasattr(self, "_socket"):
            self._socket.close()

    def _wait(self, events: int) -> int:
        seconds = min(self._silence, self._deadline - time.monotonic())
        self._poll.modify(self._socket, events)
        if happened := self._poll.poll(max(0.0, seconds) * 1000):
            return happened[0][1]
        raise self.fault(f"did not answer within {self._silence:g} s")

    def fault(self, what: str) -> UnavailableError:
        """Return an error that names the node; the caller raises it, and closes."""
        return UnavailableError(f"the node {self._node} {what}")


def _connect(address: NodeAddress, seconds: float) -> socket.socket:
    plain: socket.socket | None = None
    try:
        if address.path is not None:
            plain = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            plain.settimeout(seconds)
            plain.connect(address.path)
        else:
            plain = socket.create_connection((address.host, address.port), seconds)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    except BaseException:
        if plain is not None:
            plain.close()
        raise
    return plain


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
