"""Finds out whether the nodes of a manager are plain servers or a Cluster, and opens them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from memories.cluster.client.address import NodeAddress
from memories.cluster.client.connection import Connection
from memories.cluster.client.node import CONNECT_SECONDS
from memories.cluster.client.resp import ReplyError
from memories.cluster.node_service import NodeService
from memories.errors import InvalidOptionError, UnavailableError
from memories.foundation.clock import Clock


def check_nodes(nodes: Any, options: Mapping[str, Any]) -> list[NodeAddress]:
    """Return the addresses in `nodes`.

    Raises:
        InvalidOptionError: one of them is not an address; the message never shows a password.
    """
    if isinstance(nodes, (str, bytes)) or not isinstance(nodes, Sequence) or not nodes:
        raise InvalidOptionError("nodes= must be a list of addresses, such as ['node1:6379']")
    return [NodeAddress.parse(node, **options) for node in nodes]


def check_factor(factor: Any) -> int:
    """Return the replication factor.

    Raises:
        InvalidOptionError: it is not a whole number from 1 on.
    """
    if isinstance(factor, bool) or not isinstance(factor, int) or factor < 1:
        raise InvalidOptionError(f"replication_factor={factor!r} must be a whole number from 1 on")
    return factor


def open_service(
    addresses: Sequence[NodeAddress],
    factor: int,
    *,
    clock: Clock,
    allow_eviction: bool,
    strict: bool,
) -> NodeService:
    """Return a running service over the nodes, of the kind that they are.

    Raises:
        UnavailableError: too few of them answer.
        InvalidOptionError: there are too few of them for `factor`, or one may evict values.
    """
    service: NodeService
    if are_a_cluster(addresses):
        from memories.cluster.valkey_cluster.service import ClusterService

        service = ClusterService(
            addresses, factor, clock=clock, allow_eviction=allow_eviction, strict=strict
        )
    else:
        from memories.cluster.quorum.service import QuorumService

        if factor > len(addresses):
            raise InvalidOptionError(
                f"replication_factor={factor} needs at least as many nodes, and {len(addresses)} "
                "are given"
            )
        service = QuorumService(addresses, factor, clock=clock, allow_eviction=allow_eviction)
    service.start()
    return service


def are_a_cluster(addresses: Sequence[NodeAddress]) -> bool:
    """Ask all nodes, and return whether those that answer are a Valkey Cluster.

    Raises:
        InvalidOptionError: some are, and some are not.
    """
    answers: dict[str, bool] = {}
    for address in addresses:
        try:
            with Connection(address, connect_seconds=CONNECT_SECONDS) as connection:
                answers[address.name] = b"cluster_enabled:1" in connection.call("INFO", "cluster")
        except (UnavailableError, ReplyError):
            continue  # The service asks again, and raises if too few nodes answer.
    if len(set(answers.values())) > 1:
        members = ", ".join(name for name, clustered in answers.items() if clustered)
        others = ", ".join(name for name, clustered in answers.items() if not clustered)
        raise InvalidOptionError(
            f"{members} belong to a Valkey Cluster, and {others} do not; give nodes of one kind"
        )
    return any(answers.values())
