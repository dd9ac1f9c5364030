"""A connected socket (TCP, unix or TLS) in which every wait has a time limit.

All waiting is done in `_call`, which knows how long a wait without data and how long the whole call
may last. Only one thread may use it at a time.
"""

from __future__ import annotations

import fcntl
import select
import socket
import struct
import sys
import termios
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from memories.cluster.client import redis_py
from memories.cluster.client.resp import Buffer
from memories.errors import UnavailableError

# How much longer a call may last for every byte, and a transfer of chunks.
SECONDS_PER_BYTE = 1e-6
BULK_SECONDS_PER_BYTE = 2e-5
_LEAST_SECONDS = 1e-3
_LIMIT_EXCESS = 1.05  # A limit that is so little longer than wanted is left as it is.
_SILENT = (TimeoutError, BlockingIOError)  # The second one where the system itself has waited.
_LAST_WORDS_BYTES = 200
_RECEIVE_BYTES = 64 << 10  # malloc asks the system for a larger buffer each time.
_BUFFERS_AT_ONCE = 512  # Below the IOV_MAX of every system.
# Looked up once, because a small request consists of few steps.
_RECEIVING, _SENDING, _AT_ONCE = socket.SO_RCVTIMEO, socket.SO_SNDTIMEO, socket.MSG_DONTWAIT
R = TypeVar("R")


class Transport:
    """The socket of one connection; it does not close it.

    Args:
        connected: A socket of any kind, after its handshake.
        node: The name of the node, for errors.
    """

    def __init__(self, connected: socket.socket, node: str) -> None:
        self._node = node
        self._silence = self._deadline = 0.0
        self._per_byte = SECONDS_PER_BYTE
        self._socket = connected
        self._secured = hasattr(connected, "context")
        if not self._secured:
            self._socket.settimeout(None)
        self._limits = {_RECEIVING: 0.0, _SENDING: 0.0}  # As the system has them.
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)

    def allow(self, seconds: float, *, bulk: bool = False) -> None:
        """Start the time limit of a call: `seconds` per wait, and in total, plus time per byte."""
        self._silence = seconds
        self._deadline = time.monotonic() + seconds
        self._per_byte = BULK_SECONDS_PER_BYTE if bulk else SECONDS_PER_BYTE

    def expect(self, count: int) -> None:
        """Extend the time limit of the call by the time that so many bytes take."""
        self._deadline += count * self._per_byte

    def post(self, data: bytes) -> None:
        """Send a small request; `fetch` follows. An idle connection takes it without a wait."""
        try:
            if not self._secured:
                sent = self._socket.send(data, _AT_ONCE)
            else:
                self._socket.settimeout(0.0)
                sent = self._socket.send(data)
            if sent == len(data):
                return
        except BlockingIOError:
            pass
        except OSError as error:
            raise self._ended(error) from error
        raise self.fault("does not read what is sent to it")

    def fetch(self, seconds: float) -> bytes:
        """Return received bytes after `post`, at least one."""
        try:
            if self._limits[_RECEIVING] != seconds:
                self._limit(_RECEIVING, seconds)
            return self._received(self._socket.recv(_RECEIVE_BYTES))
        except _SILENT:
            raise self._silent(seconds) from None
        except OSError as error:
            raise self._ended(error) from error

    def send(self, buffers: Sequence[Buffer]) -> None:
        """Send all buffers, several per system call where the socket supports that."""
        views = [memoryview(one).cast("B") for one in buffers]
        self.expect(sum(view.nbytes for view in views))
        start = 0
        while start < len(views):
            if self._secured:
                sent = self._call(self._socket.send, views[start], _SENDING)
            else:
                some = views[start : start + _BUFFERS_AT_ONCE]
                sent = self._call(self._socket.sendmsg, some, _SENDING)
            while start < len(views) and sent >= views[start].nbytes:
                sent -= views[start].nbytes
                start += 1
            if sent:
                views[start] = views[start][sent:]

    def more(self) -> bytes:
        """Return received bytes, at least one."""
        return self._received(self._call(self._socket.recv, _RECEIVE_BYTES))

    def fill(self, view: memoryview) -> None:
        """Fill all of `view`, directly from the socket."""
        while view.nbytes:
            view = view[self._received(self._call(self._receive_into, view)) :]

    def readable(self, seconds: float) -> bool:
        """Return whether bytes, or the end of the connection, come within `seconds`."""
        if self._secured and self._socket.pending():  # type: ignore[attr-defined]
            return True
        return bool(self._poll.poll(max(0.0, seconds) * 1000))

    def fileno(self) -> int:
        """Return the socket's descriptor, for select and poll."""
        return self._socket.fileno()

    def fault(self, what: str) -> UnavailableError:
        """Return an error that names the node; the caller raises it, and closes."""
        return UnavailableError(f"the node {self._node} {what}")

    def _silent(self, seconds: float) -> UnavailableError:
        return self.fault(f"did not answer within {seconds:g} s")

    def _call(self, act: Callable[[Any], R], argument: Any, option: int = _RECEIVING) -> R:
        """Call a function of the socket, which may wait while bytes leave or time is left."""
        unsent = sys.maxsize
        while True:
            seconds = min(self._silence, self._deadline - time.monotonic())
            try:
                self._limit(option, seconds)
                return act(argument)
            except _SILENT:
                before, unsent = unsent, self._unsent()
                if seconds < self._silence or not 0 < unsent < before:
                    raise self._silent(self._silence) from None
            except OSError as error:
                raise self._ended(error) from error

    def _limit(self, option: int, seconds: float) -> None:
        """Let the next call of the socket wait for so long.

        Where there is no TLS the system itself waits. Python would ask before each part of a chunk
        whether it has come, and take the interpreter lock after it.
        """
        seconds = max(_LEAST_SECONDS, seconds)
        if self._secured:
            self._socket.settimeout(seconds)
        elif not seconds <= self._limits[option] <= _LIMIT_EXCESS * seconds:
            whole, rest = divmod(int(seconds * 1e6), 1_000_000)
            self._socket.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", whole, rest))
            self._limits[option] = seconds

    def _receive_into(self, view: memoryview) -> int:
        if self._secured:
            return self._socket.recv_into(view)
        return self._socket.recv_into(view, 0, socket.MSG_WAITALL)

    def _received(self, data: R) -> R:
        if not data:
            raise self.fault("closed the connection")
        return data

    def _unsent(self) -> int:
        """Return how many bytes the system holds that the other side has not received."""
        try:
            return int.from_bytes(
                fcntl.ioctl(self._socket, termios.TIOCOUTQ, bytes(4)), sys.byteorder
            )
        except OSError:  # Not every kind of socket says it.
            return 0

    def _ended(self, error: OSError) -> UnavailableError:
        return self.fault(self._last_words() or f"broke the connection: {error.strerror or error}")

    def _last_words(self) -> str:
        """Return what the server has said before it closed the connection, if that explains it."""
        try:
            self._limit(_RECEIVING, _LEAST_SECONDS)
            last = self._socket.recv(_LAST_WORDS_BYTES)
        except OSError:
            return ""
        return redis_py.FULL_ADVICE if redis_py.FULL.encode() in last else ""
