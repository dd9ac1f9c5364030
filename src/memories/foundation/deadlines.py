"""When keys end, soonest first, so that nobody looks at all of them to find those that have.

Not the truth, which a caller is asked for: what was said of a key before it changed is dropped when
it is its turn, or as soon as half of all is of that kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from heapq import heappop, heappush

SPARE = 32  # So many that are out of date are nothing to tidy up for.

Current = Callable[[str], float | None]  # When a key ends; None if never, or if it is absent.


class Deadlines:
    """Keys by the time at which they end. One thread at a time changes it; any number may ask.

    Args:
        current: Tells when a key ends.
    """

    __slots__ = ("_asked", "_current", "_heap", "_stale")

    def __init__(self, current: Current) -> None:
        self._current = current
        self._heap: list[tuple[float, str]] = []
        self._stale = 0
        self._asked: dict[int, list[tuple[float, str]]] = {}  # What each who asks has taken out.

    def add(self, key: str, ends: float) -> None:
        """Learn that `key` ends at `ends`."""
        heappush(self._heap, (ends, key))

    def mark_stale(self) -> None:
        """Learn that one of the keys has gone, or ends at another time."""
        self._stale += 1
        if 2 * self._stale > len(self._heap) + SPARE:
            self._sift()

    def rebuild(self, keys: Callable[[], Iterable[tuple[str, float]]]) -> None:
        """Begin anew with `keys`, which are asked for when another thread may add already."""
        self._heap, self._stale = [], 0
        for key, ends in keys():
            self.add(key, ends)

    def soonest(self) -> float | None:
        """Return a time before which no key ends; None if none will."""
        heap = self._heap
        return heap[0][0] if heap else None

    def due(self, now: float) -> Iterator[str]:
        """Yield the keys that have ended at `now`; one that stays is yielded again next time.

        Those that another thread is about to remove come last.
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
                    heappush(self._heap, item)
            self._asked.pop(id(held), None)

    def _pop(self, now: float) -> tuple[float, str] | None:
        heap = self._heap
        try:
            return heappop(heap) if heap[0][0] <= now else None
        except IndexError:
            return None  # There are no more, or another thread has taken the last one.

    def _sift(self) -> None:
        # Whoever asks meanwhile finds less; nobody changes what is looked through here.
        known, self._heap, self._stale = self._heap, [], 0
        for item in set(known):
            if self._holds(item):
                heappush(self._heap, item)

    def _holds(self, item: tuple[float, str]) -> bool:
        return self._current(item[1]) == item[0]

    def __len__(self) -> int:
        return len(self._heap)
