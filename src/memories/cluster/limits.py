"""Limits that both kinds of replication share: time for much, age of garbage, registers at once."""

from __future__ import annotations

from memories.cluster.manifest import UPLOAD_SECONDS

_SECONDS_PER_QUERY = 0.0002
_SECONDS_PER_BYTE = 1 / 20e6
# A write that took longer is sent again to the nodes that stored it: one of them may have lost its
# memory since, and have been brought up to date by nodes that did not have the write yet.
CONFIRMED_SECONDS = 2.0
ORPHAN_SECONDS = 2 * UPLOAD_SECONDS  # Chunks without a manifest are removed at this age.
TOMBSTONE_SECONDS = 3600.0  # Tombstones are removed at this age, once all nodes have answered.
BATCH = 1000  # Registers in one round of requests.
REPAIR_BATCH = 64  # Registers whose values may be in memory at once.


def allowance(count: int, nbytes: int = 0) -> float:
    """Return how many more seconds `count` requests of `nbytes` may take than one small request."""
    return count * _SECONDS_PER_QUERY + nbytes * _SECONDS_PER_BYTE
