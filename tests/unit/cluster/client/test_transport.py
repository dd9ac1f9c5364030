"""Small requests over a socket: how long an answer is waited for, and what a silent peer causes."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from memories.cluster.client.transport import Transport
from memories.errors import UnavailableError

Pair = tuple[Transport, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Yield a transport, and the other end of its socket."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Transport(ours, "a node"), theirs


def test_an_answer_that_does_not_come_is_an_error_in_time(pair: Pair) -> None:
    """The limit of each call holds for that call."""
    transport, peer = pair
    transport.post(b"PING")
    for _ in range(2):
        with pytest.raises(UnavailableError, match=r"did not answer within 0\.01 s"):
            transport.fetch(0.01)
    with pytest.raises(UnavailableError, match=r"did not answer within 1e-09 s"):
        transport.fetch(1e-9)  # Zero would be no limit for the system.
    peer.send(b"+PONG")
    assert b"+PONG" == transport.fetch(60.0)


def test_small_requests_and_others_follow_one_another(pair: Pair) -> None:
    """Each kind waits in its own way on the same socket."""
    transport, peer = pair
    for number in range(2):
        transport.post(b"quick%d" % number)
        assert b"quick%d" % number == peer.recv(100)
        peer.send(b"answer")
        assert b"answer" == transport.fetch(60.0)
        transport.allow(60.0)
        transport.send([b"other"])
        assert b"other" == peer.recv(100)
        peer.send(b"reply")
        assert b"reply" == transport.more()


def test_a_peer_that_does_not_read_is_an_error_at_once(pair: Pair) -> None:
    """A small request is never waited for until it is sent."""
    transport, _ = pair
    with pytest.raises(UnavailableError, match="does not read"):
        for _ in range(1000):
            transport.post(bytes(1 << 16))


def test_a_closed_connection_is_an_error(pair: Pair) -> None:
    """Before the request is sent as well as while its answer is awaited."""
    transport, peer = pair
    transport.post(b"PING")
    peer.shutdown(socket.SHUT_WR)
    with pytest.raises(UnavailableError, match="closed the connection"):
        transport.fetch(60.0)
    peer.close()
    with pytest.raises(UnavailableError, match="broke the connection"):
        transport.post(b"PING")
