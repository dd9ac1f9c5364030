"""Changes what a tier may hold while it is in use; names and evicts one value where a host asks."""

from __future__ import annotations

import time

from memories.engine.budget import BackendBudget, Budget
from memories.engine.hierarchy import Hierarchy
from memories.engine.operations import operation
from memories.engine.tier import AnyTier, DurableTier, VolatileTier, version_of
from memories.errors import TierFullError
from memories.foundation.units import format_size
from memories.model.entry import Entry
from memories.model.record import Record
from memories.model.tiers import TierName

POLL_SECONDS = 0.002
RELEASE_POLLS = 250  # How often it looks whether the last readers of what has left are gone.


class Resizing:
    """Resizes the tiers of one hierarchy."""

    def __init__(self, hierarchy: Hierarchy) -> None:
        self.operations = hierarchy.operations
        self._hierarchy = hierarchy

    @operation
    def resize(self, name: TierName, size: int) -> None:
        """Let a tier hold `size` bytes from now on; what is too much moves down first.

        Raises:
            TierFullError: too little may leave it; the size stays as it was.
        """
        hierarchy = self._hierarchy
        hierarchy.require_writable()
        hierarchy.settlement.settle()
        tier = hierarchy.tier(name)
        budget = tier.budget
        before, budget.configured = budget.configured, size
        try:
            if size < before:
                hierarchy.mover.shrink(tier, size)
            if not _falls_to(budget, size):
                raise TierFullError(
                    f"{name} holds {format_size(budget.used)}, of which nothing more may leave, so "
                    f"it cannot be made {format_size(size)}: delete or unpin keys, or drop the "
                    "arrays that were read from it"
                )
            if isinstance(tier, VolatileTier):
                # Hot and warm may be one pool, under one policy of the joint capacity.
                pool = [
                    one.budget.configured
                    for one in hierarchy.tiers.volatile.values()
                    if one.victims is tier.victims
                ]
                tier.victims.resize(sum(pool))
            else:
                hierarchy.catalog.journal.resize(size)
        except BaseException:
            budget.configured = before
            raise

    @operation
    def evict_one(self, name: TierName) -> str | None:
        """Move out of a tier what should leave it next; return its key, None if nothing may."""
        hierarchy = self._hierarchy
        hierarchy.require_writable()
        hierarchy.settlement.settle()
        with hierarchy.mover.eviction(hierarchy.tier(name)) as eviction:
            return eviction.evict_one()

    @operation
    def victim(self, name: TierName) -> str | None:
        """Return the key that `evict_one` would move out; nothing moves."""
        hierarchy = self._hierarchy
        hierarchy.require_writable()
        hierarchy.settlement.settle()
        return self._next(hierarchy.tier(name))

    def _next(self, tier: AnyTier) -> str | None:
        with self._hierarchy.mover.eviction(tier) as eviction:
            return eviction.find_next(self._may_leave)

    def _may_leave(self, found: Entry | Record) -> bool:
        """Return whether an eviction would move `found` down, or drop it."""
        hierarchy = self._hierarchy
        mover = hierarchy.mover
        with hierarchy.locks.try_lock(found.key) as free:
            if not free:
                return False
            return (
                hierarchy.expiry.removable(found)
                or mover.is_droppable(found)
                or any(self._takes(tier, found) for tier in mover.slower_tiers(found))
            )

    def _takes(self, tier: AnyTier, found: Entry | Record) -> bool:
        """Return whether a slower tier has room for `found`, or could make some."""
        record = self._hierarchy.catalog.record_under(found)
        there = record is not None and (
            record.tier is tier.name or (tier.name is TierName.GLACIER and bool(record.archived))
        )
        if there:
            return True
        size, headroom = found.size, tier.budget.headroom
        if size > headroom and isinstance(tier, DurableTier):
            payload = self._hierarchy.tiers.load(found)
            size = tier.convert(payload, version_of(found), evicted=True).size
        return size <= headroom or (tier.holds(size) and self._next(tier) is not None)


def _falls_to(budget: Budget | BackendBudget, size: int) -> bool:
    """Return whether at most `size` bytes are held now, or soon.

    What has left stays charged while it is read. The migrator may just be looking at an entry, or
    a call of another thread be about to return: that takes a moment, a view of the caller does not.
    """
    for _ in range(RELEASE_POLLS):
        if budget.used <= size:
            return True
        time.sleep(POLL_SECONDS)
    return budget.used <= size
