"""The measured cost of fetching a value from a tier, and of writing it to cold: seconds by size.

It takes durations that were measured anyway. There is one running mean for each power of two of
sizes. A mean is published in coarse steps, so that the costs which policies compare change only
when a medium has become slower or faster.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

from memories.model.events import Event, Moved, ReadBatch, Retrieved, ValueEvent, Written
from memories.model.tiers import TierName

CLASSES = 65  # One for each number of bits that a size may have.
TRIALS = 4  # Fetches of a class before its mean is believed: the first ones pay for imports.
WEIGHT = 0.1  # Of the latest fetch in the running mean.
CHANGE = 1.5  # A mean is published anew when it is off by this factor.
_LIFT = (TierName.WARM, TierName.HOT)
SLOWEST = 4  # A read counts as so many ordinary ones at most, where it decides what is kept.

# Latency and bytes per second of each source before anything was measured.
_DEFAULTS = {
    TierName.WARM: (1e-5, 10e9),
    TierName.COLD: (2e-4, 1e9),
    TierName.GLACIER: (5e-2, 1e8),
}
_DEFAULT_WRITE = (3e-4, 1e9)  # Likewise, of a write to cold.


def default_seconds(source: TierName, size: int) -> float:
    """Return what fetching `size` bytes from `source` is taken to cost before it was measured."""
    return _expected(_DEFAULTS[source], size)


def _expected(medium: tuple[float, float], size: int) -> float:
    latency, bandwidth = medium
    return latency + size / bandwidth


class _Means:
    """The means of what is done with one tier, and the table that was published from them."""

    def __init__(self, medium: tuple[float, float]) -> None:
        self.expected = [_expected(medium, 3 << at >> 2) for at in range(CLASSES)]
        self._counts = [0] * CLASSES
        self._means = [0.0] * CLASSES
        self.table = self.expected

    def add(self, at: int, seconds: float, fetches: int = 1) -> None:
        """Add `fetches` of class `at` which took `seconds` together, as if one by one."""
        self._counts[at] = count = self._counts[at] + fetches
        mean = self._means[at]
        weight = max(fetches / count, 1 - (1 - WEIGHT) ** fetches)
        self._means[at] = mean = mean + weight * (seconds / fetches - mean)
        if count >= TRIALS and not 1 / CHANGE < mean / self.table[at] < CHANGE:
            self._publish()

    def _publish(self) -> None:
        """Make a new table: measured classes as they are, the others as the nearest of these."""
        known = [at for at in range(CLASSES) if self._counts[at] >= TRIALS]
        off = {at: self._means[at] / self.expected[at] for at in known}
        nearest = [min(known, key=lambda one: abs(one - at)) for at in range(CLASSES)]
        self.table = [
            expected * off[near] for expected, near in zip(self.expected, nearest, strict=True)
        ]


class FetchCosts:
    """The mean seconds of a fetch from each tier.

    Threads may observe at once and without a lock: a measurement lost to another changes little.
    To add a fetch takes about a microsecond, and a table of 65 numbers when a mean has changed.
    """

    def __init__(self) -> None:
        self._sources = {name: _Means(medium) for name, medium in _DEFAULTS.items()}
        self._writes = _Means(_DEFAULT_WRITE)

    def observe(self, event: Event) -> None:
        """Add the duration of a move from warm up to hot, or of a write to cold."""
        if isinstance(event, Moved | Written):
            self.observe_batch([event])

    def observe_batch(self, events: Sequence[ValueEvent]) -> None:
        """Add the durations of a batch of moves from warm up to hot, or of writes to cold."""
        first = events[0]
        if isinstance(first, Written):
            if first.tier is TierName.COLD:
                for event in events:
                    if isinstance(event, Written) and event.seconds > 0:
                        self._writes.add(event.size.bit_length(), event.seconds)
            return
        if isinstance(first, Moved) and (first.source, first.target) == _LIFT:
            self._add_each(
                (TierName.WARM, event.size, event.seconds)
                for event in events
                if isinstance(event, Moved)
            )

    def observe_reads(self, reads: Sequence[Retrieved]) -> None:
        """Add the durations of reads that durable tiers answered."""
        if isinstance(reads, ReadBatch):
            sizes = Counter([record.size.bit_length() for record in reads.records])
            for at, count in sizes.items():
                if reads.seconds > 0:
                    self._sources[reads.tier].add(at, count * reads.seconds, count)
            return
        self._add_each((read.tier, read.size, read.seconds) for read in reads)

    def _add_each(self, fetches: Iterable[tuple[TierName, int, float]]) -> None:
        """Add fetches: the tier, the bytes and the seconds of each."""
        taken: defaultdict[tuple[TierName, int], list[float]] = defaultdict(list)
        for tier, size, seconds in fetches:
            if seconds > 0:  # A clock that has not moved has measured nothing.
                taken[tier, size.bit_length()].append(seconds)
        for (tier, at), each in taken.items():
            self._sources[tier].add(at, sum(each), len(each))

    def below(self, tier: TierName) -> Callable[[int], float]:
        """Return a function from a size to the seconds that a fetch from the next tier down takes.

        It costs a look-up, and follows what is measured from then on.
        """
        name = TierName.WARM if tier is TierName.HOT else TierName.COLD
        source = self._sources[name]
        return lambda size: source.table[size.bit_length()]

    def keeping(self, size: int) -> float:
        """Return the seconds that it takes to write a value to cold, and to read it once."""
        at = size.bit_length()
        reads, writes = self._sources[TierName.COLD], self._writes
        # What takes longer has waited for other programs, as the computation may have: under load
        # no result may be lost that is worth keeping on a quiet machine.
        read = min(reads.table[at], SLOWEST * reads.expected[at])
        return read + min(writes.table[at], writes.expected[at])

    def saved(self, size: int) -> float:
        """Return the seconds that a fetch from cold takes less than one from glacier."""
        at = size.bit_length()
        lower, upper = self._sources[TierName.GLACIER], self._sources[TierName.COLD]
        return lower.table[at] - upper.table[at]
