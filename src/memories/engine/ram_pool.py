"""Hot and warm as one pool of the host's RAM, where hot has no device of its own.

One policy orders the entries of both, so that RAM holds what one tier of their joint size would
hold. Which of the two an entry lies in is a rank within the pool: it changes in place, without a
copy, and without a change of the policy's order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

from memories.engine.budget import Budget
from memories.engine.tier import EvictionThreads, VolatileTier
from memories.model.entry import Entry
from memories.model.tiers import TierName

LISTED_SHARE = 8  # One look at all entries lists so many of a tier: the first to change its rank.
LOOKS_EVERY = 64  # A look at so many entries is worth one eviction ...
ROOMY_SHARE = 64  # ... but where one part in so many of the other tier is free, more looks are.
TRIES = 8  # Listed entries that are compared with the room in the other tier.
SKIPS = 16  # Where all of these were too large, so many times they are not looked at again.


class RamPool:
    """The two tiers, and which entries change their rank when one of them needs room.

    The caller serialises nothing: lists of candidates are only hints, and every entry is looked up
    again.

    Args:
        hot: One of them.
        warm: The other one; both have the same victims.
        entries: Returns the entries of both.
        find: Returns the entry of a key.
    """

    def __init__(
        self,
        hot: VolatileTier,
        warm: VolatileTier,
        entries: Callable[[], list[Entry]],
        find: Callable[[str], Entry | None],
    ) -> None:
        self._hot, self._warm = hot, warm
        self._entries = entries
        self._find = find
        self._listed: dict[TierName, dict[str, None]] = {hot.name: {}, warm.name: {}}
        self._until_look: dict[TierName, int] = {hot.name: 0, warm.name: 0}
        # The size of the smallest one of those that were too large, and how often it counts still.
        self._too_large: dict[TierName, tuple[int, int]] = {hot.name: (0, 0), warm.name: (0, 0)}
        hot.counter.pair(warm.counter)
        hot.victims.on_forget = self._forget
        hot.eviction_threads = warm.eviction_threads = EvictionThreads()
        for tier in (hot, warm):
            tier.join(self, {hot.name: hot.counter.tick, warm.name: warm.counter.tick})

    @property
    def used(self) -> int:
        """Return the bytes that both hold."""
        return self._hot.budget.used + self._warm.budget.used

    @property
    def effective(self) -> int:
        """Return the bytes that both may hold."""
        own = self._hot.budget.effective + self._warm.budget.effective
        # What the host has left is for one of them only.
        return min(own, self.used + self._host.headroom)

    @property
    def headroom(self) -> int:
        """Return the bytes that could be charged now."""
        own = self._hot.budget.headroom + self._warm.budget.headroom
        return min(own, self._host.headroom)

    @property
    def _host(self) -> Budget:
        return cast("Budget", self._hot.budget.parent)

    def align(self) -> None:
        """Let the stamps of both tiers go on from the same number: one policy compares them."""
        self._hot.counter.align()

    def other(self, tier: VolatileTier) -> VolatileTier:
        """Return the other tier."""
        return self._warm if tier is self._hot else self._hot

    def offer_aside(self, tier: VolatileTier) -> Entry | None:
        """Return an entry of `tier` that the other tier has room for, None if there is none."""
        name, budget = tier.name, self.other(tier).budget
        self._until_look[name] -= 1
        headroom = budget.headroom
        if not headroom:
            return None
        least, skips = self._too_large[name]
        if headroom < least and skips:
            self._too_large[name] = (least, skips - 1)
            return None
        if not self._listed[name] and (
            self._until_look[name] <= 0 or headroom * ROOMY_SHARE >= budget.effective
        ):
            self._listed[name] = self._look(tier)
        listed = self._listed[name]
        too_large, least = list[str](), headroom
        found = None
        while listed and len(too_large) < TRIES:
            try:
                key, _ = listed.popitem()
            except KeyError:
                break  # Another thread has taken the last one.
            entry = self._find(key)
            if entry is None or entry.tier is not name:
                continue
            if entry.size <= headroom and self._may_lie_in(self.other(tier), entry):
                found = entry
                break
            too_large.append(key)
            least = entry.size if len(too_large) == 1 else min(least, entry.size)
        listed.update(dict.fromkeys(reversed(too_large)))
        self._too_large[name] = (0, 0) if found is not None else (least, SKIPS)
        return found

    def takes(self, tier: VolatileTier, entry: Entry) -> bool:
        """Return whether `entry` may make room in `tier` by a change of its rank."""
        other = self.other(tier)
        return (
            entry.tier is tier.name
            and entry.size <= other.budget.headroom
            and self._may_lie_in(other, entry)
        )

    def _may_lie_in(self, tier: VolatileTier, entry: Entry) -> bool:
        terms = entry.terms
        return not terms.pinned and terms.admits(tier.name)

    def _look(self, tier: VolatileTier) -> dict[str, None]:
        """Return the keys that should change their rank, the first one last."""
        entries = self._entries()
        self._until_look[tier.name] = len(entries) // LOOKS_EVERY
        found = [(entry.stamp, entry.key) for entry in entries if entry.tier is tier.name]
        # From hot the one goes first that was read longest ago, from warm the one read last.
        found.sort(reverse=tier is self._hot)
        first = found[-max(TRIES, len(found) // LISTED_SHARE) :]
        return dict.fromkeys([key for _, key in first])

    def _forget(self, keys: Sequence[str]) -> None:
        """Forget keys that are in no tier any more."""
        for listed in self._listed.values():
            for key in keys:
                listed.pop(key, None)
