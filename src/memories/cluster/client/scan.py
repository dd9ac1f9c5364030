"""Lists the names that are stored on one node, by SCAN."""

from __future__ import annotations

from collections.abc import Iterator

from memories.cluster.client.node import Node

_COUNT = 1000
_SPECIAL = rb"*?[]\^"


def pattern(prefix: bytes) -> bytes:
    """Return the glob that matches exactly the strings that start with `prefix`."""
    return (
        b"".join(b"\\" + bytes([one]) if one in _SPECIAL else bytes([one]) for one in prefix) + b"*"
    )


def scan_node(node: Node, prefix: bytes) -> Iterator[list[bytes]]:
    """Yield batches of the names on one node; a name may be repeated.

    Raises:
        UnavailableError: the node does not answer.
        ReplyError: it refuses.
    """
    cursor, glob = b"0", pattern(prefix)
    while True:
        cursor, names = node.call("SCAN", cursor, "MATCH", glob, "COUNT", _COUNT)
        if names:
            yield names
        if cursor == b"0":
            return
