"""How long nodes may take to answer, and how old garbage must be, for both kinds of replication."""

from __future__ import annotations

from memories.cluster.manifest import UPLOAD_SECONDS

HEDGE_SECONDS = 0.08  # A node that is silent for so long: the next one is asked, too.
PATIENCE_SECONDS = 0.9  # A node that is silent for so long counts as failed.
_SECONDS_PER_QUERY = 0.0002
_SECONDS_PER_BYTE = 1 / 20e6
ORPHAN_SECONDS = 2 * UPLOAD_SECONDS  # Chunks that nothing names are garbage once they are so old.
TOMBSTONE_SECONDS = 3600.0  # A tombstone that all nodes know may go once it is so old.


def allowance(count: int, nbytes: int = 0) -> float:
    """Return how much longer than for one small question the answers may take."""
    return count * _SECONDS_PER_QUERY + nbytes * _SECONDS_PER_BYTE
