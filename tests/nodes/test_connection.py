"""The client against a real server; redis-py checks the result."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from memories.cluster.client.address import NodeAddress
from memories.cluster.client.connection import Connection, ready
from memories.cluster.client.pool import ConnectionPool
from memories.cluster.client.resp import Command, ReplyError
from memories.cluster.local import LocalServer
from memories.errors import ClosedError, ForkedError, UnavailableError

pytestmark = pytest.mark.server


@pytest.fixture
def connection(node: LocalServer) -> Iterator[Connection]:
    """A connection to a fresh server."""
    with Connection(node.address) as connection:
        yield connection


@pytest.fixture
def reference(node: LocalServer) -> Iterator[redis.Redis]:
    """An independent client of the same server."""
    with redis.Redis(port=node.port) as client:
        yield client


def test_another_client_reads_what_was_set(connection: Connection, reference: redis.Redis) -> None:
    """Both directions are checked by another client."""
    body = os.urandom(3_000_000)
    assert b"OK" == connection.call("SET", b"k\r\n\x00", (body[:100], memoryview(body)[100:]))
    assert body == reference.get(b"k\r\n\x00")
    reference.set("n", 5)
    assert [b"5", 6, None] == connection.pipeline([("GET", "n"), ("INCR", "n"), ("GET", "no")])
    assert 1 == connection.call("HSET", "h", "a", 1)
    assert [b"a", b"1"] == connection.call("HGETALL", "h")


def test_bulk_replies_are_received_into_given_buffers(connection: Connection) -> None:
    """A chunk is its header and its body, and the body belongs into the array."""
    body = os.urandom(5_000_000)
    connection.call("SET", "k", body)
    head, rest = bytearray(64), bytearray(len(body) - 64)
    assert len(body) == connection.pipeline([("GET", "k")], into=[[head, rest]])[0]
    assert body == bytes(head + rest)
    assert connection.pipeline([("GET", "absent")], into=[[head]])[0] is None
    assert len(body) == connection.pipeline([("GET", "k")], into=[[head]])[0]
    assert b"PONG" == connection.call("PING")


def test_a_pipeline_of_reads_fills_many_buffers(connection: Connection) -> None:
    """An array of 800 MB comes as a hundred chunks without a pause between any two."""
    chunks = [os.urandom(random.randrange(1, 400_000)) for _ in range(50)]
    connection.pipeline([("SET", f"c{number}", one) for number, one in enumerate(chunks)])
    room = [bytearray(len(one)) for one in chunks]
    commands = [*(("GET", f"c{number}") for number in range(50)), ("GET", "absent"), ("LPOP", "c0")]
    replies = connection.pipeline(commands, into=[*([one] for one in room), [bytearray(1)], None])
    assert [*map(len, chunks), None] == replies[:51]
    assert isinstance(replies[51], ReplyError)
    assert chunks == [bytes(one) for one in room]


def test_a_stream_keeps_the_node_busy_while_a_reply_is_processed(connection: Connection) -> None:
    """Neither side waits for the other, and the node never has to hold more than a few replies."""
    chunks = [os.urandom(300_000) for _ in range(8)]
    connection.pipeline([("SET", f"c{number}", one) for number, one in enumerate(chunks)])
    room = [bytearray(300_000) for _ in range(10)]
    commands = [*(("GET", f"c{number}") for number in range(8)), ("GET", "absent"), ("LPOP", "c0")]
    replies, under_way = [], []
    for reply in connection.stream(commands, [[one] for one in room], window=3):
        replies.append(reply)
        under_way.append(connection.pending)
    assert [*[300_000] * 8, None] == replies[:9]
    assert isinstance(replies[9], ReplyError)
    assert chunks == [bytes(one) for one in room[:8]]
    assert [3, 3, 3, 3, 3, 3, 3, 2, 1, 0] == under_way


@pytest.mark.parametrize(("window", "most"), [(1, [0, 1, 1, 1, 1]), (3, [0, 1, 2, 3, 3])])
def test_an_upload_makes_each_command_when_it_may_be_sent(
    connection: Connection, window: int, most: list[int]
) -> None:
    """What is made long before it is sent has left the processor's cache."""
    chunks = [os.urandom(300_000) for _ in range(4)]
    under_way = []

    def commands() -> Iterator[Command]:
        for number, chunk in enumerate(chunks):
            under_way.append(connection.pending)
            yield ("SET", f"c{number}", chunk)
        under_way.append(connection.pending)
        yield ("INCR", "c0")

    *stored, refusal = connection.upload(commands(), window=window)
    assert most == under_way
    assert [b"OK"] * 4 == stored
    assert isinstance(refusal, ReplyError)
    assert chunks == connection.pipeline([("GET", f"c{number}") for number in range(4)])


def test_an_error_in_a_pipeline_is_in_its_place(connection: Connection) -> None:
    """An error reply to one command does not affect the others."""
    replies = connection.pipeline([("SET", "a", "x"), ("INCR", "a"), ("GET", "a")])
    assert [b"OK", b"x"] == replies[::2]
    assert isinstance(replies[1], ReplyError)
    with pytest.raises(ReplyError, match="ERR") as caught:
        connection.call("INCR", "a")
    assert "ERR" == caught.value.code
    assert b"PONG" == connection.call("PING")


def test_a_long_pipeline_with_unread_replies_does_not_deadlock(
    connection: Connection,
) -> None:
    """Both sides could otherwise wait for the other to read first."""
    connection.call("SET", "k", b"x" * 1_000_000)
    commands = [("GET", "k"), ("SET", "other", b"y" * 1_000_000)] * 40
    replies = connection.pipeline(commands, seconds=5)
    assert [1_000_000] * 40 == [len(one) for one in replies[::2]]


