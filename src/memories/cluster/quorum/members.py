"""Who is in the cluster, as the nodes themselves say, and which nodes a register belongs on.

Not who is alive. The one idea: the list of members has a number, every node's mark carries it, and
a node takes writes only from clients that know its number; so two clients never write by different
lists.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import msgspec

from memories.cluster.client.address import NodeAddress
from memories.cluster.client.node import Node
from memories.cluster.incarnation import UP, Incarnation
from memories.cluster.rendezvous import Preference, prefer, rank
from memories.errors import InvalidOptionError

MEMBERS_KEY = b"m:members"
PROPAGATION_SECONDS = 1.0  # How long others may take to hear of a new list.


class MemberList(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The members as they stand on every node. Names are addresses without credentials."""

    epoch: int
    copies: int
    nodes: tuple[str, ...]
    # All members once the change that is in progress is done; stored under its older name.
    target: tuple[str, ...] = msgspec.field(default=(), name="coming")

    @property
    def lists(self) -> tuple[tuple[str, ...], ...]:
        """Return the lists of members that must be satisfied now."""
        return (self.nodes, self.target) if self.target else (self.nodes,)

    @property
    def all_names(self) -> tuple[str, ...]:
        """Return all members, past and future ones included."""
        return tuple(dict.fromkeys((*self.nodes, *self.target)))


class Members:
    """The nodes of a cluster of plain servers. Safe to use from many threads."""

    def __init__(
        self,
        addresses: Sequence[NodeAddress],
        copies: int,
        *,
        monotonic: Callable[[], float],
        allow_eviction: bool = False,
    ) -> None:
        self.monotonic = monotonic
        self._allow_eviction = allow_eviction
        self._template = addresses[0]
        self.nodes: dict[str, Node] = {}
        for address in addresses:
            self.nodes[address.name] = self._node(address)
        if len(self.nodes) < len(addresses):
            raise InvalidOptionError("nodes= names a node twice")
        self.current = MemberList(0, copies, tuple(sorted(self.nodes)))
        self._applied_at = monotonic()

    @property
    def epoch(self) -> int:
        """Return the number of the list of members that is in force."""
        return self.current.epoch

    def apply(self, member_list: MemberList) -> None:
        """Let `roster` be in force."""
        for name in member_list.all_names:
            if name not in self.nodes:
                self.add(self._address_of(name))
        if member_list.epoch != self.epoch:
            self._applied_at = self.monotonic()
        self.current = member_list

    def lags(self, incarnation: Incarnation | None, run_id: str) -> bool:
        """Return whether a sound node has merely not heard yet of the list that is in force.

        Nodes are told of a new list one after the other, and a client may hear of it in between.
        """
        if self.monotonic() >= self._applied_at + PROPAGATION_SECONDS:
            return False
        return incarnation == Incarnation(UP, run_id, self.epoch - 1)

    def add(self, address: NodeAddress) -> Node:
        """Know a node, which is no member yet."""
        node = self.nodes.get(address.name)
        if node is None:
            node = self.nodes[address.name] = self._node(address)
        return node

    def preference_lists(self, name: bytes) -> list[Preference]:
        """Return the preference lists of a register; two while members come or go."""
        member_list = self.current
        return [prefer(name, nodes, member_list.copies) for nodes in member_list.lists]

    def rank(self, name: bytes) -> list[str]:
        """Return all members in the order in which a chunk prefers them."""
        member_list = self.current
        return list(
            dict.fromkeys(
                node for nodes in reversed(member_list.lists) for node in rank(name, nodes)
            )
        )

    def all_members(self) -> Iterator[Node]:
        """Yield the nodes of all members."""
        for name in self.current.all_names:
            yield self.nodes[name]

    def close(self) -> None:
        """Close all connections."""
        for node in list(self.nodes.values()):
            node.close()

    def _node(self, address: NodeAddress) -> Node:
        return Node(address, monotonic=self.monotonic, allow_eviction=self._allow_eviction)

    def _address_of(self, name: str) -> NodeAddress:
        """Return the address of a member that somebody else added: with our credentials."""
        if name.startswith("unix://"):
            return NodeAddress.parse(name)
        host, _, port = name.rpartition(":")
        return self._template.at(host.strip("[]"), int(port))
