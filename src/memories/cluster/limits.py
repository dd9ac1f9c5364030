"""Limits that both kinds of replication share: time to wait, age of garbage, registers at once."""

from __future__ import annotations

from memories.cluster.manifest import UPLOAD_SECONDS

HEDGE_SECONDS = 0.08  # After so long without an answer the next node is asked as well.
PATIENCE_SECONDS = 0.9  # After so long without an answer a node counts as failed.
_SECONDS_PER_QUERY = 0.0002
_SECONDS_PER_BYTE = 1 / 20e6
ORPHAN_SECONDS = 2 * UPLOAD_SECONDS  # Chunks without a manifest are removed at this age.
TOMBSTONE_SECONDS = 3600.0  # Tombstones are removed at this age, once all nodes have answered.
BATCH = 1000  # Registers in one round of requests.
REPAIR_BATCH = 64  # Registers whose values may be in memory at once.


def allowance(count: int, nbytes: int = 0) -> float:
    """Return how many more seconds `count` requests of `nbytes` may take than one small request."""
    return count * _SECONDS_PER_QUERY + nbytes * _SECONDS_PER_BYTE
