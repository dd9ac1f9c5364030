"""Messages between processes of one user: each is a name and its arguments, over a Unix socket.

Texts, numbers and bytes are sent as MessagePack, everything else as one value in one frame. What is
small follows its head in the stream. A large one lies in anonymous memory, whose descriptor
is sent with the head: its bytes are written once, and the receiver maps them.
"""

from __future__ import annotations

import mmap
import os
import socket
import struct
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from memories.engine.payload import Payload
from memories.errors import CorruptDataError
from memories.frames.compression_history import CompressionHistory
from memories.frames.signing import Keyring

INLINE_BYTES = 1 << 16  # Up to here a frame goes through the socket.
MAX_FRAME = 1 << 40
_KEY = "message"
_HEAD = struct.Struct("<BQ")  # What follows, and its length.
_PLAIN, _INLINE, _MEMORY, _RETIRED = range(4)
_ATOMS = frozenset({str, bytes, int, float, bool, type(None)})
_ENCODER = msgspec.msgpack.Encoder()
_PLAIN_DECODER = msgspec.msgpack.Decoder(tuple[str, list[Any], dict[str, Any]])
_CLOSE_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)  # Not on macOS.


class RetiredError(Exception):
    """The other process has ended the connection, and has not looked at the last message."""


class LostError(Exception):
    """The other process is gone, and it is unknown what it has done with the last message."""


class Channel:
    """One end of a connection.

    Args:
        connection: A connected Unix socket. Its timeout holds for each step.
        trust: The keys that sign and verify pickled values.
    """

    def __init__(self, connection: socket.socket, trust: Keyring) -> None:
        self.connection = connection
        self._trust = trust

    def send(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Send a message.

        Raises:
            UnsupportedTypeError: it cannot be stored, so it cannot be sent; nothing was sent.
            LostError: the other process is gone.
        """
        try:
            plain = _packed(name, args, kwargs)
            if plain is not None:
                self.connection.sendall(b"".join((_HEAD.pack(_PLAIN, len(plain)), plain)))
                return
        except (ConnectionError, TimeoutError) as error:
            raise LostError from error
        frame = Payload.borrowed((name, tuple(args), dict(kwargs))).to_frame(
            key=_KEY, version=1, compression="none", trust=self._trust,
            history=CompressionHistory(),
        )  # fmt: skip
        try:
            if frame.size <= INLINE_BYTES:
                head = _HEAD.pack(_INLINE, frame.size)
                self.connection.sendall(b"".join((head, *frame.segments)))
                return
            descriptor = _memory(frame.segments)
            try:
                head = _HEAD.pack(_MEMORY, frame.size)
                socket.send_fds(self.connection, [head], [descriptor])
            finally:
                os.close(descriptor)
        except (ConnectionError, TimeoutError) as error:
            raise LostError from error

    def retire(self) -> None:
        """Tell the other process that no further message is looked at, and close."""
        try:
            self.connection.sendall(_HEAD.pack(_RETIRED, 0))
        except OSError:
            pass  # It is gone itself.
        self.close()

    def receive(self) -> tuple[str, Sequence[Any], Mapping[str, Any]]:
        """Return the next message.

        Raises:
            RetiredError: the other process has retired.
            LostError: it is gone.
            CorruptDataError: what it has sent is no message.
        """
        try:
            kind, length, descriptors = self._head()
            if kind == _RETIRED:
                raise RetiredError
            if kind == _PLAIN and length <= INLINE_BYTES:
                return _PLAIN_DECODER.decode(self._exactly(length))
            if kind == _INLINE and length <= INLINE_BYTES:
                frame = memoryview(self._exactly(length))
            elif kind == _MEMORY and len(descriptors) == 1 and 0 < length <= MAX_FRAME:
                frame = _mapped(descriptors[0], length)
            else:
                raise CorruptDataError("what another process has sent is not a message")
        except (ConnectionError, TimeoutError) as error:
            raise LostError from error
        except msgspec.DecodeError as error:
            raise CorruptDataError("what another process has sent is not a message") from error
        message = Payload.of_frame(frame, key=_KEY).open(self._trust)
        match message:
            case (str(name), tuple(args), dict(kwargs)):
                return name, args, kwargs
        raise CorruptDataError("what another process has sent is not a message")

    def close(self) -> None:
        """Close the connection. Idempotent."""
        self.connection.close()

    def _head(self) -> tuple[int, int, list[int]]:
        received, descriptors, _, _ = socket.recv_fds(
            self.connection, _HEAD.size, 1, _CLOSE_ON_EXEC
        )
        if not received:
            raise ConnectionResetError("the connection has ended")
        received += self._exactly(_HEAD.size - len(received))
        kind, length = _HEAD.unpack(received)
        return kind, length, list(descriptors)

    def _exactly(self, length: int) -> bytes:
        received = bytearray(length)
        rest = memoryview(received)
        while rest:
            count = self.connection.recv_into(rest)
            if not count:
                raise ConnectionResetError("the connection has ended")
            rest = rest[count:]
        return bytes(received)


def _packed(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes | None:
    """Return a message as MessagePack; None if it has other types, or is large."""
    if not _ATOMS.issuperset(map(type, args)) or not _ATOMS.issuperset(map(type, kwargs.values())):
        return None
    try:
        packed = _ENCODER.encode((name, args, kwargs))
    except (OverflowError, UnicodeEncodeError):  # An integer of more than 64 bits, half a pair.
        return None
    return packed if len(packed) <= INLINE_BYTES else None


def _memory(segments: Sequence[Any]) -> int:
    """Return a descriptor of anonymous memory with these bytes."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("memories-message", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    try:
        for segment in segments:
            rest = memoryview(segment).cast("B")
            while rest:
                rest = rest[os.write(descriptor, rest) :]
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _mapped(descriptor: int, length: int) -> memoryview:
    """Return the bytes of a descriptor, which is closed; the mapping ends with the last view."""
    try:
        if os.fstat(descriptor).st_size != length:
            raise CorruptDataError("the memory of a message does not have its length")
        return memoryview(mmap.mmap(descriptor, length, access=mmap.ACCESS_READ))
    finally:
        os.close(descriptor)
