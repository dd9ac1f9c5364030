"""Invalidates local copies by CLIENT TRACKING in broadcast mode, with one connection per node.

A node sends its reports of writes before it answers a later PING on the same connection. So an
answered PING proves that all writes up to the sending of the PING have been reported, and extends
the lease of the copies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from memories.cluster.client.connection import Connection, ready
from memories.cluster.client.node import Node
from memories.cluster.client.resp import ReplyError
from memories.cluster.near_cache.freshness import LEASE_SECONDS, Freshness
from memories.cluster.register_format import PREFIX
from memories.errors import ClosedError, UnavailableError
from memories.foundation.periodic import Latch, Periodic

PING_SECONDS = 0.25
_SILENCE_SECONDS = 1.0  # A connection without an answer to a PING for so long is closed.
# Between two attempts at a server that refuses CLIENT TRACKING.
_FIRST_PAUSE_SECONDS, _LONGEST = 1.0, 300.0
_TEXT = frozenset((bytes,))


class ListenerQuorum(NamedTuple):
    """Nodes of which `needed` must report writes, so that no acknowledged one is missed."""

    nodes: tuple[str, ...]
    needed: int


class _Subscription:
    """The connection to one node, and the time until which its reports are complete."""

    def __init__(self, connection: Connection, silence_seconds: float) -> None:
        self.connection = connection
        self.silence_seconds = silence_seconds
        self.pinged_at = 0.0
        self.valid_until = 0.0


class InvalidationListener:
    """Keeps one connection to every node, and extends the lease of the copies.

    Args:
        freshness: Is updated on writes, and on gaps in the reports.
        nodes: Returns the nodes to listen to, as of now.
        quorums: Returns the sets of nodes, and how many of each must report.
    """

    def __init__(
        self,
        freshness: Freshness,
        nodes: Callable[[], Iterable[Node]],
        quorums: Callable[[], Iterable[ListenerQuorum]],
        monotonic: Callable[[], float],
        *,
        prefix: bytes = PREFIX,
        key_of: Callable[[bytes], str | None] | None = None,
    ) -> None:
        self._freshness = freshness
        self._nodes = nodes
        self._quorums = quorums
        self._monotonic = monotonic
        self._prefix = prefix  # Of the names of registers.
        self._key_of = key_of or _key_as_it_is  # By what follows the prefix.
        self._subscriptions: dict[str, _Subscription] = {}
        self._refusals: dict[str, tuple[float, float]] = {}  # The pause, and when it ends.
        self._ended = Latch()
        self._thread = Periodic(self._listen, "nodes-tracker", seconds=0.0)

    def start(self) -> None:
        """Start the thread that listens."""
        self._thread.start()

    def stop(self) -> None:
        """Stop listening; no copy is fresh any more."""
        self._ended.set()
        if self._thread.stop():
            self._disconnect_all()
        self._freshness.close()

    def _listen(self) -> None:
        try:
            self._run_once()
        except BaseException:
            # Until a later turn succeeds, no copy is fresh, and every read asks the nodes.
            self._disconnect_all()
            raise

    def _disconnect_all(self) -> None:
        for name in list(self._subscriptions):
            self._disconnect(name)

    def _run_once(self) -> None:
        """Send a PING to every node, and process messages until the next PING is due."""
        for node in self._nodes():
            ends = self._refusals.get(node.name, (0.0, 0.0))[1]
            if node.name not in self._subscriptions and node.usable and self._monotonic() >= ends:
                self._subscribe(node)
        began = self._monotonic()
        for name, subscription in list(self._subscriptions.items()):
            self._ping(name, subscription, began)
        while (left := began + PING_SECONDS - self._monotonic()) > 0:
            connections = [subscription.connection for subscription in self._subscriptions.values()]
            if not connections:
                self._ended.wait(left)
                return
            readable = ready(connections, left)
            for name, subscription in list(self._subscriptions.items()):
                if subscription.connection in readable:
                    self._receive(name, subscription)

    def _subscribe(self, node: Node) -> None:
        try:
            connection = Connection(
                node.address,
                connect_seconds=node.latency.connect_seconds,
                call_seconds=node.latency.patience_seconds,
                on_push=self._on_push,
            )
        except UnavailableError as error:
            node.record_failure(error)
            return
        except ReplyError as error:
            node.record_refusal(error)
            self._postpone(node.name)
            return
        try:
            connection.call("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", self._prefix)
        except (UnavailableError, ReplyError) as error:
            node.last_error = str(error)
            connection.close()
            self._postpone(node.name)
            return
        self._refusals.pop(node.name, None)
        self._subscriptions[node.name] = _Subscription(
            connection, max(_SILENCE_SECONDS, node.latency.patience_seconds)
        )
        self._freshness.require_revalidation()  # The node may have accepted writes before.

    def _postpone(self, name: str) -> None:
        """Let a server that has no CLIENT TRACKING, or does not allow it, alone for a while."""
        seconds = min(2 * self._refusals.get(name, (_FIRST_PAUSE_SECONDS / 2, 0.0))[0], _LONGEST)
        self._refusals[name] = seconds, self._monotonic() + seconds

    def _ping(self, name: str, subscription: _Subscription, now: float) -> None:
        if subscription.connection.pending and not subscription.connection.closed:
            if now - subscription.pinged_at > subscription.silence_seconds:
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
        self._freshness.fresh_until = 0.0  # The lease was based on this node, too.
        self._freshness.require_revalidation()

    def _extend_lease(self) -> None:
        """Set the lease to the time until which enough nodes of every set have reported."""
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
        if message[:1] != [b"invalidate"]:
            return
        names = message[1] if len(message) == 2 else None
        # None: the node was flushed, and has no keys any more. Other things cannot be understood.
        if not isinstance(names, list) or not _TEXT.issuperset(map(type, names)):
            self._freshness.require_revalidation()
            return
        for name in names:
            if name.startswith(self._prefix):
                key = self._key_of(name[len(self._prefix) :])
                if key is not None:
                    self._freshness.invalidate(key)


def _key_as_it_is(name: bytes) -> str:
    return name.decode(errors="replace")
