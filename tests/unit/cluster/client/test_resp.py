"""The protocol with bytes written by hand, and with bytes that hostile nodes would send."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis._parsers import _RESP3Parser

from memories.cluster.client.resp import (
    GATHERED_BYTES,
    GarbledError,
    ReplyDecoder,
    ReplyError,
    bulk_between,
    encode,
    exactly,
)

LIMIT = 1 << 20


class Bytes:
    """A source that has these bytes, in pieces of a given size, and then no more."""

    def __init__(self, data: bytes, piece: int) -> None:
        self._data = data
        self._piece = piece
        self.expected = 0

    def more(self) -> bytes:
        """Return the next piece."""
        piece, self._data = self._data[: self._piece], self._data[self._piece :]
        if not piece:
            raise EOFError
        return piece

    def fill(self, view: memoryview) -> None:
        """Fill the view, or fail."""
        if len(self._data) < view.nbytes:
            raise EOFError
        view[:] = self._data[: view.nbytes]
        self._data = self._data[view.nbytes :]

    def expect(self, count: int) -> None:
        """Note how much was announced."""
        self.expected += count


def decoded(data: bytes, piece: int = 1 << 20) -> object:
    """Return the one reply in `data`, which must be all of it."""
    source = Bytes(data, piece)
    decoder = ReplyDecoder(source, "node", LIMIT)
    pushed, reply = decoder.read()
    assert not pushed
    assert not decoder.waiting
    return reply


def commands_in(data: bytes) -> Iterator[list[bytes]]:
    """Read commands as a server does, by nothing but counting."""
    while data:
        head, _, data = data.partition(b"\r\n")
        assert head[:1] == b"*"
        parts = []
        for _ in range(int(head[1:])):
            head, _, data = data.partition(b"\r\n")
            assert head[:1] == b"$"
            length = int(head[1:])
            parts.append(data[:length])
            assert data[length : length + 2] == b"\r\n"
            data = data[length + 2 :]
        yield parts


SMALL_ARGUMENT = st.one_of(st.binary(max_size=40), st.text(max_size=20), st.integers())


@given(st.lists(st.lists(SMALL_ARGUMENT, min_size=1, max_size=5), max_size=5))
def test_a_server_reads_the_commands_that_were_meant(commands: list[list[object]]) -> None:
    """Arguments are counted, so nothing inside of one can become a command."""
    as_bytes = [
        [one if isinstance(one, bytes) else str(one).encode() for one in command]
        for command in commands
    ]
    sent = b"".join(encode(commands))  # type: ignore[arg-type]
    assert as_bytes == list(commands_in(sent))


def test_large_and_gathered_arguments_are_sent_from_where_they_lie() -> None:
    """An array of 800 MB is not copied on its way out."""
    large = bytearray(GATHERED_BYTES)
    view = memoryview(large)
    buffers = encode([("SET", "k", (b"head", view, b"", view[:8]), "PX", 5)])
    assert [["SET", "k", b"head" + large + large[:8], "PX", b"5"]] == [
        [part if index in (2, 4) else part.decode() for index, part in enumerate(command)]
        for command in commands_in(b"".join(buffers))
    ]
    large[0] = 7
    assert any(bytes(one[:1]) == b"\7" for one in buffers if len(one) == GATHERED_BYTES)


REPLIES = [
    (b"+OK\r\n", b"OK"),
    (b":-42\r\n", -42),
    (b"$3\r\na\r\n\r\n", b"a\r\n"),
    (b"$0\r\n\r\n", b""),
    (b"$-1\r\n", None),
    (b"*-1\r\n", None),
    (b"_\r\n", None),
    (b"*2\r\n:1\r\n*1\r\n+a\r\n", [1, [b"a"]]),
    (b"*0\r\n", []),
]


@pytest.mark.parametrize("piece", [1, 2, 7, 1 << 20])
@pytest.mark.parametrize(("data", "expected"), REPLIES)
def test_every_kind_of_reply_is_read_however_it_is_cut(
    data: bytes, expected: object, piece: int
) -> None:
    """A network cuts anywhere, between a CR and its LF too."""
    assert expected == decoded(data, piece)


NESTED = st.recursive(
    st.one_of(
        st.integers(-(2**63), 2**63 - 1).map(lambda one: b":%d\r\n" % one),
        st.binary(max_size=50).map(lambda one: b"$%d\r\n%b\r\n" % (len(one), one)),
        st.sampled_from([b"_\r\n", b"+OK\r\n"]),
    ),
    lambda inner: st.lists(inner, max_size=4).map(
        lambda all: b"*%d\r\n" % len(all) + b"".join(all)
    ),
    max_leaves=12,
)


class _RedisStream:
    """The stream from which the parser of redis-py reads."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def readline(self, **_: object) -> bytes:
        """Return a line without its end."""
        line, _, self._data = self._data.partition(b"\r\n")
        return line

    def read(self, count: int, **_: object) -> bytes:
        """Return a bulk string and drop its end."""
        part, self._data = self._data[:count], self._data[count + 2 :]
        return part


@given(NESTED, st.integers(1, 60))
def test_replies_mean_what_they_mean_to_redis_py(data: bytes, piece: int) -> None:
    """Another reader of the same protocol, written by others, is the judge."""
    parser = _RESP3Parser(socket_read_size=64)
    parser._buffer = _RedisStream(data)
    assert parser._read_response(disable_decoding=True) == decoded(data, piece)


