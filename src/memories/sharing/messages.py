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
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from memories.engine.payload import Payload
from memories.errors import CorruptDataError
from memories.foundation.anonymous_file import CLOSE_ON_EXEC, anonymous_file
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
            RetiredError: the other process has retired, or is gone.
            LostError: it takes nothing in time.
        """
        plain = _packed(name, args, kwargs)
        segments: Sequence[bytes | memoryview]
        if plain is not None:
            kind, size, segments = _PLAIN, len(plain), (plain,)
        else:
            frame = Payload.borrowed((name, tuple(args), dict(kwargs))).to_frame(
                key=_KEY, version=1, compression="none", trust=self._trust,
                history=CompressionHistory(),
            )  # fmt: skip
            kind = _INLINE if frame.size <= INLINE_BYTES else _MEMORY
            size, segments = frame.size, frame.segments
        head = _HEAD.pack(kind, size)
        try:
            if kind != _MEMORY:
                self.connection.sendall(b"".join((head, *segments)))
                return
            with anonymous_file("memories-message") as file:
                for segment in segments:
                    file.write(segment)
                file.flush()
                socket.send_fds(self.connection, [head], [file.fileno()])
        except ConnectionError as error:  # It never got the whole message.
            raise RetiredError from error
        except TimeoutError as error:
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
        descriptors: list[int] = []  # What came with the head; a noisy process may send any.
        try:
            kind, length = self._head(descriptors)
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
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise CorruptDataError("what another process has sent is not a message") from error
        finally:
            _close_all(descriptors)
        message = Payload.of_frame(frame, key=_KEY).open(self._trust)
        match message:
            case (str(name), tuple(args), dict(kwargs)):
                return name, args, kwargs
        raise CorruptDataError("what another process has sent is not a message")

    def close(self) -> None:
        """Close the connection. Idempotent."""
        self.connection.close()

    def _head(self, descriptors: list[int]) -> tuple[int, int]:
        """Return kind and length of the next message; add the descriptor that comes with them."""
        received, found, _, _ = socket.recv_fds(self.connection, _HEAD.size, 1, CLOSE_ON_EXEC)
        descriptors += found
        if not received:
            raise ConnectionResetError("the connection has ended")
        received += self._exactly(_HEAD.size - len(received))
        kind, length = _HEAD.unpack(received)
        return kind, length

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


def _close_all(descriptors: list[int]) -> None:
    while descriptors:
        os.close(descriptors.pop())


def _mapped(descriptor: int, length: int) -> memoryview:
    """Return the bytes of a descriptor; the mapping ends with the last view, not with it."""
    if os.fstat(descriptor).st_size != length:
        raise CorruptDataError("the memory of a message does not have its length")
    return memoryview(mmap.mmap(descriptor, length, access=mmap.ACCESS_READ))
