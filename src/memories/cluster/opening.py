"""Opens the nodes that a manager was given, whatever they turn out to be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from memories.clock import Clock
from memories.cluster.address import Address
from memories.cluster.service import Service
from memories.errors import InvalidOptionError


def check_nodes(nodes: Any, options: Mapping[str, Any]) -> list[Address]:
    """Return the addresses in `nodes`.

    Raises:
        InvalidOptionError: naming what is no address; never with a password in it.
    """
    if isinstance(nodes, (str, bytes)) or not isinstance(nodes, Sequence) or not nodes:
        raise InvalidOptionError("nodes= must be a list of addresses, such as ['node1:6379']")
    return [Address.parse(node, **options) for node in nodes]


def check_factor(factor: Any, count: int) -> int:
    """Return the replication factor, if so many nodes can have it."""
    if isinstance(factor, bool) or not isinstance(factor, int) or factor < 1:
        raise InvalidOptionError(f"replication_factor={factor!r} must be a whole number from 1 on")
    if factor > count:
        raise InvalidOptionError(
            f"replication_factor={factor} needs at least as many nodes, and {count} are given"
        )
    return factor


def open_service(
    addresses: Sequence[Address], factor: int, *, clock: Clock, allow_eviction: bool
) -> Service:
    """Ask the nodes what they are, and return a running service over them.

    Raises:
        UnavailableError: too few of them answer.
        InvalidOptionError: they cannot hold what is asked of them.
    """
    from memories.cluster.plain_service import PlainService

    service = PlainService(addresses, factor, clock=clock, allow_eviction=allow_eviction)
    service.start()
    return service
