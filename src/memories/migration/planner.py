"""Decides which entries in RAM should move: it takes state and returns moves.

It does no I/O and uses no lock and no clock. The migrator passes a slice of the entries and the
state of the tiers, and carries out the moves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from memories.foundation.bounded_dict import BoundedDict
from memories.model.entry import Entry
from memories.model.tiers import Cause, TierName
from memories.policies.idle_limits import IdleLimits, IdleOutcome
from memories.policies.promotion_gate import PromotionGate

TimeOf = Callable[[int], float]


@dataclass(slots=True)
class TierState:
    """A tier as the planner sees it.

    `headroom` shrinks with every move planned into it, and so does `exchange`: the bytes that may
    come in although other values must leave for them. `suits` says which values belong there.
    Nothing is idle before `filled_until`, and idle seconds count from `filled_at` on.
    """

    effective: int
    headroom: int
    exchange: int
    time_of: TimeOf  # When the access with a stamp happened.
    suits: Callable[[Entry], bool] = lambda entry: True
    filled_at: float = -math.inf
    filled_until: float = -math.inf


class Move(NamedTuple):
    """One transfer that should happen."""

    entry: Entry
    target: TierName
    cause: Cause


class Regret(NamedTuple):
    """The hits and the last access of a value that was demoted for being idle."""

    hits: int
    accessed_at: float


class Planner:
    """Plans idle demotions and promotions among the volatile tiers."""

    def __init__(self, *, promote: bool, demote_idle: bool, remembered_keys: int = 4096) -> None:
        self.limits = IdleLimits()
        self.gate = PromotionGate()
        self.next_idle_at = math.inf  # When the first seen entry will be idle too long.
        self.promotes = promote
        self.demotes_idle = demote_idle
        self._demoted: BoundedDict[str, Regret] = BoundedDict(remembered_keys)
        self._demotions = self._regretted = 0

    def outcome(self) -> IdleOutcome:
        """Return how many values were demoted for being idle, and how many too early."""
        return IdleOutcome(self._demotions, self._regretted)

    def plan(
        self,
        entries: Iterable[Entry],
        tiers: dict[TierName, TierState],
        *,
        now: float,
        looked_at: float,
    ) -> Iterator[Move]:
        """Yield the moves that a slice of the entries calls for.

        Args:
            entries: The slice.
            tiers: The volatile tiers.
            now: Seconds of the monotonic clock.
            looked_at: When this slice was last looked at.
        """
        for entry in entries:
            common = entry.common
            if common.terms.pinned:
                continue
            if common.tier is TierName.HOT:
                move = self._idle(entry, tiers, now) if self.demotes_idle else None
            else:
                move = self._warm(entry, tiers, looked_at) if self.promotes else None
            if move is not None:
                target = tiers[move.target]
                if entry.size > target.headroom:
                    target.exchange -= entry.size
                target.headroom -= entry.size
                yield move

    def record_demotion(self, entry: Entry, accessed_at: float) -> None:
        """Record that an idle demotion was carried out."""
        self._demotions += 1
        self.limits.record_demotion(entry.hits)
        self._demoted.set(entry.key, Regret(entry.hits, accessed_at))

    def forget(self, key: str) -> None:
        """Forget a key that is in no tier any more; safe in any thread."""
        self._demoted.pop(key)
        self.limits.forget(key)
        self.gate.forget(key)

    def _idle(self, entry: Entry, tiers: dict[TierName, TierState], now: float) -> Move | None:
        hot = tiers[TierName.HOT]
        due = max(hot.time_of(entry.stamp), hot.filled_at)
        due = max(due + self.limits.limit(entry.hits, entry.key), hot.filled_until)
        if now <= due:
            self.next_idle_at = min(self.next_idle_at, due)
            return None
        if entry.size > tiers[TierName.WARM].effective or not entry.terms.admits(TierName.WARM):
            return None
        return Move(entry, TierName.WARM, Cause.IDLE)

    def _warm(
        self, entry: Entry, tiers: dict[TierName, TierState], looked_at: float
    ) -> Move | None:
        """Promote an entry that was read since the last look, if it passes the gate."""
        if entry.hits == entry.arrived_hits:
            return None
        accessed_at = tiers[TierName.WARM].time_of(entry.stamp)
        if accessed_at <= looked_at:
            return None
        regret = self._demoted.pop(entry.key)
        if regret is not None:
            # It was demoted when its limit had passed once, and read again before it passed twice.
            limit = self.limits.limit(regret.hits, entry.key)
            self._regretted += accessed_at - regret.accessed_at <= 2 * limit
            self.limits.record_regret(regret.hits, accessed_at - regret.accessed_at, entry.key)
        hot = tiers[TierName.HOT]
        room = max(hot.headroom, 0)
        pressure = entry.size > max(room, hot.exchange)
        passed = self.gate.touch(entry.key, entry.size, room=room, pressure=pressure)
        if not passed or not entry.terms.admits(TierName.HOT) or not hot.suits(entry):
            return None
        return Move(entry, TierName.HOT, Cause.HIT)
