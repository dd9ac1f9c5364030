"""The slots of a Valkey Cluster: the slot of a name, and an immutable map of slots to nodes."""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Self

from memories.cluster.client.address import host_and_port
from memories.errors import UnavailableError

SLOTS = 16_384
FAILING = frozenset({"fail", "fail?", "handshake", "noaddr"})  # Flags of a node.


def slot_of(name: bytes) -> int:
    """Return the slot of a name: of the text in its first braces, if there is any."""
    start = name.find(b"{")
    if start >= 0:
        end = name.find(b"}", start + 1)
        if end > start + 1:
            name = name[start + 1 : end]
    return crc_hqx(name, 0) % SLOTS


@dataclass(frozen=True)
class Shard:
    """The nodes of some slots: a primary, which accepts writes, and its replicas."""

    primary: str
    replicas: tuple[str, ...] = ()

    @property
    def nodes(self) -> tuple[str, ...]:
        """Return the primary, then its replicas."""
        return (self.primary, *self.replicas)


@dataclass(frozen=True)
class SlotMap:
    """Which shard serves each slot; the index of a slot in `shards` is its number."""

    shards: tuple[Shard | None, ...] = (None,) * SLOTS
    epoch: int = -1

    @classmethod
    def read(cls, reply: Any, epoch: int, *, asked: str) -> Self:
        """Return the map in a reply to CLUSTER SLOTS.

        Args:
            reply: It lists ranges of slots, each with its primary and its replicas.
            epoch: The epoch of the map, which grows with every change.
            asked: The host that was asked; it replaces a missing host in the reply.

        Raises:
            UnavailableError: the reply is not valid.
        """
        shards: list[Shard | None] = [None] * SLOTS
        try:
            for first, last, *nodes in reply:
                if not 0 <= first <= last < SLOTS or shards[first] is not None:
                    raise ValueError("slots that are none, or that two shards serve")
                names = [_name(node, asked) for node in nodes]
                shard = Shard(names[0], tuple(names[1:]))
                for slot in range(first, last + 1):
                    shards[slot] = shard
        except (TypeError, ValueError, IndexError, AttributeError) as error:
            raise UnavailableError(f"{asked} sent an invalid reply to CLUSTER SLOTS") from error
        return cls(tuple(shards), epoch)

    @property
    def whole(self) -> bool:
        """Return whether every slot is served."""
        return None not in self.shards

    @property
    def names(self) -> frozenset[str]:
        """Return the names of all nodes that the map has."""
        return frozenset(name for shard in self.all_shards() for name in shard.nodes)

    @property
    def node_count(self) -> int:
        """Return how many nodes the map has."""
        return len(self.names)

    def shard_of(self, name: bytes) -> Shard:
        """Return the shard that serves a name.

        Raises:
            UnavailableError: no shard does.
        """
        shard = self.shards[slot_of(name)]
        if shard is None:
            raise UnavailableError(f"no node of the cluster serves slot {slot_of(name)}")
        return shard

    def all_shards(self) -> list[Shard]:
        """Return every shard once."""
        return list(self._distinct)

    @cached_property
    def _distinct(self) -> tuple[Shard, ...]:
        return tuple(dict.fromkeys(shard for shard in self.shards if shard is not None))

    def with_moved(self, slot: int, primary: str) -> SlotMap:
        """Return the map with another primary for one slot, after a MOVED reply."""
        known = next((one for one in self.all_shards() if primary in one.nodes), None)
        others = tuple(one for one in known.nodes if one != primary) if known else ()
        shards = list(self.shards)
        shards[slot] = Shard(primary, others)
        return SlotMap(tuple(shards), self.epoch)


class ClusterMember(NamedTuple):
    """A node as another node of the Cluster sees it, whether it serves slots or not."""

    id: str
    name: str
    flags: frozenset[str]
    primary_id: str  # Of the node that it replicates; "-" for a primary.

    @property
    def is_primary(self) -> bool:
        """Return whether it is a primary."""
        return "master" in self.flags


def read_members(reply: Any) -> list[ClusterMember]:
    """Return the nodes in a reply to CLUSTER NODES; lines of another form are left out."""
    text = reply.decode("utf-8", "replace") if isinstance(reply, bytes) else ""
    rows = (line.split() for line in text.splitlines())
    return [
        ClusterMember(row[0], row[1].partition("@")[0], frozenset(row[2].split(",")), row[3])
        for row in rows
        if len(row) >= 8 and _is_address(row[1].partition("@")[0])
    ]


def hidden_replicas(members: Iterable[ClusterMember], shard: Shard) -> int:
    """Return how many living replicas of a shard its slot map does not show yet.

    Redis 7 and Valkey show a replica only once they know how much it has copied.
    """
    known = list(members)
    primary = next((one for one in known if one.name == shard.primary), None)
    if primary is None:
        return 0
    replicas = [one for one in known if one.primary_id == primary.id and not one.flags & FAILING]
    return sum(one.name not in shard.replicas for one in replicas)


def group_by_shard(slot_map: SlotMap, names: Sequence[bytes]) -> Mapping[Shard, list[bytes]]:
    """Return the names that each shard serves.

    Raises:
        UnavailableError: no shard serves one of them.
    """
    found: dict[int, list[bytes]] = {}  # By the identity of a shard: its hash takes longer.
    shards = slot_map.shards
    for name in names:
        number = id(shards[slot_of(name)])
        if number in found:
            found[number].append(name)
        else:
            found[number] = [name]
    groups: dict[Shard, list[bytes]] = {}
    for some in found.values():
        groups.setdefault(slot_map.shard_of(some[0]), []).extend(some)
    return groups


def _is_address(name: str) -> bool:
    """Return whether that is an address, or the place of one that is not known."""
    return name in ("", ":0") or host_and_port(name) is not None


def _name(node: Sequence[Any], asked: str) -> str:
    host, port = (node[0] or b"").decode() or asked, int(node[1])
    name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if host_and_port(name) is None:
        raise ValueError("a node without an address")
    return name
