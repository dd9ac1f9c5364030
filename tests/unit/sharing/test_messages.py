"""What another process sends, on a real connection: messages, and noise."""

from __future__ import annotations

import os
import select
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from memories import CorruptDataError
from memories.frames.signing import Keyring
from memories.sharing.messages import INLINE_BYTES, Channel, LostError, RetiredError

HEAD = struct.Struct("<BQ")
NOISE = {
    "retired": HEAD.pack(3, 0),
    "a plain message": HEAD.pack(0, 10) + b"\x93\xa3abc\x90\x80...",
    "a plain message that is too long": HEAD.pack(0, 1 << 50),
    "a frame that is none": HEAD.pack(1, 64) + bytes(64),
    "memory of another length": HEAD.pack(2, 1 << 30),
    "memory without bytes": HEAD.pack(2, 0),
    "an unknown kind": HEAD.pack(77, 1),
    "a part of a head": b"\0\1",
    "deep lists": HEAD.pack(0, 60_003) + b"\x93\xa3abc" + b"\x91" * 59_999,
    "text that is no text": HEAD.pack(0, 6) + b"\x93\xa1\xff\x90\x80",
}


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[tuple[socket.socket, Channel]]:
    """A socket that sends anything, and the channel that receives it."""
    sender, receiver = socket.socketpair()
    receiver.settimeout(10)
    with sender, receiver:
        yield sender, Channel(receiver, Keyring(tmp_path / "keys"))


@pytest.mark.parametrize("name", NOISE)
def test_noise_is_an_error_of_ours_and_its_descriptor_is_closed(
    ends: tuple[socket.socket, Channel], name: str
) -> None:
    """A process that sends noise must not fill the table of open files of the writer."""
    sender, channel = ends
    reading, writing = os.pipe()
    try:
        socket.send_fds(sender, [NOISE[name]], [writing])
        sender.shutdown(socket.SHUT_WR)
        os.close(writing)
        with pytest.raises((CorruptDataError, LostError, RetiredError)):
            channel.receive()
        assert select.select([reading], [], [], 0)[0], "the descriptor is still open"
    finally:
        os.close(reading)


def test_small_and_large_messages_pass(ends: tuple[socket.socket, Channel]) -> None:
    """Each kind of message, in both directions of the code; a large one is mapped, not copied."""
    sender, channel = ends
    other = Channel(sender, Keyring())
    large = np.arange(INLINE_BYTES)
    for args in (("a", 1, None), ([1, {2: 3}],), (large,)):
        other.send("name", args, {"k": 1.5})
        name, got, kwargs = channel.receive()
        assert ("name", {"k": 1.5}) == (name, kwargs)
        assert repr(args) == repr(tuple(got))


@pytest.mark.parametrize("retires", [True, False])
def test_a_message_after_the_end_was_not_looked_at(
    ends: tuple[socket.socket, Channel], retires: bool
) -> None:
    """Such a call is made again elsewhere, and not reported as in doubt."""
    sender, channel = ends
    if retires:
        Channel(sender, Keyring()).retire()
    sender.close()
    for value in (1, b"x" * INLINE_BYTES):  # The second one goes through a file.
        with pytest.raises(RetiredError):
            channel.send("store", ["key", value], {})
