"""The users of the service: threads that log in, read pages, fill carts, and check every answer."""

from __future__ import annotations

import json
import random
import socket
import threading
import time
from dataclasses import dataclass, field

PAGES = 60
GIVE_UP_SECONDS = 30.0


@dataclass
class Seen:
    """What the users saw, added up.

    Attributes:
        lost: Items that were acknowledged and then missing in the cart.
        stale: Answers out of a session that had ended.
        wrong: Pages that were not the one asked for.
        ended_early: Sessions that were refused before their time.
        retried: Requests that were sent again because the connection broke.
    """

    requests: int = 0
    lost: int = 0
    stale: int = 0
    wrong: int = 0
    ended_early: int = 0
    retried: int = 0
    errors: list[str] = field(default_factory=list)


class User:
    """One user, with one connection at a time and one request at a time."""

    def __init__(self, port: int, number: int, session_seconds: float) -> None:
        self.port = port
        self.session_seconds = session_seconds
        self.chance = random.Random(number)
        self.seen = Seen()
        self.connection: socket.socket | None = None
        self.token = ""
        self.logged_in = (0.0, 0.0)  # When the login was sent, and when it was acknowledged.
        self.cart: list[int] = []
        self.items = 0

    def run(self, requests: int, pages: dict[int, bytes]) -> None:
        """Make so many requests."""
        try:
            while self.seen.requests < requests:
                self._one(pages)
        except Exception as error:  # Judged by the caller, in another thread.
            self.seen.errors.append(repr(error))
        finally:
            self._hang_up()

    def _one(self, pages: dict[int, bytes]) -> None:
        if not self.token:
            self._log_in()
            return
        sent = time.monotonic()
        what = self.chance.random()
        number = min(int(self.chance.paretovariate(1.0)), PAGES) - 1
        if what < 0.7:
            status, body = self._ask("GET", f"/{self.token}/page/{number}")
            if status == 200:
                self.seen.wrong += body != pages[number]
        elif what < 0.85:
            self.items += 1
            status, body = self._ask("POST", f"/{self.token}/cart/{self.items}")
            if status == 200:
                self.cart.append(self.items)
        else:
            status, body = self._ask("GET", f"/{self.token}/cart")
            if status == 200:
                found = json.loads(body)
                self.seen.lost += len(set(self.cart) - set(found))
        self._judge(status, sent)

    def _judge(self, status: int, sent: float) -> None:
        """Count an answer from a session that had ended, or a refusal before its end."""
        answered = time.monotonic()
        if status == 200:
            self.seen.stale += sent > self.logged_in[1] + self.session_seconds
        elif status == 401:
            self.seen.ended_early += answered < self.logged_in[0] + self.session_seconds
            self.token = ""
        else:
            self.seen.errors.append(f"status {status}")

    def _log_in(self) -> None:
        sent = time.monotonic()
        status, body = self._ask("POST", "/login")
        assert status == 200, status
        self.token, self.cart = body.decode(), []
        self.logged_in = (sent, time.monotonic())

    def _ask(self, method: str, path: str) -> tuple[int, bytes]:
        """Send a request until it is answered."""
        deadline = time.monotonic() + GIVE_UP_SECONDS
        while True:
            try:
                answer = self._exchange(method, path)
                self.seen.requests += 1
                return answer
            except OSError:
                self._hang_up()
                if time.monotonic() > deadline:
                    raise
                self.seen.retried += 1
                time.sleep(0.02)

    def _exchange(self, method: str, path: str) -> tuple[int, bytes]:
        if self.connection is None:
            self.connection = socket.create_connection(("127.0.0.1", self.port), timeout=10)
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        length = "content-length: 0\r\n" if method == "POST" else ""
        self.connection.sendall(f"{method} {path} HTTP/1.1\r\nhost: a\r\n{length}\r\n".encode())
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._receive()
        head, _, body = data.partition(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        length = next(int(one[15:]) for one in lines if one.startswith(b"content-length:"))
        parts = [body]
        left = length - len(body)
        while left > 0:
            parts.append(self._receive())
            left -= len(parts[-1])
        return int(lines[0].split()[1]), b"".join(parts)

    def _receive(self) -> bytes:
        assert self.connection is not None
        block = self.connection.recv(1 << 16)
        if not block:
            raise ConnectionResetError("the service closed the connection")
        return block

    def _hang_up(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None


def use(users: list[User], requests: int, pages: dict[int, bytes]) -> float:
    """Let every user make so many further requests; return how long that took."""
    threads = [
        threading.Thread(target=user.run, args=(user.seen.requests + requests, pages))
        for user in users
    ]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - started
