"""Changes the rank of entries in the pool of RAM: in which of its two tiers they lie."""

from __future__ import annotations

from collections.abc import Callable

from memories.engine.catalog import Catalog
from memories.engine.keylocks import KeyLocks
from memories.engine.tier import Tier, Tiers, VolatileTier
from memories.model.entry import Entry
from memories.model.events import EventBus, Moved
from memories.model.tiers import Cause

TRIES = 8  # Entries that another thread may work on, before a victim leaves instead.


class Ranks:
    """Changes ranks. A policy does not notice it, and nothing is copied."""

    def __init__(
        self,
        tiers: Tiers,
        catalog: Catalog,
        *,
        locks: KeyLocks,
        monotonic: Callable[[], float],
        events: EventBus,
    ) -> None:
        self._tiers = tiers
        self._catalog = catalog
        self._locks = locks
        self._monotonic = monotonic
        self._events = events

    def make_room(self, tier: Tier, riser: Entry | None = None) -> bool:
        """Make room in a tier of a pool by a change of ranks, at no cost; return whether.

        In the place of `riser`, only what was read less than that.
        """
        pool = tier.pool if isinstance(tier, VolatileTier) else None
        if pool is None:
            return False
        assert isinstance(tier, VolatileTier)
        other = pool.other(tier)
        for _ in range(TRIES):
            entry = pool.offer_aside(tier)
            if entry is None or (riser is not None and entry.hits >= riser.hits):
                return False
            with self._locks.try_lock(entry.key) as free:
                current = free and self._catalog.entries.get(entry.key) is entry
                if current and pool.takes(tier, entry):
                    quota = self._catalog.rules.room(entry.key, other.name)
                    if quota is None and other.budget.reserve(entry.size):
                        started = self._monotonic()
                        self.change(entry, other)
                        now = self._monotonic()
                        self._events.emit_soon(
                            Moved(
                                entry.key, now, tier.name, other.name, entry.size,
                                Cause.CAPACITY, now - started,
                            )
                        )  # fmt: skip
                        return True
        return False

    def change(self, entry: Entry, target: VolatileTier) -> None:
        """Let an entry lie in the other tier of its pool, where its bytes are reserved.

        The caller holds the lock of its key.
        """
        source = self._tiers.volatile[entry.tier]
        try:
            # A store that is not reported yet is counted in the tier that its entry has then.
            self._tiers.settle([entry])
            self._catalog.set_tier(entry, target.common_with(entry))
        except BaseException:
            target.budget.release(entry.size)
            raise
        source.budget.release(entry.size)
