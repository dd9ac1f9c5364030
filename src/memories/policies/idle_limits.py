"""Adaptive limits of the idle time after which a value moves down a tier.

A regret, which is a read of a value that was moved down for being idle, pulls the limit towards the
gap that it would have had to cover. Every demotion lets the limit fall back towards its start, and
fixed bounds hold in all cases. The planner compares the limit with the idle time of a value.
"""

from __future__ import annotations

from typing import NamedTuple

from memories.foundation.bounded_dict import BoundedDict


class IdleRange(NamedTuple):
    """The bounds of a limit, in seconds, and where it starts."""

    floor_seconds: float
    start_seconds: float
    ceiling_seconds: float


class IdleOutcome(NamedTuple):
    """What became of the values that were demoted for being idle.

    `regretted` counts those that were read again before their idle limit had passed once more.
    """

    demoted: int = 0
    regretted: int = 0

    @property
    def regretted_percent(self) -> float:
        """Return how many of the demotions were regretted."""
        return 100 * self.regretted / self.demoted if self.demoted else 0.0


# By the number of reads: never, once, at least twice. A value that was never read leaves the tier
# within five seconds, the move included. A value that was read twice stays for at least thirty
# seconds, and longer after regrets: a full tier is a better reason to evict it than a guess.
RANGES = (
    IdleRange(3.0, 3.0, 4.0),
    IdleRange(5.0, 12.0, 30.0),
    IdleRange(30.0, 60.0, 3600.0),
)

_PULL = 0.2  # Share of the missing seconds that one regret adds.
_MARGIN = 1.25  # Aims beyond the gap seen, or the limit would approach it and never reach it.
_RELAX = 0.01  # Share of the distance back to the start that one demotion covers.
_WORST_FACTOR = 8.0  # No single key stretches the common limit by more than this.


class IdleLimits:
    """The idle limits of one tier, by the number of reads, and stretched for single keys.

    The caller serialises the calls. At most `remembered_keys` keys have a factor of their own;
    those with the oldest regret are dropped first.
    """

    def __init__(self, *, remembered_keys: int = 4096) -> None:
        self._limits = [bounds.start_seconds for bounds in RANGES]
        self._factors: BoundedDict[str, float] = BoundedDict(remembered_keys)

    def limit(self, hits: int, key: str | None = None) -> float:
        """Return the idle seconds after which a value read `hits` times should move down.

        It is at most 5 for a value that was never read, at least 30 for one that was read twice or
        more, and between the two for one that was read once. With `key`, a key with earlier regrets
        gets up to eight times the limit, within the same bounds.
        """
        group = min(hits, 2)
        seconds = self._limits[group]
        if key is not None:
            seconds *= self._factors.get(key) or 1.0
        return min(seconds, RANGES[group].ceiling_seconds)

    def record_demotion(self, hits: int, count: int = 1) -> None:
        """Record that `count` values read `hits` times were moved down for being idle."""
        group = min(hits, 2)
        start = RANGES[group].start_seconds
        self._limits[group] = start + (self._limits[group] - start) * (1 - _RELAX) ** count

    def record_regret(self, hits: int, idle_seconds: float, key: str | None = None) -> bool:
        """Record that a value which was moved down for being idle was read again.

        Args:
            hits: How often it had been read when it moved down.
            idle_seconds: From the last access before the demotion to this read.
            key: Its key, whose own limit rises.

        Returns:
            Whether the limit of the group changed: a gap beyond the upper bound is ignored.
        """
        group = min(hits, 2)
        bounds = RANGES[group]
        if key is not None and idle_seconds <= RANGES[-1].ceiling_seconds:
            self._stretch(key)
        if idle_seconds > bounds.ceiling_seconds:
            return False
        missing = max(0.0, _MARGIN * idle_seconds - self._limits[group])
        self._limits[group] = min(self._limits[group] + _PULL * missing, bounds.ceiling_seconds)
        return True

    def _stretch(self, key: str) -> None:
        factor = self._factors.get(key) or 1.0
        self._factors.set(key, min(factor * 2, _WORST_FACTOR))

    def forget(self, key: str) -> None:
        """Delete the factor of `key`, which was removed from all tiers."""
        self._factors.pop(key)

    def check(self) -> None:
        """Assert that every limit is within its bounds and that the memory is bounded."""
        for seconds, bounds in zip(self._limits, RANGES, strict=True):
            assert bounds.floor_seconds <= seconds <= bounds.ceiling_seconds
        self._factors.check()
        factors = [self._factors.get(key) for key in self._factors]
        assert all(factor and 1.0 < factor <= _WORST_FACTOR for factor in factors)
