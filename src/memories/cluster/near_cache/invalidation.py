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
from memories.foundation.periodic import Latch, Periodic

PING_SECONDS = 0.25
_SILENCE_SECONDS = 1.0  # A node that leaves a ping unanswered for so long is not heard any more.


class ListenerQuorum(NamedTuple):
    """Nodes of which so many must be heard for no acknowledged write to be missed."""

    nodes: tuple[str, ...]
    needed: int


class _Subscription:
    """One node that is listened to."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.pinged_at = 0.0
        self.valid_until = 0.0


class InvalidationListener:
    """Keeps one connection to every node, and the lease of `near`.

    Args:
        near: What is told of writes, and of gaps in what is heard.
        nodes: Returns the nodes to listen to, as of now.
        covers: Returns which of them must be heard.
    """

    def __init__(
        self,
        freshness: Freshness,
        nodes: Callable[[], Iterable[Node]],
        quorums: Callable[[], Iterable[ListenerQuorum]],
        monotonic: Callable[[], float],
    ) -> None:
        self._freshness = freshness
        self._nodes = nodes
        self._quorums = quorums
        self._monotonic = monotonic
        self._subscriptions: dict[str, _Subscription] = {}
        self._ended = Latch()
        self._thread = Periodic(self._listen, "nodes-tracker", seconds=0.0)

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def stop(self) -> None:
        """Stop listening; copies are not fresh any more."""
        self._ended.set()
        if self._thread.stop():
            self._disconnect_all()
        self._freshness.close()

    def _listen(self) -> None:
        try:
            self._run_once()
        except BaseException:
            # Until it succeeds again nobody listens, and every read asks the nodes.
            self._disconnect_all()
            raise

    def _disconnect_all(self) -> None:
        for name in list(self._subscriptions):
            self._disconnect(name)

    def _run_once(self) -> None:
        """Ping everyone once, and hear what they say until the next time."""
        for node in self._nodes():
            if node.name not in self._subscriptions and node.usable:
                self._subscribe(node)
        began = self._monotonic()
        for name, subscription in list(self._subscriptions.items()):
            self._ping(name, subscription, began)
        while (left := began + PING_SECONDS - self._monotonic()) > 0:
            connections = [subscription.connection for subscription in self._subscriptions.values()]
            if not connections:
                self._ended.wait(left)
                return
            heard = ready(connections, left)
            for name, subscription in list(self._subscriptions.items()):
                if subscription.connection in heard:
                    self._receive(name, subscription)

    def _subscribe(self, node: Node) -> None:
        try:
            connection = Connection(
                node.address,
                connect_seconds=CONNECT_SECONDS,
                call_seconds=CALL_SECONDS,
                on_push=self._on_push,
                name="memories-tracker",
            )
        except UnavailableError as error:
            node.record_failure(error)
            return
        except ReplyError as error:
            node.record_refusal(error)
            return
        try:
            connection.call("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", PREFIX)
        except (UnavailableError, ReplyError) as error:
            node.last_error = str(error)
            connection.close()
            return
        self._subscriptions[node.name] = _Subscription(connection)
        self._freshness.require_revalidation()  # It may have taken writes of which we did not hear.

    def _ping(self, name: str, subscription: _Subscription, now: float) -> None:
        if subscription.connection.pending:
            if now - subscription.pinged_at > _SILENCE_SECONDS:
                self._disconnect(name)
            return
        try:
            subscription.connection.send([("PING",)])
        except (UnavailableError, ClosedError):
            self._disconnect(name)
            return
        subscription.pinged_at = now

    def _receive(self, name: str, subscription: _Subscription) -> None:
        try:
            if subscription.connection.pending:
                answer = subscription.connection.receive()
                if not isinstance(answer, ReplyError):
                    subscription.valid_until = subscription.pinged_at + LEASE_SECONDS
                    self._extend_lease()
            else:
                subscription.connection.listen(0)
        except UnavailableError:
            self._disconnect(name)

    def _disconnect(self, name: str) -> None:
        self._subscriptions.pop(name).connection.close()
        self._freshness.fresh_until = 0.0  # What it vouched for is not known any more.
        self._freshness.require_revalidation()

    def _extend_lease(self) -> None:
        """Set the lease to the moment up to which enough nodes of every list vouch."""
        until = float("inf")
        for quorum in self._quorums():
            known = (self._subscriptions.get(name) for name in quorum.nodes)
            ends = sorted(
                (subscription.valid_until if subscription else 0.0 for subscription in known),
                reverse=True,
            )
            until = min(until, ends[quorum.needed - 1])
        if not self._ended.is_set():
            self._freshness.fresh_until = until

    def _on_push(self, message: list[Any]) -> None:
        if message[0] != b"invalidate":
            return
        if message[1] is None:  # All keys of the node are gone.
            self._freshness.require_revalidation()
            return
        for name in message[1]:
            if name.startswith(PREFIX):
                self._freshness.invalidate(key_of(name))