def test_replies_are_taken_from_the_fastest_node_first(plain_nodes) -> None:  # type: ignore[no-untyped-def]
    """Hedging waits for the first answer, in one thread."""
    with (
        Connection(plain_nodes.servers[0].address) as first,
        Connection(plain_nodes.servers[1].address) as second,
    ):
        plain_nodes.servers[0].pause()
        first.send([("PING",)])
        second.send([("PING",)])
        assert [second] == ready([first, second], 5.0)
        assert b"PONG" == second.receive()
        assert [] == ready([first], 0.05)
        plain_nodes.servers[0].resume()
        assert [first] == ready([first, second], 5.0)
        assert b"PONG" == first.receive()


def test_invalidations_come_before_the_reply_that_follows_them(node: LocalServer) -> None:
    """An answered PING proves that all earlier messages were received."""
    news: list[object] = []
    with Connection(node.address, on_push=news.append) as tracking:
        tracking.call("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", "m:")
        node.call("SET", "m:1", "x")
        node.call("SET", "other", "x")
        assert b"PONG" == tracking.call("PING")
        assert [[b"invalidate", [b"m:1"]]] == news
        node.call("SET", "m:2", "x")
        assert 1 == tracking.listen(5.0)
        assert [b"invalidate", [b"m:2"]] == news[-1]
        assert 0 == tracking.listen(0.01)
        node.call("FLUSHALL")
        assert b"PONG" == tracking.call("PING")
        assert [b"invalidate", None] == news[-1]


def test_a_wrong_password_is_refused_and_never_shown(tmp_path: Path) -> None:
    """Row 33: a clear error at once, and no secret in it."""
    with LocalServer(tmp_path, password="open sesame") as server:
        with Connection(server.address) as connection:
            assert b"PONG" == connection.call("PING")
        for given, code in (("s3cr3t-wrong", "WRONGPASS"), (None, "NOAUTH")):
            address = NodeAddress("127.0.0.1", server.port, password=given)
            with pytest.raises(ReplyError) as caught, Connection(address) as connection:
                connection.call("PING")
            assert code == caught.value.code
            assert "s3cr3t" not in repr(caught.value) + str(caught.value)
        server.call("ACL", "SETUSER", "reader", "on", ">pw", "~*", "-@all", "+get", "+hello")
        address = NodeAddress.parse(f"redis://reader:pw@{server.name}")
        with Connection(address) as connection, pytest.raises(ReplyError, match="NOPERM"):
            connection.call("SET", "a", "b")


def test_a_unix_socket_and_a_database_are_reached(tmp_path: Path) -> None:
    """On one machine a socket in the file system is faster than the loopback."""
    path = f"/tmp/memories-{os.getpid()}.sock"
    with LocalServer(tmp_path, arguments=("--unixsocket", path)):
        with Connection(NodeAddress.parse(f"unix://{path}?db=3")) as connection:
            connection.call("SET", "k", "v")
            assert b"db=3" in connection.call("CLIENT", "INFO")
        with Connection(NodeAddress.parse(f"unix://{path}")) as connection:
            assert connection.call("GET", "k") is None


def call(pool: ConnectionPool, *args: str) -> bytes:
    """Run a command on a connection of the pool."""
    with pool.acquire() as connection:
        reply = connection.call(*args)
    assert isinstance(reply, bytes)
    return reply


def test_a_pool_lends_each_thread_a_connection_of_its_own(node: LocalServer) -> None:
    """Replies of two threads on one socket would be each other's."""
    wrong: list[object] = []

    def work(number: int) -> None:
        for turn in range(200):
            value = b"%d-%d" % (number, turn)
            with pool.acquire() as connection:
                got = connection.pipeline([("SET", f"t{number}", value), ("GET", f"t{number}")])
            if got != [b"OK", value]:
                wrong.append(got)

    with ConnectionPool(node.address, size=4) as pool:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [] == wrong
        clients = node.call("INFO", "clients")
        assert isinstance(clients, bytes)
        assert int(clients.split(b"connected_clients:")[1].split(b"\r")[0]) <= 4 + 1


def test_a_pool_drops_what_is_broken_or_half_read(node: LocalServer) -> None:
    """An unread reply would be returned for the next command of another caller."""
    pool = ConnectionPool(node.address)
    with pool.acquire() as connection:
        connection.send([("ECHO", "left unread")])
    assert connection.closed
    with pool.acquire() as connection:
        stream = connection.stream([("GET", "a"), ("GET", "b")], [[bytearray(1)]] * 2, window=2)
        assert next(stream) is None
        stream.close()
    assert connection.closed
    assert b"mine" == call(pool, "ECHO", "mine")
    node.call("CLIENT", "KILL", "TYPE", "normal")
    assert b"again" == call(pool, "ECHO", "again")
    pool.close()
    with pytest.raises(ClosedError):
        call(pool, "PING")


def test_a_forked_child_never_uses_the_connection_of_its_parent(node: LocalServer) -> None:
    """Two processes on one socket read each other's replies."""
    pool = ConnectionPool(node.address)
    assert b"parent" == call(pool, "ECHO", "parent")
    with pool.acquire() as connection:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                connection.call("PING")
                answer = b"used the parent's"
            except ForkedError:
                answer = call(pool, "ECHO", "child of its own")
            os.write(writer, answer)
            os._exit(0)
        os.waitpid(child, 0)
        os.close(writer)
        assert b"child of its own" == os.read(reader, 100)
        os.close(reader)
        assert b"still mine" == connection.call("ECHO", "still mine")
    pool.close()


def test_a_closed_connection_raises_a_clear_error(connection: Connection) -> None:
    """And not `Bad file descriptor`."""
    connection.close()
    with pytest.raises(UnavailableError, match="closed"):
        connection.call("PING")
