"""Finds out whether the nodes of a manager are plain servers or a Cluster, and opens them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from memories.cluster.client.address import NodeAddress
from memories.cluster.client.node import Node
from memories.cluster.client.opening import open_connections
from memories.cluster.node_service import NodeService
from memories.cluster.quorum.service import QuorumService
from memories.cluster.quorum.vouchers import VoucherKeys
from memories.cluster.valkey_cluster.sentinel import SCHEME, SentinelAddress, SentinelTopology
from memories.cluster.valkey_cluster.service import ClusterService
from memories.cluster.valkey_cluster.topology import ClusterTopology, Topology
from memories.errors import InvalidOptionError
from memories.foundation.clock import Clock
from memories.foundation.logging import logger

_LOOPBACK = frozenset({"127.0.0.1", "localhost"})


def check_nodes(nodes: Any, options: Mapping[str, Any]) -> list[NodeAddress] | SentinelAddress:
    """Return the addresses in `nodes`, or those of Sentinels and of the primary they watch.

    Raises:
        InvalidOptionError: one of them is not an address; the message never shows a password.
    """
    of_sentinels = _sentinels(nodes)
    if of_sentinels is not None:
        return SentinelAddress.parse(of_sentinels, options)
    return check_addresses(nodes, options)


def _sentinels(nodes: Any) -> str | None:
    """Return the URL of Sentinels, given alone or as the only one in a list."""
    given = nodes[0] if isinstance(nodes, (list, tuple)) and len(nodes) == 1 else nodes
    return given if isinstance(given, str) and given.startswith(SCHEME) else None


def check_addresses(nodes: Any, options: Mapping[str, Any]) -> list[NodeAddress]:
    """Return the addresses in a list; raises like `check_nodes`."""
    if isinstance(nodes, (str, bytes)) or not isinstance(nodes, Sequence) or not nodes:
        raise InvalidOptionError("nodes= must be a list of addresses, such as ['node1:6379']")
    return [_with_local_password(NodeAddress.parse(node, **options)) for node in nodes]


def _with_local_password(address: NodeAddress) -> NodeAddress:
    """Return the address of a server of `memories cluster up` with its password."""
    if address.secrets or address.path is not None or address.host not in _LOOPBACK:
        return address
    from memories.cluster.local.persistent import known_password

    password = known_password(f"127.0.0.1:{address.port}")
    return address if password is None else replace(address, password=password)


def check_factor(factor: Any) -> int:
    """Return the replication factor.

    Raises:
        InvalidOptionError: it is not a whole number from 1 on.
    """
    if isinstance(factor, bool) or not isinstance(factor, int) or factor < 1:
        raise InvalidOptionError(f"replication_factor={factor!r} must be a whole number from 1 on")
    return factor


def open_service(
    addresses: Sequence[NodeAddress] | SentinelAddress,
    factor: int,
    *,
    clock: Clock,
    allow_eviction: bool,
    strict: bool,
    keys: VoucherKeys,
) -> NodeService:
    """Return a running service over the nodes, of the kind that they are.

    Raises:
        UnavailableError: too few of them answer.
        InvalidOptionError: there are too few of them for `factor`, or one may evict values.
    """
    service: NodeService
    if isinstance(addresses, SentinelAddress):
        topology: Topology = open_sentinels(addresses, clock)
        service = ClusterService(topology, factor, clock, allow_eviction, strict)
        service.start()
        return service
    nodes = open_nodes(addresses, clock, allow_eviction=allow_eviction)
    try:
        if are_a_cluster(nodes):
            service = ClusterService(ClusterTopology(nodes), factor, clock, allow_eviction, strict)
        else:
            service = QuorumService(_distinct_primaries(nodes), factor, clock, allow_eviction, keys)
    except BaseException:
        for node in nodes:
            node.close()
        raise
    service.start()
    return service


def open_sentinels(address: SentinelAddress, clock: Clock) -> SentinelTopology:
    """Return what the Sentinels at an address say; those that answer have a connection."""
    sentinels = [
        Node(one, monotonic=clock.monotonic, with_values=False) for one in address.sentinels
    ]
    for node, error in open_connections(sentinels, patient=True).items():
        logger.debug("%s: %s", node.name, error)
    return SentinelTopology(sentinels, address)


def open_nodes(
    addresses: Sequence[NodeAddress], clock: Clock, *, allow_eviction: bool
) -> list[Node]:
    """Return the nodes at these addresses; those that answer have a connection.

    Raises:
        InvalidOptionError: an address is there twice, or a node would drop values silently.
    """
    if len({address.name for address in addresses}) < len(addresses):
        raise InvalidOptionError("nodes= lists a node twice")
    nodes = [
        Node(address, monotonic=clock.monotonic, allow_eviction=allow_eviction)
        for address in addresses
    ]
    for node, error in open_connections(nodes, patient=True).items():
        logger.debug("%s: %s", node.name, error)
        if isinstance(error, InvalidOptionError):
            for one in nodes:
                one.close()
            raise error
    return nodes


def _distinct_primaries(nodes: Sequence[Node]) -> list[Node]:
    """Return the nodes without replicas, which refuse writes; those are closed.

    Raises:
        InvalidOptionError: two of them are one server, so that two copies would be one.
    """
    names: dict[str, str] = {}
    for node in nodes:
        other = names.setdefault(node.server.run_id, node.name)
        if other != node.name and node.server.run_id:
            raise InvalidOptionError(f"{other} and {node.name} are the same server: name it once")
    replicas = [node for node in nodes if node.server.is_replica]
    for node in replicas:
        node.close()
    if replicas:
        logger.warning(
            "%s: not used, because it is a replica of another server, and refuses writes",
            ", ".join(sorted(node.name for node in replicas)),
        )
    return [node for node in nodes if node not in replicas]


def are_a_cluster(nodes: Sequence[Node]) -> bool:
    """Return whether the nodes that have answered are a Valkey Cluster.

    Raises:
        InvalidOptionError: some are, and some are not.
    """
    answers = {node.name: node.server.clustered for node in nodes if node.server.run_id}
    if len(set(answers.values())) > 1:
        members = ", ".join(name for name, clustered in answers.items() if clustered)
        others = ", ".join(name for name, clustered in answers.items() if not clustered)
        raise InvalidOptionError(
            f"{members} belong to a Valkey Cluster, and {others} do not; give nodes of one kind"
        )
    return any(answers.values())