@given(
    st.lists(st.sampled_from([b"abc", b"$3\r", b"\r\n$", b"", b"four", None])), st.integers(1, 60)
)
def test_values_of_one_length_are_read_in_a_row(values: list[bytes | None], piece: int) -> None:
    """A read of many small values gets such replies, and takes a short way through them."""
    parts = [b"$-1\r\n" if one is None else b"$%d\r\n%b\r\n" % (len(one), one) for one in values]
    assert values == decoded(b"*%d\r\n%b" % (len(parts), b"".join(parts)), piece)


@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
def test_a_value_in_a_row_that_is_longer_than_announced_is_refused(piece: int) -> None:
    """What follows it would be taken for the next reply."""
    with pytest.raises(GarbledError, match="longer than announced"):
        decoded(b"*3\r\n$3\r\nabc\r\n$3\r\nabcd\r\n$3\r\nabc\r\n", piece)


def test_an_error_is_a_reply_with_a_code() -> None:
    """A full node answers, with an error."""
    error = decoded(b"-OOM command not allowed\r\n")
    assert isinstance(error, ReplyError)
    assert ("OOM", "command not allowed", "node") == (error.code, error.text, error.node)


def test_a_push_message_is_distinguished_from_a_reply() -> None:
    """A report that a key has changed must never be returned as the reply to a GET."""
    decoder = ReplyDecoder(
        Bytes(b">2\r\n+invalidate\r\n*1\r\n$1\r\nk\r\n+OK\r\n", 3), "node", LIMIT
    )
    assert (True, [b"invalidate", [b"k"]]) == decoder.read()
    assert (False, b"OK") == decoder.read()


@pytest.mark.parametrize("piece", [1, 5, 1 << 20])
def test_a_bulk_reply_is_scattered_over_the_callers_buffers(piece: int) -> None:
    """Header and body go into their buffers; the rest of a longer reply is dropped."""
    for body, expected in ((b"abcdefg", 7), (b"abc", 3), (b"abcdefghij", 10)):
        source = Bytes(b"$%d\r\n%b\r\n+next\r\n" % (len(body), body), piece)
        decoder = ReplyDecoder(source, "node", LIMIT)
        first, second = bytearray(3), bytearray(4)
        assert (False, expected) == decoder.read_into([memoryview(first), memoryview(second)])
        assert body[:7] == bytes(first + second)[: len(body)]
        assert (False, b"next") == decoder.read()


@pytest.mark.parametrize("reply", [b"$-1\r\n", b"_\r\n", b"*-1\r\n"])
def test_a_nil_fills_no_buffer(reply: bytes) -> None:
    """A missing chunk is not a chunk of length zero."""
    decoder = ReplyDecoder(Bytes(reply, 9), "node", LIMIT)
    assert (False, None) == decoder.read_into([memoryview(bytearray(3))])


HOSTILE = {
    "no kind": b"\r\n",
    "unknown kind": b"?\r\n",
    "another protocol": b"HTTP/1.1 400 Bad Request\r\n",
    "length that is no number": b"$abc\r\n",
    "length with a sign": b"$+3\r\nabc\r\n",
    "negative length": b"$-2\r\n",
    "negative count": b"*-2\r\n",
    "length with spaces": b"$ 3\r\nabc\r\n",
    "unicode digits": "$٣\r\nabc\r\n".encode(),
    "streamed string": b"$?\r\n;4\r\n",
    "integer that is none": b":1.5\r\n",
    "integer without end": b":" + b"1" * 5000 + b"\r\n",
    "a kind of RESP3": b"#t\r\n",
    "line without end": b"+" + b"x" * (1 << 18),
    "more than a reply may hold": b"$999999999999\r\n",
    "more items than a reply may hold": b"*99999999\r\n",
    "nested without end": b"*1\r\n" * 100_000,
    "body longer than announced": b"$3\r\nabcdef\r\n",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_reply_is_refused(name: str) -> None:
    """Any program may listen at a port: it must not cost memory or time."""
    with pytest.raises(GarbledError):
        decoded(HOSTILE[name], 1 << 16)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_reply_is_refused_where_bytes_were_asked_for(name: str) -> None:
    """The path that receives in place checks the same."""
    decoder = ReplyDecoder(Bytes(HOSTILE[name], 1 << 16), "node", LIMIT)
    with pytest.raises((GarbledError, EOFError)):
        decoder.read_into([memoryview(bytearray(3))])


@given(st.binary(max_size=300), st.integers(1, 50))
def test_any_bytes_give_a_reply_or_an_error_of_ours(data: bytes, piece: int) -> None:
    """There is no other outcome: no IndexError, no RecursionError, no ValueError."""
    decoder = ReplyDecoder(Bytes(data, piece), "node", LIMIT)
    try:
        while True:
            decoder.read()
    except (GarbledError, EOFError):
        pass


def test_what_is_announced_costs_nothing_before_it_comes() -> None:
    """A few bytes must not be able to take a gigabyte."""
    decoder = ReplyDecoder(Bytes(b"*30000\r\n" + b"$1000000\r\n", 64), "node", LIMIT)
    tracemalloc.start()
    with pytest.raises((GarbledError, EOFError)):
        decoder.read()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * LIMIT


@given(st.binary(max_size=40), st.integers(0, 60))
def test_a_reply_in_few_steps_is_whole_or_nothing(value: bytes, cut: int) -> None:
    """A value may end like the reply: the rest would be taken for the answer to the next call."""
    begin, end = b"+OK\r\n", b"$2\r\nup\r\n"
    parse = bulk_between(begin, end)
    whole = begin + b"$%d\r\n%b\r\n" % (len(value + end), value + end) + end
    assert value + end == parse(whole)
    assert parse(whole[: min(cut, len(whole) - 1)]) is None
    assert parse(whole + end) is None
    assert b"" == parse(begin + b"$-1\r\n" + end)
    assert exactly(b":1\r\n:1\r\n")(b":1\r\n") is None
