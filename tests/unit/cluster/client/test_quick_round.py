"""A small request to each node: which replies are taken as they come, and which are decoded."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from memories.cluster.client.quick_round import QuickRound
from memories.cluster.client.resp import exactly
from memories.errors import UnavailableError

STORED = b":1\r\n:1\r\n"


class Connection:
    """A connection of which a test knows what comes, packet by packet."""

    def __init__(self, packets: Sequence[bytes]) -> None:
        self.run_id = "process"
        self.pending = 0
        self.transport = SimpleNamespace(post=self.post, fetch=self.fetch)
        self.sent: list[bytes] = []
        self.decoded: list[bytes] = []
        self._packets = list(packets)

    def post(self, data: bytes) -> None:
        """Note what is sent."""
        self.sent.append(data)

    def fetch(self, seconds: float) -> bytes:
        """Return the next packet; an error if there is none."""
        if not self._packets:
            raise UnavailableError(f"no answer within {seconds} s")
        return self._packets.pop(0)

    def decode(self, data: bytes) -> list[Any]:
        """Note what is decoded."""
        self.decoded.append(data)
        self.pending = 0
        return ["decoded"]


def ask(*packets: bytes) -> tuple[Connection, Any]:
    """Return a connection, and what a round returns if these packets come."""
    connection = Connection(packets)
    pool = SimpleNamespace(take_idle=lambda: connection, give=lambda given: None)
    node: Any = SimpleNamespace(
        pool=pool,
        latency=SimpleNamespace(hedge_seconds=0.08),
        record_quick=lambda seconds: None,
        record_timeout=lambda asked: None,
    )
    with QuickRound([node], lambda: 0.0) as round_:
        round_.send([b"SET WAIT"], 2)
        try:
            return connection, round_.receive([exactly(STORED)])
        except UnavailableError:
            return connection, None


def test_replies_that_come_one_after_the_other_are_taken_together() -> None:
    """The reply to a WAIT comes after that to the store: it need not be decoded for that."""
    for packets in ([STORED], [b":1\r\n", b":1\r\n"]):
        connection, replies = ask(*packets)
        assert [STORED] == replies
        assert [] == connection.decoded
        assert not connection.pending


def test_all_other_replies_are_decoded() -> None:
    """As far as they have come."""
    for packets in ([b":1\r\n:0\r\n"], [b"-OOM\r\n", b":1\r\n"], [b":", b"1\r\n"]):
        connection, replies = ask(*packets)
        assert [["decoded"]] == replies
        assert [b"".join(packets)] == connection.decoded


def test_a_reply_that_does_not_come_leaves_the_connection_unusable() -> None:
    """A pool closes a connection that has a reply to come."""
    for packets in ([], [b":1\r\n"]):
        connection, replies = ask(*packets)
        assert replies is None
        assert connection.pending
