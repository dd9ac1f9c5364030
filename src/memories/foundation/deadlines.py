"""Keys ordered by their expiry time, so that expired keys are found without a scan.

The heap may hold outdated times: each item is compared with the caller's current expiry time when
it is due, and all outdated items are removed as soon as they are half of the heap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from heapq import heappop, heappush

SPARE = 32  # This many outdated items are not worth a rebuild of the heap.

Current = Callable[
    [str], float | None
]  # The expiry time of a key; None without one, or if it is absent.


class Deadlines:
    """Keys by their expiry time. One thread at a time changes it; any number may read.

    Args:
        current: Returns the expiry time of a key.
    """

    __slots__ = ("_asked", "_current", "_stale", "heap")

    def __init__(self, current: Current) -> None:
        self._current = current
        self.heap: list[tuple[float, str]] = []  # The first item ends first.
        self._stale = 0
        self._asked: dict[
            int, list[tuple[float, str]]
        ] = {}  # Items that each running `due` has popped.

    def add(self, key: str, ends: float) -> None:
        """Add the expiry time of `key`."""
        heappush(self.heap, (ends, key))

    def mark_stale(self) -> None:
        """Count one item as outdated: its key was removed, or expires at another time."""
        self._stale += 1
        if 2 * self._stale > len(self.heap) + SPARE:
            self._sift()

    def rebuild(self, keys: Callable[[], Iterable[tuple[str, float]]]) -> None:
        """Replace all items by `keys()`, called after other threads can add to the new heap."""
        self.heap, self._stale = [], 0
        for key, ends in keys():
            self.add(key, ends)

    def soonest(self) -> float | None:
        """Return a time before which no key expires; None if no key has an expiry time."""
        heap = self.heap
        return heap[0][0] if heap else None

    def due(self, now: float) -> Iterator[str]:
        """Yield the keys that have expired at `now`; one that is not removed is yielded again.

        Keys that another thread is about to remove come last.
        """
        held: list[tuple[float, str]] = []
        others = dict(self._asked)
        try:
            self._asked[id(held)] = held
            while (item := self._pop(now)) is not None:
                held.append(item)
                if self._holds(item):
                    yield item[1]
            others |= self._asked
            del others[id(held)]
            for taken in others.values():
                yield from (item[1] for item in list(taken) if item[0] <= now and self._holds(item))
        finally:
            for item in held:
                if self._holds(item):
                    heappush(self.heap, item)
            self._asked.pop(id(held), None)

    def _pop(self, now: float) -> tuple[float, str] | None:
        heap = self.heap
        try:
            return heappop(heap) if heap[0][0] <= now else None
        except IndexError:
            return None  # The heap is empty, or another thread has popped the last item.

    def _sift(self) -> None:
        # A thread that reads during this finds fewer items; `known` itself does not change.
        known, self.heap, self._stale = self.heap, [], 0
        for item in set(known):
            if self._holds(item):
                heappush(self.heap, item)

    def _holds(self, item: tuple[float, str]) -> bool:
        return self._current(item[1]) == item[0]

    def __len__(self) -> int:
        return len(self.heap)
