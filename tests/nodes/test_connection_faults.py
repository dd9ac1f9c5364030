"""The client when the network fails: waits end, and no reply goes to another command."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from tests.support.nodes.certificates import Certificates
from tests.support.nodes.proxy import Faults, NodeProxy
from tests.support.waiting import until

from memories.cluster.client.address import TLS, NodeAddress
from memories.cluster.client.connection import Connection
from memories.cluster.client.pool import ConnectionPool
from memories.cluster.local import LocalServer
from memories.errors import InvalidOptionError, UnavailableError

pytestmark = pytest.mark.server
SECONDS = 0.3
LONG_SECONDS = 30.0  # For what does not fail.
SLACK_SECONDS = 60.0  # Of a busy machine.


def address_of(proxy: NodeProxy) -> NodeAddress:
    """Return how a client reaches the proxy."""
    return NodeAddress.parse(proxy.name)


def fails_in_time(act: Callable[[], object], match: str = "the node") -> None:
    """Check that an act ends with the error of an absent node, within the limit it has."""
    started = time.monotonic()
    with pytest.raises(UnavailableError, match=match):
        act()
    assert time.monotonic() - started < SECONDS + SLACK_SECONDS


def call_new(address: NodeAddress, **limits: float) -> object:
    """Send one command over a new connection."""
    with Connection(address, **limits) as connection:  # type: ignore[arg-type]
        return connection.call("PING")


@pytest.fixture
def connection(node_proxy: NodeProxy) -> Iterator[Connection]:
    """A connection through the proxy."""
    with Connection(
        address_of(node_proxy), connect_seconds=LONG_SECONDS, call_seconds=LONG_SECONDS
    ) as connection:
        yield connection


def test_a_call_to_a_hung_node_ends_in_time(connection: Connection, node: LocalServer) -> None:
    """A stopped process keeps its connections open; only a time limit detects it."""
    node.pause()
    try:
        fails_in_time(
            lambda: connection.call("PING", seconds=SECONDS), "did not answer within 0.3 s"
        )
        assert connection.closed
        new = {"connect_seconds": SECONDS, "call_seconds": SECONDS}
        fails_in_time(lambda: call_new(node.address, **new), "did not answer")
    finally:
        node.resume()


def test_sending_much_to_a_hung_node_ends_in_time(
    connection: Connection, node: LocalServer
) -> None:
    """A large value fills the buffers of the system, and then sending waits as reading does."""
    node.pause()
    try:
        fails_in_time(lambda: connection.call("SET", "k", bytes(60_000_000), seconds=SECONDS))
    finally:
        node.resume()


def test_a_very_slow_reply_ends_in_time(connection: Connection, node_proxy: NodeProxy) -> None:
    """There is a byte before every silence is over, and no end."""
    connection.call("SET", "k", "x" * 5000)
    node_proxy.faults = Faults(slow_bytes_per_second=50)
    fails_in_time(lambda: connection.call("GET", "k", seconds=SECONDS))


def test_a_large_value_may_take_longer_than_a_small_one(
    connection: Connection, node_proxy: NodeProxy
) -> None:
    """The limit is on silence: 8 MB in slow blocks take longer than it, and arrive."""
    connection.call("SET", "k", bytes(8_000_000))
    node_proxy.faults = Faults(delay_seconds=0.004)

    def whole() -> bool:
        with Connection(address_of(node_proxy), connect_seconds=LONG_SECONDS) as one:
            started = time.monotonic()
            try:
                reply = one.call("GET", "k", seconds=SECONDS)
            except UnavailableError:
                return False  # The machine stalled for longer.
            assert 8_000_000 == len(reply)
            return time.monotonic() - started > SECONDS

    until(whole)


@pytest.mark.parametrize("place", [0, 1, 5, 20, 50_000, 99_999, 100_008])
def test_an_answer_that_is_cut_short_is_an_error(
    connection: Connection, node_proxy: NodeProxy, place: int
) -> None:
    """A part of a value is never returned, wherever the reply is cut."""
    connection.call("SET", "k", b"x" * 100_000)
    node_proxy.cut()
    with Connection(address_of(node_proxy), call_seconds=LONG_SECONDS) as fresh:
        already = len(fresh.call("ECHO", "x"))
        assert 1 == already
        node_proxy.faults = Faults(cut_answers_after=place)
        room = bytearray(100_000)
        fails_in_time(lambda: fresh.pipeline([("GET", "k")], into=[[room]]))
        assert fresh.closed


def test_a_node_killed_during_a_call_ends_the_call_at_once(
    connection: Connection, node: LocalServer
) -> None:
    """The connection is reset; the call does not wait for its limit."""
    threading.Timer(0.05, node.process.send_signal, [signal.SIGKILL]).start()
    started = time.monotonic()
    with pytest.raises(UnavailableError, match=r"closed the connection|broke the connection"):
        connection.call("BLPOP", "never", 60, seconds=60)
    assert time.monotonic() - started < 30


def test_a_node_that_is_not_there_is_named(node: LocalServer) -> None:
    """The error names the node."""
    node.kill()
    # Its socket may accept a connection for a moment more, and close it.
    with pytest.raises(UnavailableError, match=f"{node.name}.*(refused|broke the connection)"):
        call_new(node.address)


def test_a_lost_reply_leaves_only_its_own_call_in_doubt(
    node_proxy: NodeProxy, node: LocalServer
) -> None:
    """The command was run; the pool must neither hide that nor repeat it."""
    pool = ConnectionPool(address_of(node_proxy), call_seconds=LONG_SECONDS)
    with pool.acquire() as connection:
        connection.call("SET", "n", 1)
    node_proxy.faults = Faults(lose_answers=True)
    with pytest.raises(UnavailableError), pool.acquire() as connection:
        connection.call("INCR", "n")
    node_proxy.heal()
    with pool.acquire() as connection:
        assert b"2" == connection.call("GET", "n")
    pool.close()


@pytest.mark.parametrize(
    "data", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x15\x03\x01\x00\x02", b""]
)
def test_another_program_at_the_port_is_an_error(data: bytes) -> None:
    """A web server, a TLS port or a black hole: an error that names it, in time."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(1000)
                client.sendall(data)
                client.recv(1000)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        address = NodeAddress("127.0.0.1", listener.getsockname()[1])
        fails_in_time(lambda: call_new(address, call_seconds=SECONDS), address.name)
        thread.join(5)


