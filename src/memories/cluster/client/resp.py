"""RESP2, the protocol of Valkey and Redis: encodes commands to buffers, decodes bytes to replies.

Of RESP3 it knows push messages and nulls, for CLIENT TRACKING. Every length and count from a node
is checked against limits before it is used. Large arguments and replies are not copied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, Protocol, TypeAlias

from memories.errors import MemoriesError
from memories.foundation.printable import printable

Buffer: TypeAlias = bytes | bytearray | memoryview
# A tuple or list of buffers is one argument; the buffers are sent one after the other.
Arg: TypeAlias = Buffer | str | int | float | tuple[Buffer, ...] | list[Buffer]
Command: TypeAlias = Sequence[Arg] | bytes
Reply: TypeAlias = Any  # bytes, int, None, a list of replies, or a ReplyError.

# A smaller argument is copied into the head: that costs less than one more buffer to send.
NIL = b"$-1\r\n"
GATHERED_BYTES = 16 << 10
MAX_LINE_BYTES = 64 << 10
MAX_DEPTH = 16
_MOST_SHOWN = 300  # Characters of an error that a node sends.
_LENGTH_BYTES = 16  # A length on its line, with both ends.
ITEM_BYTES = 32  # The least RAM that an item takes beyond its bytes.


class ReplyError(MemoriesError, RuntimeError):
    """A node replied to a command with an error. The node and the connection work.

    `code` is the first word of the error, such as `MOVED`, `OOM` or `READONLY`; `text` the rest.
    """

    def __init__(self, code: str, text: str, node: str = "") -> None:
        super().__init__(code, text, node)
        self.code = code
        self.text = text
        self.node = node

    def __str__(self) -> str:
        said = printable(f"{self.code} {self.text}".rstrip(), _MOST_SHOWN)
        return f"{self.node or 'a node'} refused: {said}"


class GarbledError(Exception):
    """Received bytes are not a valid reply, or exceed a limit. `Connection` converts it."""


class ByteSource(Protocol):
    """Where the bytes of replies come from."""

    def more(self) -> bytes:
        """Return at least one more byte; raises if none comes in time."""

    def fill(self, view: memoryview) -> None:
        """Fill all of `view`; raises if that takes too long."""

    def expect(self, count: int) -> None:
        """Extend the time limit, because so many bytes are about to come."""


def encode(commands: Iterable[Command]) -> list[Buffer]:
    """Return the buffers to send, in order; large arguments are among them as they are.

    A command of the type `bytes` is encoded already.
    """
    out: list[Buffer] = []
    head = bytearray()
    for command in commands:
        if type(command) is bytes:
            head += command
            continue
        head += b"*%d\r\n" % len(command)
        arg: Any  # One look at its type instead of several isinstance calls: this loop is hot.
        for arg in command:
            kind = type(arg)
            if kind is str:
                arg = arg.encode()
            elif kind is int:
                arg = b"%d" % arg
            elif kind is float:
                arg = repr(arg).encode()
            elif kind is not bytes or len(arg) >= GATHERED_BYTES:
                head = _gather(arg, head, out)
                continue
            head += b"$%d\r\n%b\r\n" % (len(arg), arg)
    if head:
        out.append(head)
    return out


def encode_strings(words: Iterable[bytes]) -> bytes:
    """Return bulk strings, as parts of a command that has many of them."""
    return b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words])


@lru_cache(512)
def bulk_between(begin: bytes, end: bytes) -> Callable[[bytes], bytes | None]:
    """Return a parser of replies that are a bulk string between two known parts.

    The parser returns the string, which is empty for a nil, and None if anything else is there.
    """
    at, nil = len(begin), begin + NIL + end

    def parse(data: bytes) -> bytes | None:
        start = data.find(b"\r\n", at, at + _LENGTH_BYTES) + 2
        length = data[at + 1 : start - 2]
        if start < 2 or not length.isdigit() or data[at : at + 1] != b"$":
            return b"" if data == nil else None
        stop = start + int(length)
        if len(data) != stop + 2 + len(end) or not (data.startswith(begin) and data.endswith(end)):
            return None
        return data[start:stop]

    return parse


@lru_cache(512)
def exactly(expected: bytes) -> Callable[[bytes], bytes | None]:
    """Return a parser of replies that are exactly as expected; it returns them."""

    def parse(data: bytes) -> bytes | None:
        return data if data == expected else None

    return parse


def _gather(arg: Arg, head: bytearray, out: list[Buffer]) -> bytearray:
    parts = arg if isinstance(arg, (tuple, list)) else (arg,)
    views = [memoryview(part).cast("B") for part in parts]  # type: ignore[arg-type]
    head += b"$%d\r\n" % sum(view.nbytes for view in views)
    for view in views:
        if view.nbytes < GATHERED_BYTES:
            head += view
            continue
        out += (head, view) if head else (view,)
        head = bytearray()
    head += b"\r\n"
    return head


class ReplyDecoder:
    """Decodes the bytes of one connection into replies. For one thread at a time.

    Args:
        source: Supplies the bytes.
        node: The name of the node, for errors.
        max_reply_bytes: The largest reply that is accepted, all its items together.
    """

    def __init__(self, source: ByteSource, node: str, max_reply_bytes: int) -> None:
        self._source = source
        self._node = node
        self._max_bytes = max_reply_bytes
        self._data = b""
        self._at = 0
        self._left = 0  # Bytes that the current reply may still have.

    @property
    def waiting(self) -> bool:
        """Return whether received bytes are left to decode."""
        return self._at < len(self._data)

    def feed(self, data: bytes) -> None:
        """Add bytes that were received elsewhere, while none are waiting."""
        self._data, self._at = data, 0

    def read(self) -> tuple[bool, Reply]:
        """Return whether the next message is a push message, and its content.

        Raises:
            GarbledError: it is not a reply, or larger than allowed.
        """
        self._left = self._max_bytes
        line = self._line()
        if line[:1] == b">":
            return True, self._items(self._number(line), 0)
        return False, self._reply(line, 0)

    def read_here(self, count: int) -> list[Reply]:
        """Return up to `count` of the next replies, as far as they are here and easy to read."""
        self._left = self._max_bytes
        return self._here(count)

    def read_into(self, views: Sequence[memoryview]) -> tuple[bool, Reply]:
        """Read like `read`, but store a bulk string into `views`, and return its length instead.

        If the string is longer than all views together, the rest is dropped.

        Raises:
            GarbledError: it is not a reply, not a bulk string, or larger than allowed.
        """
        self._left = self._max_bytes
        line = self._line()
        if line[:1] != b"$" or line == b"$-1":
            if line[:1] == b">":
                return True, self._items(self._number(line), 0)
            reply = self._reply(line, 0)
            if reply is None or isinstance(reply, ReplyError):
                return False, reply
            raise GarbledError("its reply is not the bulk string that was requested")
        length = self._number(line)
        left = length
        self._source.expect(length)
        for view in views:
            part = view[: min(left, view.nbytes)]
            self._fill(part)
            left -= part.nbytes
        if left:
            self._charge(left)
            self._fill(memoryview(bytearray(left)))
        self._end_of_bulk()
        return False, length

    def _reply(self, line: bytes, depth: int) -> Reply:
        kind = line[:1]
        if kind == b"$":
            return self._bulk(line)
        if kind == b"+":
            return line[1:]
        if kind == b":":
            return self._number(line)
        if kind == b"-":
            code, _, rest = line[1:].decode("utf-8", "replace").partition(" ")
            return ReplyError(code, rest, self._node)
        if kind == b"*":
            if depth >= MAX_DEPTH:
                raise GarbledError(f"its reply is nested more than {MAX_DEPTH} deep")
            return None if line == b"*-1" else self._items(self._number(line), depth)
        if line == b"_":
            return None
        raise GarbledError(f"it sent {line[:40]!r}, which is not the start of a reply")

    def _items(self, count: int, depth: int) -> list[Reply]:
        self._charge(ITEM_BYTES * count)
        items = self._here(count)
        while len(items) < count:
            items.append(self._reply(self._line(), depth + 1))
            items += self._here(count - len(items))
        return items

    def _here(self, count: int) -> list[Reply]:
        """Return up to `count` bulk strings and numbers, as many as have been received whole.

        This reads what `_reply` reads, in fewer steps: replies with a thousand values are common.
        """
        items: list[Reply] = []
        data, at = self._data, self._at
        line, length = b"", 0  # Of the string before: values in a row often have one length.
        while len(items) < count:
            if length and data.startswith(line, at):
                start = at + len(line)
                end = start + length
                if data[end : end + 2] != b"\r\n":
                    break
                items.append(data[start:end])
                at = end + 2
                continue
            kind = data[at : at + 1]
            if kind != b"$" and kind != b":":
                break
            start = data.find(b"\r\n", at, at + _LENGTH_BYTES) + 2
            if start < 2:
                break
            digits = data[at + 1 : start - 2]
            if digits == b"-1" and kind == b"$":
                items.append(None)
                at = start
                continue
            if not digits.isdigit():
                break  # Not a length, or cut: `_reply` decides.
            if kind == b":":
                items.append(int(digits))
                at = start
                continue
            line, length = data[at:start], int(digits)
            end = start + length
            if data[end : end + 2] != b"\r\n":
                break
            items.append(data[start:end])
            at = end + 2
        self._left -= at - self._at
        self._at = at
        if self._left < 0:
            self._charge(0)
        return items

    def _bulk(self, line: bytes) -> bytes | None:
        if line == b"$-1":
            return None
        length = self._number(line)
        self._charge(length)
        end = self._at + length
        if end + 2 <= len(self._data):  # The common case: all of it has been received.
            body = self._data[self._at : end]
            self._at = end
        else:
            self._source.expect(length)
            room = bytearray(length)
            self._fill(memoryview(room))
            body = bytes(room)
        self._end_of_bulk()
        return body

    def _end_of_bulk(self) -> None:
        while len(self._data) - self._at < 2:
            self._grow()
        if self._data[self._at : self._at + 2] != b"\r\n":
            raise GarbledError("a bulk string that it sent is longer than announced")
        self._at += 2

    def _fill(self, view: memoryview) -> None:
        """Fill `view` with bytes already received, and the rest directly from the source."""
        here = min(view.nbytes, len(self._data) - self._at)
        view[:here] = memoryview(self._data)[self._at : self._at + here]
        self._at += here
        if here < view.nbytes:
            self._source.fill(view[here:])

    def _line(self) -> bytes:
        end = self._data.find(b"\r\n", self._at)
        while end < 0:
            if len(self._data) - self._at > MAX_LINE_BYTES:
                raise GarbledError(f"it sent a line of more than {MAX_LINE_BYTES:,} bytes")
            self._grow()
            end = self._data.find(b"\r\n", self._at)
        line = self._data[self._at : end]
        self._at = end + 2
        self._charge(len(line) + 2)
        return line

    def _grow(self) -> None:
        rest = self._data[self._at :]
        more = self._source.more()
        self._data = rest + more if rest else more
        self._at = 0

    def _charge(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise GarbledError(f"its reply is larger than {self._max_bytes:,} bytes")

    def _number(self, line: bytes) -> int:
        digits = line[1:]
        plain = digits[1:] if digits[:1] == b"-" and line[:1] == b":" else digits
        if not plain.isdigit() or len(plain) > 40:
            raise GarbledError(f"it sent {line[:40]!r} instead of a number")
        return int(digits)
