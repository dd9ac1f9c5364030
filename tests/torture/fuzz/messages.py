"""Sends noise to the socket of a shared store, whose writer goes on answering all others."""

from __future__ import annotations

import array
import os
import random
import socket
import struct
from pathlib import Path

import msgspec
from tests.torture.fuzz.damage import damaged_bytes, damaged_document

from memories import MemoriesError, SharedMemoryManager
from memories.engine.payload import Payload
from memories.frames.compression_history import CompressionHistory
from memories.frames.signing import default
from memories.sharing.messages import Channel, LostError, RetiredError
from memories.sharing.server import SOCKET_NAME

HEAD = struct.Struct("<BQ")
SECONDS = 10.0
CALLS = [
    ["store", ["key", "value"], {"tier": "cold"}], ["retrieve", ["key"], {}], ["count", [], {}],
    ["page", ["", None, "", ], {}], ["found", [{"n": 1}], {}], ["info", ["key"], {}],
    ["set_terms", ["key"], {"ttl": 5.0}], ["migrate", ["key", "hot"], {}], ["read", ["key"], {}],
    ["delete_many", [["a", "b"]], {}], ["setdefault", ["k", 1], {}], ["pop", ["key"], {}],
    ["store_result", ["r", 1], {"tier": "hot", "ttl": None, "seconds": 1.0}], ["flush", [], {}],
    ["touch", ["key", 5.0], {}],
]  # fmt: skip


class Messages:
    """What the writer of a store receives; an input is what a process sends, and how."""

    def prepare(self, folder: Path) -> None:
        """Become the writer of a store."""
        sizes = dict(zip(("hot", "warm", "cold"), ("2 MB", "2 MB", "50 MB"), strict=True))
        options = {f"{tier}_memory_size": size for tier, size in sizes.items()}
        self.manager = SharedMemoryManager(folder / "store", **options)
        self.manager["kept"] = "value"
        self.path = str(folder / "store" / SOCKET_NAME)

    def damaged(self, rng: random.Random) -> bytes:
        """Return a call with other things in it, as a message or as a frame, or other bytes."""
        call = damaged_document(rng.choice(CALLS), rng)
        if rng.random() < 0.5:
            try:
                body, kind = msgspec.msgpack.encode(call), 0
            except OverflowError:
                body, kind = b"", 0
        else:
            frame = Payload.borrowed(call if rng.random() < 0.3 else tuple(call)).to_frame(
                key="message", version=1, compression="none", trust=default(),
                history=CompressionHistory(),
            )  # fmt: skip
            body, kind = b"".join(frame.segments), rng.choice([1, 2])
        head = HEAD.pack(kind, len(body))
        if rng.random() < 0.2:
            head = damaged_bytes(head + bytes(7), rng)[: HEAD.size]
        if rng.random() < 0.3:
            body = damaged_bytes(body, rng)
        return msgspec.msgpack.encode([head, body, kind == 2 or rng.random() < 0.1])

    def attempt(self, data: bytes) -> bool:
        """Send it, wait for an answer or the end, and have a call of another process answered."""
        head, body, in_memory = msgspec.msgpack.decode(data, type=tuple[bytes, bytes, bool])
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(SECONDS)
            connection.connect(self.path)
            self._send(connection, head, body, in_memory)
            connection.shutdown(socket.SHUT_WR)
            try:
                answered = bool(connection.recv(1))
            except ConnectionError:
                answered = False
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(SECONDS)
            connection.connect(self.path)
            channel = Channel(connection, default())
            try:
                channel.send("retrieve", ["kept"], {})
                assert ("done", ["value"]) == tuple(map(_plain, channel.receive()[:2]))
            except (LostError, RetiredError, MemoriesError) as error:
                raise AssertionError("the writer does not answer") from error
        self.manager["kept"] = "value"  # The input may have removed it.
        return answered

    def _send(self, connection: socket.socket, head: bytes, body: bytes, in_memory: bool) -> None:
        try:
            if not in_memory:
                connection.sendall(head + body)
                return
            descriptor = os.memfd_create("noise")
            try:
                os.write(descriptor, body)
                connection.sendmsg(
                    [head],
                    [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))],
                )
            finally:
                os.close(descriptor)
        except (BrokenPipeError, ConnectionResetError):
            return  # It has seen enough.

    def close(self) -> None:
        """End the writer."""
        self.manager.cleanup()


def _plain(part: object) -> object:
    return list(part) if isinstance(part, (list, tuple)) else part


TARGETS = {"message": Messages}
