"""The nodes of a Valkey Cluster, and the newest map of slots to nodes.

A refresh asks all nodes for their map, and uses the one with the highest epoch.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from memories.cluster.client.address import NodeAddress, host_and_port
from memories.cluster.client.fanout import ask_nodes
from memories.cluster.client.node import EvictingNodeError, Node
from memories.cluster.client.opening import open_connections
from memories.cluster.client.resp import ReplyError
from memories.cluster.valkey_cluster.slots import (
    ClusterMember,
    Shard,
    SlotMap,
    hidden_replicas,
    slot_of,
)
from memories.cluster.valkey_cluster.topology import Topology, View
from memories.errors import InvalidOptionError, UnavailableError
from memories.foundation.fork_lock import is_held_here, new_lock
from memories.foundation.printable import printable

_REFRESH_SECONDS = 0.1  # No two refreshes follow each other faster.
_FOUND_SECONDS = 2.0
_VIEW_SECONDS = 0.9  # For a node nearby to say what it knows of the others.
_HIDDEN_SECONDS = 15.0  # A new replica is hidden until the nodes know how much it has copied.


class Shards:
    """All nodes of a Cluster. Safe to use from many threads.

    Args:
        topology: Tells which node serves what.
        copies: How many nodes must have an acknowledged write.
        monotonic: Returns seconds that never run backwards.
        allow_eviction: Accept nodes that drop values when they are full.
    """

    def __init__(
        self,
        topology: Topology,
        copies: int,
        *,
        monotonic: Callable[[], float],
        allow_eviction: bool = False,
    ) -> None:
        self.topology = topology
        self.copies = copies
        self.monotonic = monotonic
        self.slot_map = SlotMap()
        self.views: dict[str, View] = {}  # Of the newest refresh, by the node that was asked.
        self._members: Sequence[ClusterMember] = ()
        self._allow_eviction = allow_eviction
        self._template = topology.template
        seeds = topology.seeds
        # Of a seed the name by which the others announce it may be that of another address.
        remapped = self._template.address_remap is not None
        self._nodes = {} if remapped else {seed.name: seed for seed in seeds}
        for seed in seeds:
            seed.use_setup(topology.setup)
        # Nodes that may get the credentials: those that the caller named, and those that more than
        # half of the nodes with credentials name. One node alone cannot send them anywhere.
        self._announced = {seed.name for seed in seeds}
        self._refreshing = new_lock()
        self._refreshed_at = float("-inf")

    def bootstrap(self) -> None:
        """Read the slot map for the first time.

        Raises:
            UnavailableError: no node answers, or not every slot is served.
            InvalidOptionError: the Cluster was formed with fewer replicas than the copies need, or
                a node would drop values silently.
        """
        began = self.monotonic()
        self.refresh()  # News of a replica takes a while to spread among the nodes.
        while not self.slot_map.whole and self.monotonic() < began + _FOUND_SECONDS:
            self.refresh()
        if not self.slot_map.whole:
            asked = self.topology.informants(self.all_nodes())
            reasons = "; ".join(f"{node.name}: {node.last_error}" for node in asked)
            raise UnavailableError(self.topology.explain(f"({reasons})"))
        for error in open_connections(node for node in self.all_nodes() if node.usable).values():
            if isinstance(error, EvictingNodeError):
                raise error
        while (short := self._short_shards()) and self.monotonic() < began + _HIDDEN_SECONDS:
            views = self.views.values()  # The replica itself is the first that knows what it is.
            if not any(hidden_replicas(view.members, one) for view in views for one in short):
                break
            self.refresh()
        if short:
            self._require_replicas(short[0])

    def most_replicas(self) -> int:
        """Return how many replicas the primary with most of them has, failed ones included."""
        counts = Counter(one.primary_id for one in self._members if not one.is_primary)
        return max(counts.values(), default=0)

    def _short_shards(self) -> list[Shard]:
        """Return the shards whose replicas are too few for all copies."""
        return [
            shard for shard in self.slot_map.all_shards() if len(shard.replicas) < self.copies - 1
        ]

    def _require_replicas(self, short: Shard) -> None:
        """Raise `InvalidOptionError` unless some shard has, or had, enough replicas.

        Nodes that have failed were replicas, or primaries whose replicas took over.
        """
        most = max(len(shard.replicas) for shard in self.slot_map.all_shards())
        failed = sum("fail" in one.flags or "fail?" in one.flags for one in self._members)
        if most + failed < self.copies - 1:
            raise InvalidOptionError(
                f"replication_factor={self.copies} needs {self.copies - 1} replicas of every "
                f"primary, and {short.primary} has {len(short.replicas)}"
            )

    def node(self, name: str) -> Node:
        """Return the node of that name; it is created if it is new."""
        node = self._nodes.get(name)
        known = self._may_know(name)
        if node is None or (known and node.address.refusal):
            place = host_and_port(name)
            if place is None:
                raise UnavailableError(f"{printable(name)!r} is not the address of a node")
            address = self._template.at(*place)
            if not known:
                address = address.refused(_stranger(name))
            node = self._make(address)
            node.name = name  # By which the nodes know it; its address may be another one.
            self._nodes[name] = node
        return node

    def all_nodes(self) -> Iterator[Node]:
        """Yield every node of the slot map, or the seeds while the map is empty."""
        shards = self.slot_map.all_shards()
        if not shards:
            yield from self.topology.seeds
        for name in dict.fromkeys(name for shard in shards for name in shard.nodes):
            yield self.node(name)

    def primaries(self) -> list[Node]:
        """Return the nodes that accept writes."""
        return [self.node(shard.primary) for shard in self.slot_map.all_shards()]

    def shard_of(self, name: bytes) -> Shard:
        """Return the shard that serves a name.

        Raises:
            UnavailableError: no shard does.
        """
        return self.slot_map.shard_of(name)

    def node_asked_for(self, error: ReplyError) -> Node:
        """Return the node of an ASK reply, to which a slot is being moved."""
        name = _target(error)
        if not self._may_know(name):
            self.refresh()
        return self.node(name)

    def apply_moved(self, name: bytes, error: ReplyError) -> None:
        """Apply a MOVED reply: another node serves the slot of `name`."""
        target = _target(error)
        if host_and_port(target) is None or not self._may_know(target):
            self.refresh()
            return
        self.slot_map = self.slot_map.with_moved(slot_of(name), target)

    def refresh(self) -> None:
        """Ask the nodes for their slot maps, unless another thread has just done so.

        Without an answer the map stays as it is.
        """
        asked_at = self.monotonic()
        if is_held_here(self._refreshing):
            return  # A signal handler interrupts the refresh.
        with self._refreshing:
            if self._refreshed_at > asked_at:
                return  # Another thread refreshed it while this one waited for the lock.
            time.sleep(max(0.0, self._refreshed_at + _REFRESH_SECONDS - self.monotonic()))
            self.views = views = self._ask_views()
            self._announced |= _agreed([view.names for view in views.values()])
            if views:
                # A node that was cut off keeps its old map: with equal epochs, prefer the map that
                # has more slots and nodes.
                newest = max(views.values(), key=_newness)
                if newest.slot_map.epoch >= self.slot_map.epoch:
                    self.slot_map, self._members = newest.slot_map, newest.members
            self._refreshed_at = self.monotonic()

    def close(self) -> None:
        """Close all connections."""
        for node in (*self.topology.seeds, *self._nodes.values()):
            node.close()
        self.topology.close()

    def _may_know(self, name: str) -> bool:
        """Return whether a node may get our credentials, if there are any."""
        return not self._template.secrets or name in self._announced

    def _ask_views(self) -> dict[str, View]:
        """Ask all nodes at once what they say of the others."""
        views: dict[str, View] = {}
        asked = self.topology.informants(self.all_nodes())
        requests = [(one, self.topology.questions) for one in asked if one.usable or one.due]
        for answer in ask_nodes(requests, self.monotonic, _VIEW_SECONDS):
            node, error = answer.node, answer.first_error
            if error is None:
                try:
                    views[node.name] = self.topology.read_view(node, answer.replies)
                    continue
                except UnavailableError as fault:
                    error = fault
            node.last_error = str(error)
            if isinstance(error, EvictingNodeError) and not self.slot_map.whole:
                raise error  # Refused at the start; later it counts as a failing node.
        return views

    def _make(self, address: NodeAddress) -> Node:
        return Node(
            address,
            monotonic=self.monotonic,
            allow_eviction=self._allow_eviction,
            setup_commands=self.topology.setup,
            expected_seconds=max(one.latency.seconds for one in self.topology.informants(())),
        )


def _newness(view: View) -> tuple[int, bool, int]:
    return view.slot_map.epoch, view.slot_map.whole, view.slot_map.node_count


def _target(error: ReplyError) -> str:
    """Return the node to which a MOVED or ASK reply leads."""
    return error.text.rpartition(" ")[2]


def _agreed(views: Sequence[frozenset[str]]) -> set[str]:
    """Return the names that more than half of the views have."""
    counts = Counter(name for view in views for name in view)
    return {name for name, count in counts.items() if 2 * count > len(views)}


def _stranger(name: str) -> str:
    return (
        f"{name} is not known to most nodes of the cluster, and gets no password for being named "
        "by a few: name it in nodes="
    )
