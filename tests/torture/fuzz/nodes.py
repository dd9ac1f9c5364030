"""Damages what nodes hold and what they answer; servers are real, and a proxy lies for them."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from tests.torture.fuzz.damage import damaged_bytes

from memories import DistributedMemoryManager, EncryptionKey, MemoriesError
from memories.cluster.local import LocalServer

VALUES: dict[str, Any] = {
    "text": "text", "list": [1, "two"], "array": np.arange(400.0), "large": bytes(1_500_000),
    "number": 5,
}  # fmt: skip


def steps(manager: DistributedMemoryManager) -> list[Callable[[], Any]]:
    """Return what a program does with nodes."""
    found: list[Callable[[], Any]] = [
        lambda: manager.get_node_status(),
        lambda: list(manager.scan_distributed("")),
        lambda: manager.retrieve_many_distributed(list(VALUES)),
        lambda: manager.store_distributed("text", "again"),
        lambda: manager.delete_distributed("number"),
        lambda: manager.repair(),
        lambda: manager.clear_distributed(),
    ]
    for key in VALUES:
        found.append(lambda key=key: manager.retrieve_distributed(key))
        found.append(lambda key=key: manager.info_distributed(key))
    return found


def use(name: str, key: EncryptionKey | None = None) -> bool:
    """Use the values on a node; return whether a manager could be opened."""
    try:
        manager = opened(name, key)
    except MemoriesError:
        return False
    try:
        for step in steps(manager):
            with contextlib.suppress(MemoriesError):
                step()
    finally:
        manager.cleanup()
    return True


def opened(name: str, key: EncryptionKey | None = None) -> DistributedMemoryManager:
    """Open a manager over one node."""
    return DistributedMemoryManager(
        "2 MB", "2 MB", "20 MB", nodes=[name], replication_factor=1, migration=False, encryption=key
    )


class Registers:
    """The values of a server; an input is the name of one, and its bytes."""

    key: EncryptionKey | None = None

    def prepare(self, folder: Path) -> None:
        """Start a server, and store values there."""
        self.server = LocalServer(folder)
        self.server.__enter__()
        with opened(self.server.name, self.key) as manager:
            for key, value in VALUES.items():
                manager.store_distributed(key, value, ttl=1e6 if key == "list" else None)
            manager.delete_distributed("number")
        names = self.server.call("KEYS", "*")
        assert isinstance(names, list)
        self.whole = {name: self.server.call("GET", name) for name in sorted(names)}

    def damaged(self, rng: random.Random) -> bytes:
        """Return a value of the server with other bytes, or one under another name."""
        name = rng.choice(list(self.whole))
        data = damaged_bytes(self.whole[name], rng)
        if rng.random() < 0.1:
            name = b"m:r:" + rng.choice([b"\xff\xfe", b"\x1b[2J", b"\0x\0k", b"a\nb", b"x" * 5000])
        return msgspec.msgpack.encode([name, data])

    def attempt(self, data: bytes) -> bool:
        """Plant it among the others, and use them."""
        name, content = msgspec.msgpack.decode(data, type=tuple[bytes, bytes])
        self.server.call("FLUSHALL")
        for one, whole in {**self.whole, name: content}.items():
            self.server.call("SET", one, whole)
        return use(self.server.name, self.key)

    def close(self) -> None:
        """End the server."""
        self.server.__exit__(None, None, None)


class Replies:
    """The answers of a server; an input is a number, from which a proxy draws its lies."""

    def prepare(self, folder: Path) -> None:
        """Start a server with values, and the proxy."""
        self.server = LocalServer(folder)
        self.server.__enter__()
        self.proxy = LyingProxy(self.server.port)

    def damaged(self, rng: random.Random) -> bytes:
        """Return a number."""
        return rng.randbytes(8)

    def attempt(self, data: bytes) -> bool:
        """Store values on the server, and use them through the proxy."""
        self.server.call("FLUSHALL")
        with opened(self.server.name) as manager:
            for key, value in VALUES.items():
                manager.store_distributed(key, value)
        self.proxy.begin(int.from_bytes(data, "little"))
        return use(self.proxy.name)

    def close(self) -> None:
        """End the proxy and the server."""
        self.proxy.close()
        self.server.__exit__(None, None, None)


JUNK = (
    b"$-1\r\n", b":0\r\n", b":-1\r\n", b":9223372036854775807\r\n", b"*0\r\n", b"*-1\r\n",
    b"$0\r\n\r\n", b"$4\r\ntext\r\n", b"+OK\r\n", b"*1\r\n*1\r\n*1\r\n:1\r\n",
    b"$3\r\n\xff\xfe\xfd\r\n", b"-ERR \x1b]0;t\x07<script>alert(1)</script>\r\n", b"-\r\n",
    b"-MOVED 1 evil\r\n", b"-ASK 1 \r\n", b"-LOADING x\r\n", b"-OOM x\r\n", b"-NOSCRIPT x\r\n",
    b"$9\r\nrole:x\r\n\n\r\n", b"*2\r\n$1\r\n0\r\n:5\r\n",
)  # fmt: skip


class LyingProxy:
    """Passes requests to a server, and answers that are well formed, but not always true."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._rng = random.Random(0)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.name = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def begin(self, seed: int) -> None:
        """Lie from now on as that number says."""
        self._rng = random.Random(seed)
        self._share = self._rng.choice([0.003, 0.02, 0.1])

    def close(self) -> None:
        """Accept no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._port))
                threading.Thread(target=self._pass, args=(client, server), daemon=True).start()
                threading.Thread(target=self._lie, args=(server, client), daemon=True).start()

    def _pass(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 16):
                server.sendall(data)
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)

    def _lie(self, server: socket.socket, client: socket.socket) -> None:
        with client, server, server.makefile("rb") as file, contextlib.suppress(OSError):
            while reply := b"".join(self._reply(file)):
                client.sendall(reply)

    def _reply(self, file: Any) -> Iterator[bytes]:
        """Yield the next reply of the server, with other things in some places."""
        line = file.readline()
        kind, rest = line[:1], line[1:].strip()
        items, body = 0, b""
        if kind in (b"*", b">") and rest != b"-1":
            items = int(rest)
        elif kind == b"$" and rest != b"-1":
            body = file.read(int(rest) + 2)
        parts = [part for _ in range(items) for part in (b"".join(self._reply(file)),)]
        if not line or self._rng.random() >= self._share:
            yield from (line, body, *parts)
        elif body and self._rng.random() < 0.5:
            changed = damaged_bytes(body[:-2], self._rng)
            yield b"$%d\r\n%b\r\n" % (len(changed), changed)
        elif parts and self._rng.random() < 0.5:
            parts = self._rng.choices(parts, k=self._rng.randint(0, len(parts) + 1))
            yield from (b"%b%d\r\n" % (kind, len(parts)), *parts)
        else:
            yield self._rng.choice(JUNK)


TARGETS = {"register": Registers, "reply": Replies}
