"""Keeps local copies of values of the nodes in the warm tier, while nothing else needs the room.

A copy is stored under an internal key: it is evictable, excluded from snapshots, and never evicts
values of the user. `cluster.near_cache` decides how long a copy is fresh.
"""

from __future__ import annotations

from memories.engine.hierarchy import Hierarchy
from memories.engine.payload import Payload
from memories.errors import BusyError, KeyNotFoundError, TierFullError
from memories.model.record import Terms
from memories.model.tiers import TierName

SHARE = 0.25  # The largest share of the warm tier for one copy.
_TERMS = Terms(evictable=True, min_tier=TierName.WARM, max_tier=TierName.WARM)
MOST_DROPPED = 64  # Older copies that may be dropped for a new one.


class NearCacheStore:
    """Stores and removes the copies of one manager."""

    def __init__(self, hierarchy: Hierarchy) -> None:
        self._hierarchy = hierarchy

    def fits(self, size: int) -> bool:
        """Return whether a copy of `size` bytes fits into the free room of the tier."""
        budget = self._hierarchy.tiers.volatile[TierName.WARM].budget
        return size <= min(budget.headroom + budget.leaving, SHARE * budget.configured)

    def could_fit(self, size: int) -> bool:
        """Return whether a copy of `size` bytes is small enough to be stored."""
        return size <= SHARE * self._hierarchy.tiers[TierName.WARM].budget.configured

    def put(self, name: str, payload: Payload) -> bool:
        """Store a copy, and return whether it was stored."""
        try:
            self._hierarchy.put(name, payload, tier=TierName.WARM, terms=_TERMS)
        except (TierFullError, BusyError):
            return False
        return True

    def drop(self, name: str) -> None:
        """Remove a copy, if there is one."""
        try:
            self._hierarchy.remove(name)
        except KeyNotFoundError:
            pass  # It was evicted.
