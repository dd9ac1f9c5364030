"""The Sentinels of one primary: they say which server it is, and which are its replicas."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from memories.cluster.client.address import NodeAddress, host_and_port
from memories.cluster.client.node import Node
from memories.cluster.client.resp import ReplyError
from memories.cluster.valkey_cluster.slots import SLOTS, ClusterMember, Shard, SlotMap
from memories.cluster.valkey_cluster.topology import Topology, View
from memories.errors import InvalidOptionError, UnavailableError

SCHEME = "sentinel://"
_PORT = 26379
_DOWN = frozenset({"s_down", "o_down", "disconnected"})


@dataclass(frozen=True)
class SentinelAddress:
    """The Sentinels, the name of the primary that they watch, and how its servers are reached."""

    sentinels: tuple[NodeAddress, ...]
    service: str
    servers: NodeAddress

    @classmethod
    def parse(cls, text: str, options: Mapping[str, Any]) -> Self:
        """Return the address in `sentinel://[user:password@]host[:port][,...]/service[/db]`.

        Args:
            text: The login in it, and its database, are those of the servers.
            options: Those of the servers, and as `sentinel_kwargs` those of the Sentinels.

        Raises:
            InvalidOptionError: it is not such an address; the message shows no password.
        """
        given = dict(options)
        own = given.pop("sentinel_kwargs", None) or {}
        place, _, query = text.removeprefix(SCHEME).partition("?")
        login, at, place = place.rpartition("@")
        hosts, _, path = place.partition("/")
        service, _, database = path.partition("/")
        if not hosts or not service:
            raise InvalidOptionError(
                "nodes= of Sentinels must be like sentinel://host1:26379,host2:26379/service, "
                "where service is the name of the primary that they watch"
            )
        url = f"redis://{login}{at}localhost/{database}" + (f"?{query}" if query else "")
        names = (f"{one}:{_PORT}" if _lacks_port(one) else one for one in hosts.split(","))
        sentinels = tuple(NodeAddress.parse(name, **own) for name in names)
        return cls(sentinels, service, NodeAddress.parse(url, **given))


class SentinelTopology(Topology):
    """Asks Sentinels; the newest map is the one with the highest configuration epoch.

    Args:
        sentinels: They have no values, and are asked for nothing else.
        address: Where they and the servers are.
    """

    guard = ("ROLE",), ("PING",)
    health = ("PING",)

    def __init__(self, sentinels: Sequence[Node], address: SentinelAddress) -> None:
        self._sentinels = sentinels
        self._service = address.service
        self.template = address.servers
        about = address.service
        self.questions = (("SENTINEL", "MASTER", about), ("SENTINEL", "REPLICAS", about))
        self._count = len(sentinels)  # Of all that watch the primary, as far as is known.

    @staticmethod
    def parse_guarded(data: bytes) -> bytes | None:
        """Return None: the reply to ROLE has many forms."""
        del data
        return None

    def informants(self, known: Iterable[Node]) -> Sequence[Node]:
        """Return the Sentinels."""
        return self._sentinels

    def read_view(self, node: Node, replies: Sequence[Any]) -> View:
        """Return the view of a Sentinel; see `Topology`."""
        try:
            primary, *replicas = (_fields(one) for one in (replies[0], *replies[1]))
            members = [_member(primary, ""), *(_member(one, _name(primary)) for one in replicas)]
            epoch = int(primary["config-epoch"])
            self._count = max(self._count, 1 + int(primary["num-other-sentinels"]))
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise UnavailableError(f"the Sentinel {node.name} sent an invalid reply") from error
        living = tuple(one.name for one in members[1:] if "fail" not in one.flags)
        return View(SlotMap((Shard(members[0].name, living),) * SLOTS, epoch), members)

    def is_primary(self, reply: Any) -> bool:
        """Return whether a reply to ROLE is that of a primary."""
        return isinstance(reply, list) and reply[:1] == [b"master"]

    def is_alive(self, primary: str, primaries: Iterable[str], views: Mapping[str, View]) -> bool:
        """Return whether a majority of the Sentinels sees that primary; see `Topology`."""
        seen = (view.members[0] for view in views.values())
        votes = sum(one.name == primary and "fail" not in one.flags for one in seen)
        return votes > self._count / 2

    def is_healthy(self, reply: Any) -> bool:
        """Return whether a node answers."""
        return not isinstance(reply, ReplyError)

    def explain(self, reasons: str) -> str:
        """Return the message; see `Topology`."""
        return f"the Sentinels do not say which server is {self._service!r} {reasons}"

    def close(self) -> None:
        """Close the connections to the Sentinels."""
        for node in self._sentinels:
            node.close()


def _fields(reply: Sequence[bytes]) -> dict[str, str]:
    texts = [part.decode("utf-8", "replace") for part in reply]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def _name(fields: Mapping[str, str]) -> str:
    host, port = fields["ip"], fields["port"]
    name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if host_and_port(name) is None:
        raise ValueError("a node without an address")
    return name


def _member(fields: Mapping[str, str], primary: str) -> ClusterMember:
    name, flags = _name(fields), frozenset(fields["flags"].split(","))
    down = frozenset({"fail"}) if flags & _DOWN else frozenset[str]()
    return ClusterMember(name, name, flags | down, primary)


def _lacks_port(host: str) -> bool:
    return ":" not in host.rpartition("]")[2] and host.count(":") != 1
