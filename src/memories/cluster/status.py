"""What a node says of itself, as `get_node_status` gives it. Reads INFO, decides nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from memories.cluster.marks import MARK, UP, Mark, read_mark
from memories.cluster.node import Node, parse_info
from memories.cluster.wire import ReplyError
from memories.errors import UnavailableError

_SECONDS = 0.9


def node_status(node: Node, monotonic: Callable[[], float], epoch: int) -> dict[str, Any]:
    """Return the state of one node; one that does not answer is not `online`."""
    began = monotonic()
    try:
        info, keys, mark = node.pipeline(
            [("INFO",), ("DBSIZE",), ("GET", MARK)], seconds=_SECONDS, strict=True
        )
    except (UnavailableError, ReplyError) as error:
        return _offline(node, str(error))
    fields = parse_info(info)
    used = int(fields.get("used_memory", 0))
    limit = int(fields.get("maxmemory", 0)) or int(fields.get("total_system_memory", 0))
    return {
        "online": True,
        "up_to_date": read_mark(mark) == Mark(UP, fields.get("run_id", ""), epoch),
        "memory_usage": 100.0 * used / limit if limit else 0.0,
        "used_bytes": used,
        "total_bytes": limit,
        "role": fields.get("role", ""),
        "version": fields.get("valkey_version") or fields.get("redis_version", ""),
        "latency_seconds": (monotonic() - began) / 2,
        "keys": int(keys),
        "last_error": node.last_error,
    }


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
    }
