"""Orders accesses in time without a call of the clock on the hit path.

A hit draws the next number of its tier's counter. The migrator records now and then which number
the counter has reached at what time. A stamp is as old as the first record that is not below it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable

from memories.engine.hit_counter import HitCounter

MAX_NOTES = 4096


class SampledTick(ABC):
    """Counts the hits of one sampled key and reports each of them."""

    __slots__ = ("inner", "key", "size")

    def __init__(self, key: str, size: int, inner: Callable[[], int]) -> None:
        self.key = key
        self.size = size
        self.inner = inner

    @abstractmethod
    def __call__(self) -> int:
        """Report a hit and count it."""

    @abstractmethod
    def wanted(self) -> bool:
        """Return whether the key is still in the sample."""


def unwrap_unwanted(tick: Callable[[], int]) -> Callable[[], int]:
    """Return `tick` without the parts that report to a sample which the key has left.

    Samples shrink as keys come, so most keys that were sampled once have left by now.
    """
    if not isinstance(tick, SampledTick):
        return tick
    tick.inner = unwrap_unwanted(tick.inner)
    return tick if tick.wanted() else tick.inner


class HitClock:
    """Maps the stamps of one counter to seconds of the monotonic clock."""

    def __init__(self, counter: HitCounter, now: float) -> None:
        self._counter = counter
        self._stamps = [counter.stamp()]
        self._times = [now]

    def record(self, now: float) -> None:
        """Record which stamp the counter has reached at `now`."""
        self._stamps.append(self._counter.stamp())
        self._times.append(now)
        if len(self._times) > MAX_NOTES:
            # The older half keeps every other record: the time of old accesses is less exact.
            half = MAX_NOTES // 2
            self._stamps[:half] = self._stamps[1:half:2]
            self._times[:half] = self._times[1:half:2]

    def time_of(self, stamp: int) -> float:
        """Return the latest time at which the access with `stamp` can have happened."""
        index = bisect_left(self._stamps, stamp)
        return self._times[min(index, len(self._times) - 1)]
