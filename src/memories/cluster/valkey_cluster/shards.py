"""The nodes of a Valkey Cluster, and the newest map of slots to nodes.

A refresh asks all nodes for their map, and uses the one with the highest epoch.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from memories.cluster.client.address import NodeAddress, host_and_port
from memories.cluster.client.fanout import ask_nodes
from memories.cluster.client.node import EvictingNodeError, Node, info_number, parse_info
from memories.cluster.client.opening import open_connections
from memories.cluster.client.resp import ReplyError
from memories.cluster.valkey_cluster.slots import (
    ClusterMember,
    Shard,
    SlotMap,
    hidden_replicas,
    read_members,
    slot_of,
)
from memories.errors import InvalidOptionError, UnavailableError
from memories.foundation.fork_lock import is_held_here, new_lock
from memories.foundation.printable import printable

_REFRESH_SECONDS = 0.1  # No two refreshes follow each other faster.
_FOUND_SECONDS = 2.0
_VIEW_SECONDS = 0.9  # For a node nearby to say what it knows of the others.
_HIDDEN_SECONDS = 15.0  # A new replica is hidden until the nodes know how much it has copied.
# It allows reads from a replica, and has no effect on a primary.
SETUP_COMMANDS = (("READONLY",),)


class _View(NamedTuple):
    """What one node says of the others."""

    slot_map: SlotMap
    names: frozenset[str]


class Shards:
    """All nodes of a Cluster. Safe to use from many threads.

    Args:
        seeds: Some of its nodes.
        copies: How many nodes must have an acknowledged write.
        monotonic: Returns seconds that never run backwards.
        allow_eviction: Accept nodes that drop values when they are full.
    """

    def __init__(
        self,
        seeds: Sequence[Node],
        copies: int,
        *,
        monotonic: Callable[[], float],
        allow_eviction: bool = False,
    ) -> None:
        self.copies = copies
        self.monotonic = monotonic
        self.slot_map = SlotMap()
        self._allow_eviction = allow_eviction
        self._template = seeds[0].address
        self._seeds = list(seeds)
        # Of a seed the name by which the others announce it may be that of another address.
        remapped = self._template.address_remap is not None
        self._nodes = {} if remapped else {seed.name: seed for seed in seeds}
        for seed in seeds:
            seed.use_setup(SETUP_COMMANDS)
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
            reasons = "; ".join(f"{node.name}: {node.last_error}" for node in self.all_nodes())
            raise UnavailableError(
                f"the cluster does not serve all of its slots, by the reports of its nodes "
                f"({reasons})"
            )
        for error in open_connections(node for node in self.all_nodes() if node.usable).values():
            if isinstance(error, EvictingNodeError):
                raise error
        while (short := self._short_shards()) and self.monotonic() < began + _HIDDEN_SECONDS:
            members = self._members()
            if not any(hidden_replicas(members, shard) for shard in short):
                break
            self.refresh()
        if short:
            self._require_replicas(short[0], self._members())

    def most_replicas(self) -> int:
        """Return how many replicas the primary with most of them has, failed ones included."""
        counts = Counter(one.primary_id for one in self._members() if not one.is_primary)
        return max(counts.values(), default=0)

    def _short_shards(self) -> list[Shard]:
        """Return the shards whose replicas are too few for all copies."""
        return [
            shard for shard in self.slot_map.all_shards() if len(shard.replicas) < self.copies - 1
        ]

    def _require_replicas(self, short: Shard, members: Sequence[ClusterMember]) -> None:
        """Raise `InvalidOptionError` unless some shard has, or had, enough replicas.

        Nodes that have failed were replicas, or primaries whose replicas took over.
        """
        most = max(len(shard.replicas) for shard in self.slot_map.all_shards())
        failed = sum("fail" in one.flags or "fail?" in one.flags for one in members)
        if most + failed < self.copies - 1:
            raise InvalidOptionError(
                f"replication_factor={self.copies} needs {self.copies - 1} replicas of every "
                f"primary, and {short.primary} has {len(short.replicas)}"
            )

    def _members(self) -> list[ClusterMember]:
        """Return the nodes as the first node that answers sees them, failed ones too."""
        for node in self._nodes_to_ask():
            try:
                return read_members(node.call("CLUSTER", "NODES"))
            except (UnavailableError, ReplyError) as error:
                node.last_error = str(error)
        return []

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
            yield from self._seeds
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
            found = self._views()
            views = [view.slot_map for view in found]
            self._announced |= _agreed([view.names for view in found])
            if views:
                # A node that was cut off keeps its old map: with equal epochs, prefer the map that
                # has more slots and nodes.
                newest = max(views, key=lambda one: (one.epoch, one.whole, one.node_count))
                if newest.epoch >= self.slot_map.epoch:
                    self.slot_map = newest
            self._refreshed_at = self.monotonic()

    def close(self) -> None:
        """Close all connections."""
        for node in (*self._seeds, *self._nodes.values()):
            node.close()

    def _may_know(self, name: str) -> bool:
        """Return whether a node may get our credentials, if there are any."""
        return not self._template.secrets or name in self._announced

    def _nodes_to_ask(self) -> list[Node]:
        nodes = {node.name: node for node in (*self.all_nodes(), *self._seeds)}
        return [node for node in nodes.values() if node.usable or node.due]

    def _views(self) -> list[_View]:
        """Ask all nodes at once what they say of the others."""
        views: list[_View] = []
        questions = [("CLUSTER", "INFO"), ("CLUSTER", "SLOTS"), ("CLUSTER", "NODES")]
        requests = [(node, questions) for node in self._nodes_to_ask()]
        for answer in ask_nodes(requests, self.monotonic, _VIEW_SECONDS):
            if (refusal := answer.first_error) is not None:
                answer.node.last_error = str(refusal)
                if isinstance(refusal, EvictingNodeError) and not self.slot_map.whole:
                    raise refusal  # Refused at the start; later it counts as a failing node.
                continue
            info, slots, nodes = answer.replies
            epoch = info_number(parse_info(info), "cluster_current_epoch")
            try:
                slot_map = SlotMap.read(slots, epoch, asked=answer.node.address.host)
            except UnavailableError as error:
                answer.node.last_error = str(error)
                continue
            # A node that is about to get its first slot is not in the map.
            names = slot_map.names | {one.name for one in read_members(nodes)}
            views.append(_View(slot_map, names))
        return views

    def _make(self, address: NodeAddress) -> Node:
        return Node(
            address,
            monotonic=self.monotonic,
            allow_eviction=self._allow_eviction,
            setup_commands=SETUP_COMMANDS,
            expected_seconds=max(seed.latency.seconds for seed in self._seeds),
        )


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
