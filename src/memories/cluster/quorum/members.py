"""The members of a cluster of plain servers, and the nodes on which a register belongs.

The member list has an epoch, and the incarnation of every node contains that epoch. A node accepts
writes only from clients with the same epoch, so two clients never write by different lists.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import msgspec

from memories.cluster.client.address import NodeAddress, host_and_port
from memories.cluster.client.node import Node
from memories.cluster.quorum.vouchers import NO_KEYS, VoucherKeys, Vouchers
from memories.cluster.rendezvous import Preference, group_by_preference, prefer, rank
from memories.foundation.clock import Clock
from memories.foundation.fork_lock import new_lock

MEMBERS_KEY = b"m:members"
NAME_KEY = b"m:name"  # Of the server in the member list.


class MemberList(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The members, as every node stores them. Names are addresses without credentials."""

    epoch: int
    copies: int
    nodes: tuple[str, ...]
    # All members once the change that is in progress is done; stored under its older name.
    target: tuple[str, ...] = msgspec.field(default=(), name="coming")
    # Nodes of `nodes` that are given up with all they had; not stored if there are none.
    lost: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET

    @property
    def lists(self) -> tuple[tuple[str, ...], ...]:
        """Return the lists whose quorums are required now: two during a change of members."""
        return (self.nodes, self.target) if self.target else (self.nodes,)

    @property
    def all_names(self) -> tuple[str, ...]:
        """Return the members of both lists, except lost ones."""
        lost = self.lost_names
        return tuple(dict.fromkeys(n for n in (*self.nodes, *self.target) if n not in lost))

    @property
    def lost_names(self) -> frozenset[str]:
        """Return the nodes that are given up with all they had."""
        return frozenset() if self.lost is msgspec.UNSET else frozenset(self.lost)

    def membership(self, name: str) -> str:
        """Return what a node is: `member`, `joining` or `leaving`; the last two during a change."""
        if name not in self.nodes:
            return "joining"
        return "leaving" if self.target and name not in self.target else "member"

    def needs(self, missing: Collection[str]) -> bool:
        """Return whether values may be only on the `missing` nodes, and on those that are lost."""
        for nodes in self.lists:
            away = {node for node in nodes if node in missing}
            if away and len(away.union(self.lost_names.intersection(nodes))) >= self.copies:
                return True
        return False


class Members:
    """The nodes of a cluster of plain servers. Safe to use from many threads."""

    def __init__(
        self,
        nodes: Sequence[Node],
        copies: int,
        *,
        clock: Clock,
        allow_eviction: bool = False,
        keys: VoucherKeys = NO_KEYS,
    ) -> None:
        self.monotonic = clock.monotonic
        self._allow_eviction = allow_eviction
        self._template = nodes[0].address
        self.vouchers = Vouchers(self._template, keys, clock.wall)
        self.nodes = {node.name: node for node in nodes}
        self.named = set(self.nodes)  # By the caller.
        self.current = MemberList(0, copies, tuple(sorted(self.nodes)))
        self._lock = new_lock()

    @property
    def epoch(self) -> int:
        """Return the epoch of the current member list."""
        return self.current.epoch

    def apply(self, member_list: MemberList) -> None:
        """Make a member list the current one, unless a newer one is."""
        with self._lock:
            if member_list.epoch < self.epoch:
                return  # Another thread has found the newer one.
            for name in member_list.all_names:
                node = self.nodes.get(name)
                if node is None or (node.address.refusal and self.vouchers.accept(name)):
                    self.nodes[name] = self._node(self._address_of(name))
            self.current = member_list

    def identify(self, names: Mapping[str, str]) -> None:
        """Let nodes be known by their names in the member list, which may differ from ours.

        Another manager may reach the same servers by other addresses: by a tunnel, or a container's
        network. A server stores its name, so that this manager uses its own address for it.
        """
        known = dict(self.nodes)
        for given, name in names.items():
            node = known.get(given)
            if node is None or node.name == name:
                continue
            if self.nodes.get(given) is node:
                del self.nodes[given]
            self.nodes[name], node.name = node, name

    def member_name(self, given: str) -> str:
        """Return by which name the members know the node that this manager reaches as `given`."""
        shown = {node.address.name: name for name, node in list(self.nodes.items())}
        return shown.get(given, given)

    def node_for(self, address: NodeAddress) -> Node:
        """Return the node of an address that the caller names; it need not be a member."""
        self.named.add(address.name)
        node = self.nodes.get(self.member_name(address.name))
        if node is None or node.address.refusal:
            node = self.nodes[address.name] = self._node(address)
        return node

    def preference_lists(self, name: bytes) -> list[Preference]:
        """Return the preference lists of a register; two during a change of members."""
        member_list = self.current
        if not member_list.target:
            found = [prefer(name, member_list.nodes, member_list.copies)]
        else:
            found = [prefer(name, nodes, member_list.copies) for nodes in member_list.lists]
        if member_list.lost is msgspec.UNSET:
            return found
        return [one.without(member_list.lost_names) for one in found]

    def group(self, names: Iterable[bytes]) -> dict[Preference, list[bytes]]:
        """Return the names by their only preference list; empty during a change of members."""
        member_list = self.current
        if member_list.target or member_list.lost is not msgspec.UNSET:
            return {}
        return group_by_preference(names, member_list.nodes, member_list.copies)

    def rank(self, name: bytes) -> list[str]:
        """Return all members in the order in which a chunk prefers them."""
        member_list = self.current
        ranked = (node for nodes in reversed(member_list.lists) for node in rank(name, nodes))
        lost = member_list.lost_names
        return list(dict.fromkeys(node for node in ranked if node not in lost))

    def all_members(self) -> Iterator[Node]:
        """Yield the nodes of all members."""
        for name in self.current.all_names:
            yield self.nodes[name]

    def close(self) -> None:
        """Close all connections."""
        for node in list(self.nodes.values()):
            node.close()

    def _node(self, address: NodeAddress) -> Node:
        return Node(
            address,
            monotonic=self.monotonic,
            allow_eviction=self._allow_eviction,
            expected_seconds=max(node.latency.seconds for node in list(self.nodes.values())),
        )

    def _address_of(self, name: str) -> NodeAddress:
        """Return the address of a member that another manager added.

        It has our credentials if a key that we trust has vouched for it.
        """
        if name.startswith("unix://"):
            address = replace(self._template, path=name.removeprefix("unix://"))
        else:
            place = host_and_port(name)
            assert place is not None, "no member list with such a name is read"
            address = self._template.at(*place)
        return address if self.vouchers.accept(name) else address.refused(_stranger(name))


def _stranger(name: str) -> str:
    return (
        f"{name} is a member by the list on the nodes only, and gets no password for that: name "
        "it in nodes=, or trust the key of the user who added it (trusted_keys= or "
        "`memories key import`)"
    )
