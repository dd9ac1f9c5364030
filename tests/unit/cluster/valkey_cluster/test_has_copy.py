"""A replica may say that a key is absent only if it has had all that its primary had."""

from __future__ import annotations

import pytest

from memories.cluster.valkey_cluster.read import has_copy

CONNECTED = {
    "role": "slave",
    "master_link_status": "up",
    "master_sync_in_progress": "0",
    "slave_repl_offset": "1769",
}
LOST = {**CONNECTED, "master_link_status": "down", "master_link_down_since_seconds": "3"}


def info(fields: dict[str, str]) -> bytes:
    """Return fields as a node prints them."""
    lines = [f"{name}:{value}" for name, value in fields.items()]
    return "\r\n".join(["# Replication", *lines, ""]).encode()


@pytest.mark.parametrize(
    ("fields", "copied"),
    [
        ({"role": "master", "connected_slaves": "0"}, True),
        (CONNECTED, True),
        (LOST, True),
        ({**LOST, "master_sync_in_progress": "1"}, False),  # It has removed what it had.
        ({**LOST, "slave_repl_offset": "0"}, False),
        ({**LOST, "slave_repl_offset": "1"}, False),
        # It was a primary since it started, or read its disk.
        ({**LOST, "master_link_down_since_seconds": "-1"}, False),
        # Redis before 7 counts from 1970 instead.
        ({**LOST, "master_link_down_since_seconds": "1796000000", "slave_repl_offset": "0"}, False),
        ({"role": "slave"}, False),
    ],
)
def test_what_a_node_says_of_its_copy(fields: dict[str, str], copied: bool) -> None:
    """In Valkey 9, and in Redis since 5."""
    assert copied == has_copy(info(fields))
