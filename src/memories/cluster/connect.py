"""Finds out whether the nodes of a manager are plain servers or a Cluster, and opens them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from memories.cluster.client.address import NodeAddress
from memories.cluster.client.connection import Connection
from memories.cluster.client.node import parse_info
from memories.cluster.node_service import NodeService
from memories.cluster.quorum.vouchers import VoucherKeys
from memories.errors import InvalidOptionError, MemoriesError
from memories.foundation.clock import Clock
from memories.foundation.logging import logger
from memories.foundation.periodic import BackgroundThread

_LOOPBACK = frozenset({"127.0.0.1", "localhost"})
_LATE_SECONDS = 1.0  # Nodes that answer so much later than the others are not waited for.


class Greeting(NamedTuple):
    """What a node has said of itself."""

    address: NodeAddress
    clustered: bool
    run_id: str
    is_replica: bool
    seconds: float  # How long one answer took.


def check_nodes(nodes: Any, options: Mapping[str, Any]) -> list[NodeAddress]:
    """Return the addresses in `nodes`.

    Raises:
        InvalidOptionError: one of them is not an address; the message never shows a password.
    """
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
    addresses: Sequence[NodeAddress],
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
    greetings = greet(addresses)
    latency = max((one.seconds for one in greetings), default=0.0)
    if are_a_cluster(greetings):
        from memories.cluster.valkey_cluster.service import ClusterService

        service = ClusterService(
            addresses,
            factor,
            clock=clock,
            allow_eviction=allow_eviction,
            strict=strict,
            latency=latency,
        )
    else:
        from memories.cluster.quorum.service import QuorumService

        addresses = _distinct_primaries(addresses, greetings)
        service = QuorumService(
            addresses,
            factor,
            clock=clock,
            allow_eviction=allow_eviction,
            keys=keys,
            latency=latency,
        )
    service.start()
    return service


def greet(addresses: Sequence[NodeAddress]) -> list[Greeting]:
    """Ask all nodes at once what they are, and return what those say that answer."""
    answers: SimpleQueue[Greeting | None] = SimpleQueue()
    for address in addresses:
        BackgroundThread(partial(_greet, address, answers), "nodes-greeting").start()
    greetings: list[Greeting] = []
    began = time.monotonic()
    end = began + max(address.timeout for address in addresses)
    for _ in addresses:
        try:
            greeting = answers.get(timeout=max(0.0, end - time.monotonic()))
        except Empty:
            break  # The service asks again, and raises if too few nodes answer.
        if greeting is not None:
            greetings.append(greeting)
            end = min(end, began + _LATE_SECONDS + 4 * (time.monotonic() - began))
    return greetings


def _greet(address: NodeAddress, answers: SimpleQueue[Greeting | None]) -> None:
    greeting: Greeting | None = None
    limit = address.timeout
    try:
        with Connection(address, connect_seconds=limit, call_seconds=limit) as connection:
            began = time.monotonic()
            server, cluster, replication = map(
                parse_info,
                connection.pipeline(
                    [("INFO", part) for part in ("server", "cluster", "replication")]
                ),
            )
            greeting = Greeting(
                address,
                cluster.get("cluster_enabled") == "1",
                server.get("run_id", ""),
                replication.get("role") in ("slave", "replica"),
                time.monotonic() - began,
            )
    except MemoriesError as error:
        logger.debug("%s: %s", address.name, error)
    finally:
        answers.put(greeting)


def _distinct_primaries(
    addresses: Sequence[NodeAddress], greetings: Sequence[Greeting]
) -> list[NodeAddress]:
    """Return the addresses without those of replicas, which refuse writes.

    Raises:
        InvalidOptionError: two of them are one server, so that two copies would be one.
    """
    names: dict[str, str] = {}
    for greeting in greetings:
        other = names.setdefault(greeting.run_id, greeting.address.name)
        if other != greeting.address.name and greeting.run_id:
            raise InvalidOptionError(
                f"{other} and {greeting.address.name} are the same server: name it once"
            )
    replicas = {greeting.address.name for greeting in greetings if greeting.is_replica}
    if replicas:
        logger.warning(
            "%s: not used, because it is a replica of another server, and refuses writes",
            ", ".join(sorted(replicas)),
        )
    return [address for address in addresses if address.name not in replicas]


def are_a_cluster(greetings: Sequence[Greeting]) -> bool:
    """Return whether the nodes that have answered are a Valkey Cluster.

    Raises:
        InvalidOptionError: some are, and some are not.
    """
    answers = {one.address.name: one.clustered for one in greetings}
    if len(set(answers.values())) > 1:
        members = ", ".join(name for name, clustered in answers.items() if clustered)
        others = ", ".join(name for name, clustered in answers.items() if not clustered)
        raise InvalidOptionError(
            f"{members} belong to a Valkey Cluster, and {others} do not; give nodes of one kind"
        )
    return any(answers.values())
