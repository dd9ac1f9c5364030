"""A proxy before one node that cuts, delays, truncates, hangs and flips bits, with TLS or not.

It also stands for a far network (latency, bandwidth) and for a firewall that forgets connections.

It knows no protocol: it moves bytes. `faults` may be changed at any time and holds from then on,
for the connections that are open, too.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

_BLOCK = 1 << 16
_END_SECONDS = 5.0
_MOST_WAITING = 32  # Blocks; the kernel's own buffers come on top.


@dataclass
class Faults:
    """The faults of a proxy; by default there are none."""

    delay_seconds: float = 0.0  # Before every block of an answer.
    latency_seconds: float = 0.0  # On the way of every byte, in each direction.
    bytes_per_second: float = 0.0  # Of each connection, in each direction.
    slow_bytes_per_second: float = 0.0  # Answers trickle.
    hang: bool = False  # Nothing passes in either direction, and nothing is closed.
    refuse: bool = False  # New connections are reset at once.
    cut_requests_after: int | None = None  # Then the connection is reset.
    cut_answers_after: int | None = None
    lose_answers: bool = False  # The node does it, and the connection is reset before the answer.
    flip_answer_byte: int | None = None  # The byte at this place of the next answers is wrong.


@dataclass
class NodeProxy:
    """A proxy in front of `port` on the loopback; clients use the address `name`."""

    port: int
    context: ssl.SSLContext | None = None
    faults: Faults = field(default_factory=Faults)
    connections: int = 0

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.own_port = self._listener.getsockname()[1]
        self.name = f"127.0.0.1:{self.own_port}"
        self._open: set[socket.socket] = set()
        self._forgotten: set[socket.socket] = set()
        self._closed = threading.Event()
        self._serving: list[threading.Thread] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def heal(self) -> None:
        """Behave from now on."""
        self.faults = Faults()

    def cut(self) -> None:
        """Reset every connection that is open."""
        for one in list(self._open):
            _reset(one)

    def forget(self) -> None:
        """Drop silently what comes on the connections that are open; new ones work."""
        self._forgotten |= self._open

    def close(self) -> None:
        """Cut every connection and stop listening."""
        self._closed.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in list(self._serving):
            thread.join(_END_SECONDS)  # A later test may count threads.

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            if self.faults.refuse:
                _reset(client)
                continue
            thread = threading.Thread(target=self._serve, args=(client,), daemon=True)
            thread.start()
            self._serving = [*filter(threading.Thread.is_alive, self._serving), thread]

    def _serve(self, client: socket.socket) -> None:
        try:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.context is not None:
                client.settimeout(5.0)
                client = self.context.wrap_socket(client, server_side=True)
                client.settimeout(None)
            node = socket.create_connection(("127.0.0.1", self.port))
        except OSError:
            _reset(client)
            return
        self._open |= {client, node}
        pumps = [
            threading.Thread(target=self._pump, args=(client, node, False), daemon=True),
            threading.Thread(target=self._pump, args=(node, client, True), daemon=True),
        ]
        for pump in pumps:
            pump.start()
        for pump in pumps:
            pump.join()
        for one in (client, node):
            self._open.discard(one)
            self._forgotten.discard(one)
            one.close()

    def _pump(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
        """Move bytes in one direction, by a thread that reads and one that writes."""
        waiting: queue.Queue[tuple[float, bytes]] = queue.Queue(_MOST_WAITING)
        writer = threading.Thread(target=self._write, args=(target, waiting, answers), daemon=True)
        writer.start()
        with contextlib.suppress(OSError, ValueError):
            while block := source.recv(_BLOCK):
                if source not in self._forgotten:
                    waiting.put((time.monotonic() + self.faults.latency_seconds, block))
                if not writer.is_alive():
                    break
        waiting.put((0.0, b""))
        writer.join()
        for one in (source, target):
            _reset(one)

    def _write(
        self, target: socket.socket, waiting: queue.Queue[tuple[float, bytes]], answers: bool
    ) -> None:
        try:
            self._write_all(target, waiting, answers)
        except (OSError, ValueError):
            _reset(target)
        finally:
            with contextlib.suppress(queue.Empty):  # The reader may wait for room.
                while True:
                    waiting.get_nowait()

    def _write_all(
        self, target: socket.socket, waiting: queue.Queue[tuple[float, bytes]], answers: bool
    ) -> None:
        passed = 0
        while True:
            due, block = waiting.get()
            if block:
                self._closed.wait(max(0.0, due - time.monotonic()))
                self._hold()
            faults = self.faults
            if not block or self._closed.is_set() or (answers and faults.lose_answers):
                break
            limit = faults.cut_answers_after if answers else faults.cut_requests_after
            if limit is not None and passed + len(block) > limit:
                target.sendall(block[: max(0, limit - passed)])
                break
            if answers:
                block = self._worse(block, passed)
            passed += len(block)
            self._deliver(target, block, answers)
            if faults.bytes_per_second:
                self._closed.wait(len(block) / faults.bytes_per_second)
        _reset(target)

    def _hold(self) -> None:
        while self.faults.hang and not self._closed.is_set():
            time.sleep(0.005)

    def _worse(self, block: bytes, passed: int) -> bytes:
        place = self.faults.flip_answer_byte
        if place is None or not passed <= place < passed + len(block):
            return block
        wrong = bytearray(block)
        wrong[place - passed] ^= 0x10
        return bytes(wrong)

    def _deliver(self, target: socket.socket, block: bytes, answers: bool) -> None:
        if not answers:
            target.sendall(block)
            return
        self._closed.wait(self.faults.delay_seconds)
        if not self.faults.slow_bytes_per_second:
            target.sendall(block)
            return
        for start in range(len(block)):
            if self._closed.is_set():
                return
            target.sendall(block[start : start + 1])
            time.sleep(1 / (self.faults.slow_bytes_per_second or 1e9))


@contextlib.contextmanager
def in_front_of(port: int, context: ssl.SSLContext | None = None) -> Iterator[NodeProxy]:
    """Run a proxy for as long as the block lasts."""
    proxy = NodeProxy(port, context)
    try:
        yield proxy
    finally:
        proxy.close()


def _reset(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # Wakes a thread that waits in `recv`, which `close` alone does not.
        one.shutdown(socket.SHUT_RDWR)
    one.close()
