"""Changes what a tier may hold while it is in use, and evicts one value where a host asks."""

from __future__ import annotations

from memories.engine.hierarchy import Hierarchy
from memories.engine.operations import operation
from memories.engine.tier import VolatileTier
from memories.errors import InvalidOptionError, TierFullError
from memories.foundation.units import format_size
from memories.model.tiers import TierName


class Resizing:
    """Resizes the tiers of one hierarchy."""

    def __init__(self, hierarchy: Hierarchy) -> None:
        self.operations = hierarchy.operations
        self._hierarchy = hierarchy

    @operation
    def resize(self, name: TierName, size: int) -> None:
        """Let a tier hold `size` bytes from now on; what is too much moves down first.

        Raises:
            InvalidOptionError: the tier has no size.
            TierFullError: too little may leave it; the size stays as it was.
        """
        hierarchy = self._hierarchy
        hierarchy.require_writable()
        if name is TierName.GLACIER:
            raise InvalidOptionError("glacier has no size: what it may hold is not limited")
        hierarchy.settlement.settle()
        tier = hierarchy.tier(name)
        budget = tier.budget
        before, budget.configured = budget.configured, size
        try:
            if size < before:
                hierarchy.mover.shrink(tier, size)
            if budget.used > size:
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
        return hierarchy.mover.evict_one(hierarchy.tier(name))
