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
    coming: tuple[str, ...] = ()  # All members once the move under way is done.

    @property
    def lists(self) -> tuple[tuple[str, ...], ...]:
        """Return the lists of members that must be satisfied now."""
        return (self.nodes, self.coming) if self.coming else (self.nodes,)

    @property
    def everyone(self) -> tuple[str, ...]:
        """Return all members, past and future ones included."""
        return tuple(dict.fromkeys((*self.nodes, *self.coming)))


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
        self.roster = MemberList(0, copies, tuple(sorted(self.nodes)))
        self._adopted_at = monotonic()

    @property
    def epoch(self) -> int:
        """Return the number of the list of members that is in force."""
        return self.roster.epoch

    def adopt(self, roster: MemberList) -> None:
        """Let `roster` be in force."""
        for name in roster.everyone:
            if name not in self.nodes:
                self.add(self._address_of(name))
        if roster.epoch != self.epoch:
            self._adopted_at = self.monotonic()
        self.roster = roster

    def lags(self, mark: Incarnation | None, life: str) -> bool:
        """Return whether a sound node has merely not heard yet of the list that is in force.

        Nodes are told of a new list one after the other, and a client may hear of it in between.
        """
        if self.monotonic() >= self._adopted_at + PROPAGATION_SECONDS:
            return False
        return mark == Incarnation(UP, life, self.epoch - 1)

    def add(self, address: NodeAddress) -> Node:
        """Know a node, which is no member yet."""
        node = self.nodes.get(address.name)
        if node is None:
            node = self.nodes[address.name] = self._node(address)
        return node

    def lists_of(self, name: bytes) -> list[Preference]:
        """Return the preference lists of a register; two while members come or go."""
        roster = self.roster
        return [prefer(name, nodes, roster.copies) for nodes in roster.lists]

    def rank(self, name: bytes) -> list[str]:
        """Return all members in the order in which a chunk prefers them."""
        roster = self.roster
        return list(
            dict.fromkeys(node for nodes in reversed(roster.lists) for node in rank(name, nodes))
        )

    def everyone(self) -> Iterator[Node]:
        """Yield the nodes of all members."""
        for name in self.roster.everyone:
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
