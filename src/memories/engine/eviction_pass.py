"""One pass over the eviction candidates of a tier, by one thread among several.

A candidate that is offered to one thread is hidden from the others. So a thread that finds none
must know whether other threads are evicting before it reports that the tier is full.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum

from memories.engine.batch_write import BATCH_BYTES
from memories.engine.tier import Tier
from memories.model.entry import Entry
from memories.model.record import Record

MAX_KEPT = 64  # After so many that stay, a pass ends: its work is bounded.


EvictBatch = Callable[[Tier, Sequence[Entry | Record]], Sequence[Entry | Record]]
MayEvict = Callable[[Entry | Record], bool]  # Whether a victim may leave for the new value.


class EvictionOutcome(Enum):
    """What became of a victim."""

    GONE = "gone"
    STAYS = "stays"  # No tier below takes it.
    BUSY = "busy"  # Another thread works on its key.


def _stay(tier: Tier) -> bool:
    """Make no room without an eviction."""
    del tier
    return False


class EvictionPass:
    """Evicts victims one by one; those that stay are offered again when the pass ends."""

    def __init__(
        self,
        tier: Tier,
        evict: Callable[[Tier, Entry | Record], EvictionOutcome],
        current: Callable[[Entry | Record], bool],
        may_evict: MayEvict | None = None,
        move_aside: Callable[[Tier], bool] = _stay,
    ) -> None:
        """`move_aside` makes room in the tier without an eviction, and returns whether it did."""
        self._tier = tier
        self._move_aside = move_aside
        self._evict = evict
        self._current = current
        self._may_evict = may_evict
        self._kept: list[Entry | Record] = []
        self._seen: set[tuple[str, int]] = set()
        self.busy = False  # Whether another thread kept a victim from leaving.

    def make_room(self, size: int, other: Tier | None = None) -> Tier | None:
        """Evict victims until `size` bytes are reserved; return where, None if they cannot be.

        That is in the tier, or in the `other` one of its pool, where a victim may lie as well.
        """
        tier = self._tier
        while not tier.budget.reserve(size):
            if other is not None and other.budget.reserve(size):
                return other
            # With two tiers to choose from, both have too little only if room is in pieces.
            aside = other is None or tier.account.headroom >= size
            if not (aside and self._move_aside(tier)) and not self.evict_next():
                return None
        return tier

    def evict_next(self) -> bool:
        """Evict the next victim; return False when each was tried before."""
        victim = self._next()
        if victim is None:
            return False
        self._evict_one(victim)
        return True

    def shrink(self, used: int) -> None:
        """Evict victims until the tier holds at most `used` bytes, or nothing more may leave."""
        while self._tier.budget.used > used:
            if not self._move_aside(self._tier) and not self.evict_next():
                return

    def evict_one(self) -> str | None:
        """Evict one victim, and return its key; None when each was tried before."""
        while (victim := self._next()) is not None:
            kept = len(self._kept)
            self._evict_one(victim)
            if len(self._kept) == kept:
                return victim.key
        return None

    def find_next(self, may_leave: MayEvict) -> str | None:
        """Return the key of the first victim that may leave, which is offered next; None without.

        Those before it stay, as they do where `evict_one` cannot evict them.
        """
        while (victim := self._next()) is not None:
            if may_leave(victim):
                self._tier.victims.offer_next(victim)
                if not self._current(victim):  # As at the end of the pass.
                    self._tier.victims.discard(victim)
                return victim.key
            self._kept.append(victim)
        return None

    def evict_batch(self, nbytes: int, count: int, evict: EvictBatch) -> bool:
        """Evict victims of about `nbytes`, but at most `count` of them; False if there are none.

        `evict` returns those that are left; they are evicted one by one.
        """
        victims, largest = list[Entry | Record](), BATCH_BYTES
        while nbytes > 0 and largest > 0 and len(victims) < count:
            victim = self._next()
            if victim is None:
                break
            victims.append(victim)
            nbytes -= victim.size
            largest -= victim.size
        left: Sequence[Entry | Record] = victims
        try:
            left = evict(self._tier, victims)
            while left:
                victim, left = left[0], left[1:]
                self._evict_one(victim)
        finally:
            self._kept += left
        return bool(victims)

    def _next(self) -> Entry | Record | None:
        """Return a victim that was not tried before; None if there is none."""
        if len(self._kept) >= MAX_KEPT:
            return None
        victim: Entry | Record | None = self._tier.victims.offer()
        if victim is None or (victim.key, victim.version) in self._seen:
            if victim is not None:
                self._kept.append(victim)
            self.busy = self.busy or self._tier.eviction_threads.several
            return None
        if self._may_evict is not None and not self._may_evict(victim):
            self._kept.append(victim)
            return None
        self._seen.add((victim.key, victim.version))
        return victim

    def _evict_one(self, victim: Entry | Record) -> None:
        outcome = EvictionOutcome.STAYS
        try:
            outcome = self._evict(self._tier, victim)
        finally:
            if outcome is not EvictionOutcome.GONE:
                self._kept.append(victim)
        self.busy = self.busy or outcome is EvictionOutcome.BUSY

    def __enter__(self) -> EvictionPass:
        self._tier.eviction_threads.add()
        return self

    def __exit__(self, *exc_info: object) -> None:
        for victim in self._kept:
            self._tier.victims.add(victim, accessed=False)
            # Thread 1 has this victim in its pass, so the policy does not have it. Thread 2
            # replaces the key: it removes the entry from the catalog, then finds nothing to
            # discard. Thread 1 adds the victim again, and must discard it, or its bytes would
            # stay charged for ever.
            if not self._current(victim):
                self._tier.victims.discard(victim)
        self._tier.eviction_threads.remove()
