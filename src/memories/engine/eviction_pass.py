"""One pass over a tier's victims, by one thread among several.

A victim that is offered to one thread is in no other's sight, so a thread that sees none must know
whether others are at work before it takes the tier for full.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from memories.engine.tier import Tier
from memories.model.entry import Entry
from memories.model.record import Record

MAX_KEPT = 64  # After so many that stay, the rest are taken to stay too: the work is bounded.


MayEvict = Callable[[Entry | Record], bool]  # Whether a victim may go for what is coming.


class EvictionOutcome(Enum):
    """What became of a victim."""

    GONE = "gone"
    STAYS = "stays"  # No tier below takes it.
    BUSY = "busy"  # Another thread works on its key.


class EvictionPass:
    """Displaces victims one by one; those that stay are victims again when the pass ends."""

    def __init__(
        self,
        tier: Tier,
        evict: Callable[[Tier, Entry | Record], EvictionOutcome],
        current: Callable[[Entry | Record], bool],
        may_evict: MayEvict | None = None,
    ) -> None:
        self._tier = tier
        self._evict = evict
        self._current = current
        self._may_evict = may_evict
        self._kept: list[Entry | Record] = []
        self._seen: set[tuple[str, int]] = set()
        self.busy = False  # Whether another thread kept a victim from leaving.

    def make_room(self, size: int) -> bool:
        """Displace victims until `size` bytes could be reserved, and return whether they were."""
        while not self._tier.budget.reserve(size):
            if not self.evict_next():
                return False
        return True

    def evict_next(self) -> bool:
        """Displace the next victim; False when there is none that was not tried before."""
        if len(self._kept) >= MAX_KEPT:
            return False
        victim = self._tier.victims.offer()
        if victim is None or (victim.key, victim.version) in self._seen:
            if victim is not None:
                self._kept.append(victim)
            self.busy = self.busy or self._tier.eviction_threads.several
            return False
        if self._may_evict is not None and not self._may_evict(victim):
            self._kept.append(victim)
            return False
        self._seen.add((victim.key, victim.version))
        outcome = EvictionOutcome.STAYS
        try:
            outcome = self._evict(self._tier, victim)
        finally:
            if outcome is not EvictionOutcome.GONE:
                self._kept.append(victim)
        self.busy = self.busy or outcome is EvictionOutcome.BUSY
        return True

    def __enter__(self) -> EvictionPass:
        self._tier.eviction_threads.add()
        return self

    def __exit__(self, *exc_info: object) -> None:
        for victim in self._kept:
            self._tier.victims.add(victim, accessed=False)
            # Who held its key meanwhile may have let go of it, when there was nothing to discard:
            # a victim that nobody names would stay charged. It is first unnamed, then discarded.
            if not self._current(victim):
                self._tier.victims.discard(victim)
        self._tier.eviction_threads.remove()