def test_a_node_behind_tls_is_reached_and_verified(
    tls_node: NodeProxy, certs: Certificates
) -> None:
    """The server of the wheel has no TLS; many deployments use a proxy that terminates it."""
    url = f"rediss://{tls_node.name}?ssl_ca_certs={certs.file('ca.pem')}"
    with Connection(NodeAddress.parse(url)) as connection:
        body = bytes(range(256)) * 8000
        connection.call("SET", "k", (body[:7], body[7:]))
        room = bytearray(len(body))
        assert len(body) == connection.pipeline([("GET", "k")], into=[[room]])[0]
        assert body == room
        assert [b"PONG"] * 50 == connection.pipeline([("PING",)] * 50)


def test_a_node_with_an_untrusted_certificate_is_refused(
    tls_node: NodeProxy, certs: Certificates, in_front: Callable[..., NodeProxy]
) -> None:
    """Not even the password: the handshake comes first."""
    for options in ("", f"?ssl_ca_certs={certs.file('stranger.pem')}"):
        address = NodeAddress.parse(f"rediss://:s3cr3t@{tls_node.name}{options}")
        with pytest.raises(UnavailableError, match="TLS") as caught:
            Connection(address)
        assert "s3cr3t" not in repr(caught.value)
    elsewhere = in_front(tls_node.port, certs.server_context("elsewhere"))
    tls = TLS({"ssl_ca_certs": certs.file("ca.pem")})
    with pytest.raises(UnavailableError, match="TLS"):
        Connection(NodeAddress("127.0.0.1", elsewhere.own_port, tls=tls))
    careless = TLS({"ssl_ca_certs": certs.file("ca.pem"), "ssl_check_hostname": False})
    Connection(NodeAddress("127.0.0.1", elsewhere.own_port, tls=careless)).close()
    unverified = NodeAddress.parse(f"rediss://{tls_node.name}?ssl_cert_reqs=none")
    with Connection(unverified) as connection:
        assert b"PONG" == connection.call("PING")


def test_tls_to_a_plain_port_or_without_its_file_is_a_clear_error(
    node: LocalServer, certs: Certificates
) -> None:
    """The two most common mistakes."""
    with pytest.raises(UnavailableError, match="TLS"):
        Connection(NodeAddress.parse(f"rediss://{node.name}"), connect_seconds=SECONDS)
    with pytest.raises(InvalidOptionError, match=r"absent\.pem"):
        Connection(
            NodeAddress.parse(f"rediss://{node.name}?ssl_ca_certs={certs.file('absent.pem')}")
        )


def test_a_client_certificate_is_sent_on_request(
    node: LocalServer, certs: Certificates, in_front: Callable[..., NodeProxy]
) -> None:
    """Mutual TLS, as many operators demand."""
    proxy = in_front(node.port, certs.server_context(ask_client=True))
    trust = f"rediss://{proxy.name}?ssl_ca_certs={certs.file('ca.pem')}"
    ours = f"&ssl_certfile={certs.file('client.pem')}&ssl_keyfile={certs.file('client.key')}"
    with Connection(NodeAddress.parse(trust + ours)) as connection:
        assert b"PONG" == connection.call("PING")
    with pytest.raises(UnavailableError):
        call_new(NodeAddress.parse(trust), connect_seconds=SECONDS)
