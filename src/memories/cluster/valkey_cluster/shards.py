"""The nodes of a Valkey Cluster and the newest view of who serves what. Safe for many threads.

Not a router: who is asked what, and what an answer means, is for others. The one idea: every node
that answers is asked for its view, and the one with the highest number holds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence

from memories.cluster.client.address import NodeAddress
from memories.cluster.client.node import EvictingNodeError, Node, parse_info
from memories.cluster.client.resp import ReplyError
from memories.cluster.valkey_cluster.slots import Shard, SlotMap, slot_of
from memories.errors import InvalidOptionError, UnavailableError

_REFRESH_SECONDS = 0.1  # No two refreshes follow each other faster.
_ASK_SECONDS = 0.5
_FOUND_SECONDS = 2.0
# On a replica it lets us read, and on a primary it says nothing.
SETUP_COMMANDS = (("READONLY",),)


class Shards:
    """Everyone in a Cluster.

    Args:
        seeds: Some of its nodes.
        copies: How many nodes must have what was acknowledged.
        monotonic: Seconds that never run backwards.
        allow_eviction: Accept nodes that drop values when they are full.
    """

    def __init__(
        self,
        seeds: Sequence[NodeAddress],
        copies: int,
        *,
        monotonic: Callable[[], float],
        allow_eviction: bool = False,
    ) -> None:
        self.copies = copies
        self.monotonic = monotonic
        self.slot_map = SlotMap()
        self._allow_eviction = allow_eviction
        self._template = seeds[0]
        self._nodes: dict[str, Node] = {}
        self._seeds = [self._make(seed) for seed in seeds]
        self._refreshing = threading.Lock()
        self._refreshed_at = float("-inf")

    def bootstrap(self) -> None:
        """Learn who is there for the first time.

        Raises:
            UnavailableError: nobody answers, or not every slot is served.
            InvalidOptionError: a primary has fewer replicas than the copies need, or a node would
                drop values silently.
        """
        end = self.monotonic() + _FOUND_SECONDS
        while (reason := self._why_unusable()) and self.monotonic() < end:
            self.refresh()  # Nodes tell each other of a replica by and by.
        if reason:
            raise reason

    def _why_unusable(self) -> Exception | None:
        """Return why the Cluster cannot be used as the view has it."""
        if not self.slot_map.whole:
            reasons = "; ".join(f"{node.name}: {node.last_error}" for node in self.all_nodes())
            return UnavailableError(
                f"the cluster does not serve all of its slots, as far as its nodes say ({reasons})"
            )
        for shard in self.slot_map.all_shards():
            if len(shard.replicas) < self.copies - 1:
                return InvalidOptionError(
                    f"replication_factor={self.copies} needs {self.copies - 1} replicas of every "
                    f"primary, and {shard.primary} has {len(shard.replicas)}"
                )
        return None

    def node(self, name: str) -> Node:
        """Return the node of that name, known before or not."""
        node = self._nodes.get(name)
        if node is None:
            host, _, port = name.rpartition(":")
            address = self._template.at(host.strip("[]"), int(port))
            node = self._nodes.setdefault(name, self._make(address))
        return node

    def all_nodes(self) -> Iterator[Node]:
        """Yield every node of the view, or the seeds while there is none."""
        shards = self.slot_map.all_shards()
        if not shards:
            yield from self._seeds
        for name in dict.fromkeys(name for shard in shards for name in shard.nodes):
            yield self.node(name)

    def primaries(self) -> list[Node]:
        """Return the nodes that take writes."""
        return [self.node(shard.primary) for shard in self.slot_map.all_shards()]

    def shard_of(self, name: bytes) -> Shard:
        """Return who serves a name.

        Raises:
            UnavailableError: nobody does.
        """
        return self.slot_map.shard_of(name)

    def apply_moved(self, name: bytes, error: ReplyError) -> None:
        """Learn from the refusal of a node that another one serves the slot of `name`."""
        target = error.text.split()[-1]
        self.slot_map = self.slot_map.with_moved(slot_of(name), target)

    def refresh(self) -> None:
        """Ask the nodes for their views, unless that was just done; silence changes nothing."""
        asked_at = self.monotonic()
        with self._refreshing:
            if self._refreshed_at > asked_at:
                return  # Somebody else did while we waited.
            time.sleep(max(0.0, self._refreshed_at + _REFRESH_SECONDS - self.monotonic()))
            views = [view for node in self._nodes_to_ask() if (view := self._view_of(node))]
            if views:
                # Of equals the one that knows most: a node that was cut off keeps its old view.
                newest = max(views, key=lambda one: (one.epoch, one.whole, one.node_count))
                if newest.epoch >= self.slot_map.epoch:
                    self.slot_map = newest
            self._refreshed_at = self.monotonic()

    def close(self) -> None:
        """Close all connections."""
        for node in (*self._seeds, *self._nodes.values()):
            node.close()

    def _nodes_to_ask(self) -> list[Node]:
        nodes = {node.name: node for node in (*self.all_nodes(), *self._seeds)}
        return [node for node in nodes.values() if node.usable or node.due]

    def _view_of(self, node: Node) -> SlotMap | None:
        try:
            info, slots = node.pipeline(
                [("CLUSTER", "INFO"), ("CLUSTER", "SLOTS")], seconds=_ASK_SECONDS, strict=True
            )
            epoch = int(parse_info(info).get("cluster_current_epoch", 0))
            return SlotMap.read(slots, epoch, asked=node.address.host)
        except (UnavailableError, ReplyError) as error:
            node.last_error = str(error)
            if isinstance(error, EvictingNodeError) and not self.slot_map.whole:
                raise  # At the first look it is refused; later on it is a node that fails.
            return None

    def _make(self, address: NodeAddress) -> Node:
        return Node(
            address,
            monotonic=self.monotonic,
            allow_eviction=self._allow_eviction,
            setup_commands=SETUP_COMMANDS,
        )
