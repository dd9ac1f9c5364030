"""Local copies of what lies on the nodes, kept in the warm tier as long as nobody needs the room.

Not their freshness, which is `cluster.near`. The one idea: a copy is an entry like any other, under
a name that no caller can give, that may be dropped, is in no snapshot and displaces nothing of his.
"""

from __future__ import annotations

from memories.engine.hierarchy import Hierarchy
from memories.engine.payload import Payload
from memories.errors import BusyError, KeyNotFoundError, TierFullError
from memories.model.record import Terms
from memories.model.tiers import TierName

SHARE = 0.25  # Of the warm tier that one copy may take at most.
_TERMS = Terms(evictable=True, min_tier=TierName.WARM, max_tier=TierName.WARM)
MOST_DROPPED = 64  # Older copies that make room for a new one.


class NearCacheStore:
    """Puts copies into the warm tier and takes them out again."""

    def __init__(self, hierarchy: Hierarchy) -> None:
        self._hierarchy = hierarchy

    def fits(self, size: int) -> bool:
        """Return whether there is room to spare for a copy of `size` bytes."""
        ledger = self._hierarchy.tiers[TierName.WARM].budget
        return size <= min(ledger.headroom, SHARE * ledger.configured)

    def could_fit(self, size: int) -> bool:
        """Return whether a copy of `size` bytes may be kept at all."""
        return size <= SHARE * self._hierarchy.tiers[TierName.WARM].budget.configured

    def put(self, name: str, payload: Payload) -> bool:
        """Keep a copy, and return whether it is kept."""
        try:
            self._hierarchy.put(name, payload, tier=TierName.WARM, terms=_TERMS)
        except (TierFullError, BusyError):
            return False
        return True

    def drop(self, name: str) -> None:
        """Let go of a copy, if it is there."""
        try:
            self._hierarchy.remove(name)
        except KeyNotFoundError:
            pass  # The tier has dropped it for room.
