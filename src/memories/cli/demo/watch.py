"""Observes the manager during the session: moves, and the peak usage of each tier."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from memories.model.events import Event, Moved
from memories.model.tiers import TierName

if TYPE_CHECKING:
    from memories import MemoryManager
    from memories.observe.counters import Stats

Pair = tuple[TierName, TierName]
NEIGHBOURS: list[Pair] = [
    (TierName.HOT, TierName.WARM),
    (TierName.WARM, TierName.COLD),
    (TierName.COLD, TierName.GLACIER),
]


class DemoWatch:
    """Counts the moves across each boundary of two tiers, and the different keys among them.

    A tile that is read in the archive comes straight into RAM, and crosses two boundaries or three.
    """

    def __init__(self, manager: MemoryManager) -> None:
        self._manager = manager
        self.moves: Counter[Pair] = Counter()
        self.moved_keys: defaultdict[Pair, set[str]] = defaultdict(set)
        self.peak_bytes: Counter[TierName] = Counter()
        manager._services.hierarchy.events.subscribe(self._observe, kinds=(Moved,))

    def read(self) -> Stats:
        """Return the current counters, and update the peaks."""
        stats = self._manager.stats()
        for name, tier in stats.tiers.items():
            self.peak_bytes[name] = max(self.peak_bytes[name], tier.used_bytes)
        return stats

    def _observe(self, event: Event) -> None:
        if isinstance(event, Moved):
            for pair in _crossed(event.source, event.target):
                self.moves[pair] += 1
                self.moved_keys[pair].add(event.key)


def _crossed(source: TierName, target: TierName) -> list[Pair]:
    """Return the pairs of neighbours that a move goes over, in its direction."""
    names = list(TierName)
    start, end = names.index(source), names.index(target)
    step = 1 if start < end else -1
    return [(names[at], names[at + step]) for at in range(start, end, step)]
