"""A TCP proxy that misbehaves on demand: late, resetting, truncating, hanging, or answering 5xx.

Not an HTTP proxy: it looks no further than the first line of a request and the length of an answer.
Faults are callables, asked once per request; the ordinary case is None.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

_BLOCK = 1 << 16


@dataclass(frozen=True)
class Fault:
    """What happens to one request; the first field that is set decides."""

    delay_seconds: float = 0.0  # Then it goes on as usual.
    status: int | None = None  # Answer this, and ask no server.
    code: str = "InternalError"
    text: str = ""  # The body of that answer, instead of an error of this code.
    reset: bool = False  # Cut the connection before any answer.
    lose_answer: bool = False  # Let the server do it, then cut the connection.
    truncate: int | None = None  # Cut after so many bytes of the answer.
    flip: int | None = None  # Change a bit of this byte of the answer's body, or of its last.
    hang: bool = False  # Say nothing, for ever.
    strip: bytes = b""  # Forget the headers whose names begin so, in lower case.


@dataclass
class Request:
    """The first line of a request, and its headers."""

    method: str
    path: str
    number: int
    head: bytes = field(default=b"", repr=False)

    @property
    def conditional(self) -> bool:
        """Return whether it is to be done under a condition only."""
        head = self.head.lower()
        return b"\r\nif-match:" in head or b"\r\nif-none-match:" in head


Chooser = Callable[[Request], "Fault | None"]


@dataclass
class MisbehavingProxy:
    """Stands in front of `port`; `fault` may be changed at any time."""

    port: int
    fault: Chooser = field(default=lambda request: None)
    requests: list[Request] = field(default_factory=list)
    sent_bytes: int = 0  # To clients, heads of answers included.

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: set[socket.socket] = set()
        self._closed = threading.Event()
        self._counting = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Cut every connection and stop listening."""
        self._closed.set()
        for one in [self._listener, *self._open]:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def cut(self) -> None:
        """Cut every connection that is open, and go on."""
        for one in list(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _count(self, sent: int) -> None:
        with self._counting:
            self.sent_bytes += sent

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._open.add(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError, ValueError):
            stream = client.makefile("rb")
            while self._one_request(client, stream):
                pass
        self._open.discard(client)

    def _one_request(self, client: socket.socket, stream) -> bool:  # type: ignore[no-untyped-def]
        head = _read_head(stream)
        if not head:
            return False
        method, path = head.split(b" ", 2)[:2]
        request = Request(method.decode(), path.decode(), len(self.requests), head)
        self.requests.append(request)
        fault = self.fault(request) or Fault()
        if b"\r\nexpect: 100-continue" in head.lower():  # The client of boto3 waits for this.
            client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            head = _without(head, b"expect:")
        body = stream.read(_length(head))
        time.sleep(fault.delay_seconds)
        if fault.hang:
            self._closed.wait()
            return False
        if fault.reset:
            _reset(client)
            return False
        if fault.status is not None:
            error = f"<?xml version='1.0'?><Error><Code>{fault.code}</Code></Error>"
            text = (fault.text or error).encode()
            client.sendall(
                f"HTTP/1.1 {fault.status} Fault\r\ncontent-length: {len(text)}\r\n\r\n".encode()
                + (b"" if request.method == "HEAD" else text)
            )
            return True
        if fault.strip:
            head = _without(head, fault.strip)
        return self._forward(client, head, body, request, fault)

    def _forward(
        self, client: socket.socket, head: bytes, body: bytes, request: Request, fault: Fault
    ) -> bool:
        with socket.create_connection(("127.0.0.1", self.port)) as server:
            server.sendall(head.replace(b"\r\n", b"\r\nConnection: close\r\n", 1) + body)
            answer = server.makefile("rb")
            first = _read_head(answer)
            if fault.lose_answer:
                answer.read()
                _reset(client)
                return False
            left = len(first) + _length(first) if fault.truncate is None else fault.truncate
            client.sendall(first[:left])
            self._count(min(left, len(first)))
            left -= len(first)
            flip = None if fault.flip is None else min(fault.flip, max(0, left - 1))
            done = 0
            while block := answer.read(min(_BLOCK, max(0, left - done))):
                if flip is not None and done <= flip < done + len(block):
                    block = bytearray(block)
                    block[flip - done] ^= 1
                client.sendall(block)
                done += len(block)
            self._count(done)
            if fault.truncate is not None:
                _reset(client)
                return False
            if request.method != "HEAD" and b"chunked" in first.lower():
                client.sendall(answer.read())
                return False
            return b"connection: close" not in first.lower()


def _without(head: bytes, name: bytes) -> bytes:
    """Return a head without the headers whose names begin with `name`, in lower case."""
    lines = head.split(b"\r\n")
    return b"\r\n".join(one for one in lines if not one.lower().startswith(name))


@contextlib.contextmanager
def in_front_of(port: int) -> Iterator[MisbehavingProxy]:
    """Run a proxy for as long as the block lasts."""
    proxy = MisbehavingProxy(port)
    try:
        yield proxy
    finally:
        proxy.close()


def _read_head(stream) -> bytes:  # type: ignore[no-untyped-def]
    lines = []
    while (line := stream.readline()) not in (b"\r\n", b""):
        lines.append(line)
    return b"".join([*lines, line]) if lines else b""


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.split(b":")[1])
    return 0


def _reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
