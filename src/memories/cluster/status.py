"""The state of one node for `get_node_status`, read from its INFO."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from memories.cluster.client.node import Node, info_number, parse_info
from memories.cluster.client.resp import Command, ReplyError
from memories.cluster.incarnation import INCARNATION_KEY, UP, Incarnation, read_incarnation
from memories.errors import UnavailableError


def node_status(
    node: Node, monotonic: Callable[[], float], epoch: int, membership: str
) -> dict[str, Any]:
    """Return the state of one plain server; `online` is false if it does not answer."""
    state, info, incarnation = _asked(node, monotonic, ("GET", INCARNATION_KEY))
    if state["online"]:
        state["up_to_date"] = read_incarnation(incarnation) == Incarnation(
            UP, info.get("run_id", ""), epoch
        )
    return {**state, "membership": membership}


def cluster_node_status(node: Node, monotonic: Callable[[], float]) -> dict[str, Any]:
    """Return the state of one node of a Cluster; a replica is up to date while it is linked."""
    state, info, _ = _asked(node, monotonic, ("PING",))
    if state["online"]:
        linked = info.get("master_link_status", "up") == "up"
        state["up_to_date"] = linked and info.get("loading", "0") == "0"
    return {**state, "membership": "member"}


def _asked(
    node: Node, monotonic: Callable[[], float], question: Command
) -> tuple[dict[str, Any], dict[str, str], Any]:
    began = monotonic()
    try:
        info, keys, reply = node.pipeline([("INFO",), ("DBSIZE",), question], strict=True)
    except (UnavailableError, ReplyError) as error:
        return _offline(node, str(error)), {}, None
    fields = parse_info(info)
    used = info_number(fields, "used_memory")
    limit = info_number(fields, "maxmemory") or info_number(fields, "total_system_memory")
    state = {
        "online": True,
        "up_to_date": False,
        "memory_usage": 100.0 * used / limit if limit else 0.0,
        "used_bytes": used,
        "total_bytes": limit,
        "role": fields.get("role", ""),
        "version": fields.get("valkey_version") or fields.get("redis_version", ""),
        "latency_seconds": (monotonic() - began) / 2,
        "keys": keys if isinstance(keys, int) else 0,
        "last_error": node.last_error,
        "missing_copies": 0,
        "short_writes": 0,
    }
    return state, fields, reply


def _offline(node: Node, reason: str) -> dict[str, Any]:
    nothing = dict.fromkeys(("memory_usage", "used_bytes", "total_bytes", "keys"), 0)
    return {
        "online": False,
        "up_to_date": False,
        **nothing,
        "memory_usage": 0.0,
        "role": "",
        "version": "",
        "latency_seconds": None,
        "last_error": reason,
        "missing_copies": 0,
        "short_writes": 0,
    }
