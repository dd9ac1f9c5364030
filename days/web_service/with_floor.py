"""The least service with our promises: sessions as checked bytes on the server, pages in RAM.

It speaks with the server over a socket of each thread, and knows only what it needs. A cart is
replaced by a script, which compares it with the one that was read, so that no older one comes back.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from typing import Any

import xxhash

from days.web_service.pages import PAGE_SECONDS, application, renders, until

_REPLACE = b"""
if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('set', KEYS[1], ARGV[2]) end
"""
host, port = os.environ["NODE"].rsplit(":", 1)
mine = threading.local()
pages: dict[int, tuple[float, str]] = {}


def ask(*words: bytes) -> bytes | None:
    """Send a command, and return its answer."""
    if not hasattr(mine, "socket"):
        mine.socket = socket.create_connection((host, int(port)))
        mine.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    parts = [b"*%d\r\n" % len(words)]
    parts += (b"$%d\r\n%b\r\n" % (len(word), word) for word in words)
    mine.socket.sendall(b"".join(parts))
    answer = mine.socket.recv(1 << 16)
    while not answer.endswith(b"\r\n"):
        answer += mine.socket.recv(1 << 16)
    line, _, rest = answer.partition(b"\r\n")
    if line[:1] == b"-":
        raise OSError(line.decode())
    if line[:1] == b"+":
        return bytes(line[1:])
    size = int(line[1:])
    if size < 0:
        return None
    while len(rest) < size + 2:
        rest += mine.socket.recv(1 << 16)
    return bytes(rest[:size])


def sealed(session: dict[str, Any]) -> bytes:
    """Return a session as bytes with their checksum."""
    body = json.dumps(session).encode()
    return xxhash.xxh3_64_digest(body) + body


def opened(found: bytes | None) -> Any:
    """Return the session in these bytes; None if there is none, or if it has ended."""
    if found is None:
        return None
    if xxhash.xxh3_64_digest(found[8:]) != found[:8]:
        raise ValueError("a session is damaged")
    session = json.loads(found[8:])
    return session if time.time() < session["until"] else None


def page(number: int) -> str:
    """Return a page, rendered at most a moment ago."""
    ends, found = pages.get(number, (0.0, ""))
    if time.monotonic() >= ends:
        found = renders(number)
        pages[number] = time.monotonic() + PAGE_SECONDS, found
    return found


def log_in() -> str:
    """Begin a session."""
    token = secrets.token_hex(16)
    ask(b"SET", token.encode(), sealed({"cart": [], "until": until()}))
    return token


def session(token: str) -> Any:
    """Return the cart of a session, or None if it has ended."""
    found = opened(ask(b"GET", token.encode()))
    return None if found is None else found["cart"]


def add(token: str, item: int) -> bool:
    """Put an item into the cart."""
    before = ask(b"GET", token.encode())
    found = opened(before)
    if before is None or found is None:
        return False
    found["cart"].append(item)
    return ask(b"EVAL", _REPLACE, b"1", token.encode(), before, sealed(found)) == b"OK"


app = application(log_in, session, add, page)
