"""Where the map of slots comes from: the nodes of a Cluster, or the Sentinels of one primary.

With Sentinels all slots have one shard: the primary that they watch, and its replicas. What follows
from the map (reads, writes, WAIT, repair) is the same.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from memories.cluster.client.address import NodeAddress
from memories.cluster.client.node import Node, info_number, parse_info
from memories.cluster.client.resp import Command, bulk_between
from memories.cluster.valkey_cluster.slots import FAILING, ClusterMember, SlotMap, read_members

_OK = b"+OK\r\n"


class View(NamedTuple):
    """What one node says of all nodes."""

    slot_map: SlotMap
    members: Sequence[ClusterMember]  # Also those that have no slots, and those that failed.

    @property
    def names(self) -> frozenset[str]:
        """Return the names of all nodes."""
        return self.slot_map.names | {one.name for one in self.members}


class Topology(ABC):
    """The questions that tell which node serves what.

    Attributes:
        template: An address with the credentials and options of all nodes.
        seeds: Nodes that the caller has named, and that serve values.
        questions: What is asked for a `View`.
        setup: Commands that are sent first on every connection to a node.
        guard: Commands before and after reads of a primary: the reply to the first one shows, or
            the command makes sure, that it is one still.
        parse_guarded: The parser of a value between the replies to the guard.
        health: A command that asks a node whether it may say which keys there are.
    """

    template: NodeAddress
    seeds: Sequence[Node] = ()
    questions: Sequence[Command]
    setup: Sequence[Command] = ()
    guard: tuple[Command, Command]
    parse_guarded: Callable[[bytes], bytes | None]
    health: Command

    @abstractmethod
    def informants(self, known: Iterable[Node]) -> Sequence[Node]:
        """Return the nodes to ask, of those that are known."""

    @abstractmethod
    def read_view(self, node: Node, replies: Sequence[Any]) -> View:
        """Return what a node has replied to the questions.

        Raises:
            UnavailableError: the replies are not valid.
        """

    @abstractmethod
    def is_primary(self, reply: Any) -> bool:
        """Return whether the reply to the first command of the guard is that of a primary."""

    @abstractmethod
    def is_alive(self, primary: str, primaries: Iterable[str], views: Mapping[str, View]) -> bool:
        """Return whether a majority sees a node as a primary that answers: no other takes over."""

    @abstractmethod
    def is_healthy(self, reply: Any) -> bool:
        """Return whether the reply to `health` is that of a node whose Cluster works."""

    @abstractmethod
    def explain(self, reasons: str) -> str:
        """Return the message for nodes of which no map of all slots could be got."""

    def close(self) -> None:
        """Close connections that are not those of nodes with values."""


class ClusterTopology(Topology):
    """The nodes of a Cluster know which of them serves which slot."""

    questions = (("CLUSTER", "INFO"), ("CLUSTER", "SLOTS"), ("CLUSTER", "NODES"))
    # It allows reads from a replica, and has no effect on a primary.
    setup = (("READONLY",),)
    # Connections are READONLY, so a node that restarted empty as a replica would answer for the
    # primary it was. In this mode it answers MOVED.
    guard = ("READWRITE",), ("READONLY",)
    parse_guarded = staticmethod(bulk_between(_OK, _OK))
    health = ("CLUSTER", "INFO")

    def __init__(self, seeds: Sequence[Node]) -> None:
        self.seeds = seeds
        self.template = seeds[0].address

    def informants(self, known: Iterable[Node]) -> Sequence[Node]:
        """Return all nodes; the seeds by the addresses that the caller has named."""
        return list({node.name: node for node in (*known, *self.seeds)}.values())

    def read_view(self, node: Node, replies: Sequence[Any]) -> View:
        """Return the view of a node, with the epoch of the Cluster; see `Topology`."""
        info, slots, nodes = replies
        epoch = info_number(parse_info(info), "cluster_current_epoch")
        return View(SlotMap.read(slots, epoch, asked=node.address.host), read_members(nodes))

    def is_primary(self, reply: Any) -> bool:
        """Return True: a node that is not the primary of a slot refuses the reads themselves."""
        return True

    def is_alive(self, primary: str, primaries: Iterable[str], views: Mapping[str, View]) -> bool:
        """Return whether a majority of all primaries sees that one; see `Topology`."""
        seen = [views[name].members if name in views else () for name in primaries]
        mine = views[primary].members if primary in views else ()
        me = next((one.id for one in mine if "myself" in one.flags), None)
        votes = sum(
            any(one.id == me and one.is_primary and not one.flags & FAILING for one in members)
            for members in seen
        )
        return me is not None and votes > len(seen) / 2

    def is_healthy(self, reply: Any) -> bool:
        """Return whether the Cluster of a node works; see `Topology`."""
        return parse_info(reply).get("cluster_state") == "ok"

    def explain(self, reasons: str) -> str:
        """Return the message; see `Topology`."""
        return f"the cluster does not serve all of its slots, by the reports of its nodes {reasons}"
