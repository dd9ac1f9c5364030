"""Listens to the nodes for writes, so that local copies are known to be good.

Not the copies' book, which is `near`. The one idea: a node says what was written before it answers
a ping that came later, so an answered ping vouches for everything up to the moment it was sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from memories.cluster.client.connection import Connection, ready
from memories.cluster.client.node import CALL_SECONDS, CONNECT_SECONDS, Node
from memories.cluster.client.resp import ReplyError
from memories.cluster.near_cache.freshness import LEASE_SECONDS, Freshness
from memories.cluster.register_format import PREFIX, key_of
from memories.errors import ClosedError, UnavailableError
from memories.foundation.periodic import Ended, Periodic

PING_SECONDS = 0.25
_SILENCE_SECONDS = 1.0  # A node that leaves a ping unanswered for so long is not heard any more.


class ListenerQuorum(NamedTuple):
    """Nodes of which so many must be heard for no acknowledged write to be missed."""

    nodes: tuple[str, ...]
    needed: int


class _Ear:
    """One node that is listened to."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.pinged_at = 0.0
        self.good_until = 0.0


class InvalidationListener:
    """Keeps one connection to every node, and the lease of `near`.

    Args:
        near: What is told of writes, and of gaps in what is heard.
        nodes: Returns the nodes to listen to, as of now.
        covers: Returns which of them must be heard.
    """

    def __init__(
        self,
        near: Freshness,
        nodes: Callable[[], Iterable[Node]],
        covers: Callable[[], Iterable[ListenerQuorum]],
        monotonic: Callable[[], float],
    ) -> None:
        self._near = near
        self._nodes = nodes
        self._covers = covers
        self._monotonic = monotonic
        self._ears: dict[str, _Ear] = {}
        self._ended = Ended()
        self._thread = Periodic(self._listen, "nodes-tracker", seconds=0.0)

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def stop(self) -> None:
        """Stop listening; copies are not fresh any more."""
        self._ended.set()
        if self._thread.stop():
            self._stop_listening()
        self._near.end()

    def _listen(self) -> None:
        try:
            self._turn()
        except BaseException:
            # Until it succeeds again nobody listens, and every read asks the nodes.
            self._stop_listening()
            raise

    def _stop_listening(self) -> None:
        for name in list(self._ears):
            self._lose(name)

    def _turn(self) -> None:
        """Ping everyone once, and hear what they say until the next time."""
        for node in self._nodes():
            if node.name not in self._ears and node.usable:
                self._listen_to(node)
        began = self._monotonic()
        for name, ear in list(self._ears.items()):
            self._ping(name, ear, began)
        while (left := began + PING_SECONDS - self._monotonic()) > 0:
            connections = [ear.connection for ear in self._ears.values()]
            if not connections:
                self._ended.wait(left)
                return
            heard = ready(connections, left)
            for name, ear in list(self._ears.items()):
                if ear.connection in heard:
                    self._hear(name, ear)

    def _listen_to(self, node: Node) -> None:
        try:
            connection = Connection(
                node.address,
                connect_seconds=CONNECT_SECONDS,
                call_seconds=CALL_SECONDS,
                on_push=self._on_push,
                name="memories-tracker",
            )
        except UnavailableError as error:
            node.failed(error)
            return
        except ReplyError as error:
            node.refused(error)
            return
        try:
            connection.call("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", PREFIX)
        except (UnavailableError, ReplyError) as error:
            node.last_error = str(error)
            connection.close()
            return
        self._ears[node.name] = _Ear(connection)
        self._near.doubt()  # It may have taken writes of which we did not hear.

    def _ping(self, name: str, ear: _Ear, now: float) -> None:
        if ear.connection.pending:
            if now - ear.pinged_at > _SILENCE_SECONDS:
                self._lose(name)
            return
        try:
            ear.connection.send([("PING",)])
        except (UnavailableError, ClosedError):
            self._lose(name)
            return
        ear.pinged_at = now

    def _hear(self, name: str, ear: _Ear) -> None:
        try:
            if ear.connection.pending:
                answer = ear.connection.receive()
                if not isinstance(answer, ReplyError):
                    ear.good_until = ear.pinged_at + LEASE_SECONDS
                    self._renew()
            else:
                ear.connection.listen(0)
        except UnavailableError:
            self._lose(name)

    def _lose(self, name: str) -> None:
        self._ears.pop(name).connection.close()
        self._near.until = 0.0  # What it vouched for is not known any more.
        self._near.doubt()

    def _renew(self) -> None:
        """Set the lease to the moment up to which enough nodes of every list vouch."""
        until = float("inf")
        for cover in self._covers():
            known = (self._ears.get(name) for name in cover.nodes)
            ends = sorted((ear.good_until if ear else 0.0 for ear in known), reverse=True)
            until = min(until, ends[cover.needed - 1])
        if not self._ended.is_set():
            self._near.until = until

    def _on_push(self, message: list[Any]) -> None:
        if message[0] != b"invalidate":
            return
        if message[1] is None:  # All keys of the node are gone.
            self._near.doubt()
            return
        for name in message[1]:
            if name.startswith(PREFIX):
                self._near.forget(key_of(name))
