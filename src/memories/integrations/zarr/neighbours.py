"""Guesses which chunks are read next, and follows what became of the guesses.

A pan over a cube reads `c/3/4`, then `c/3/5`. The predictor is that of the manager's own prefetch:
it stops by itself where its guesses do not come true.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from memories.foundation.fork_lock import new_lock
from memories.policies.predictors import PatternPredictor, Prefetcher

MOST_UNREAD = 64  # Chunks that were fetched ahead and not read; the oldest counts as wasted then.
AT_ONCE = 4  # Guesses after one read.


class Neighbours:
    """Guesses the chunks that follow. Safe to use from any thread.

    Args:
        budget_bytes: The most that may be fetched ahead and not yet read.
    """

    def __init__(self, budget_bytes: int) -> None:
        self._lock = new_lock()
        self._prefetcher = Prefetcher((PatternPredictor(),), budget_bytes=budget_bytes)
        self._unread: OrderedDict[str, bool] = OrderedDict()  # True once it has been fetched.
        self._chunk_bytes = 1 << 16  # The size of the latest chunk: neighbours are alike.

    def after_read(
        self, key: str, size: int, now: float, is_absent: Callable[[str], bool]
    ) -> list[str]:
        """Note that `key` was read from the source, and return the keys to fetch ahead.

        Args:
            key: The key.
            size: Its bytes.
            now: The time.
            is_absent: Returns whether a key is known to be absent, or is kept already.
        """
        with self._lock:
            self._chunk_bytes = max(size, 1)
            self._prefetcher.observe(key, now)
            return self._propose(key, is_absent)

    def after_hit(self, key: str, now: float, is_absent: Callable[[str], bool]) -> list[str]:
        """Note that `key` was read from the tiers; the first read of a guess leads to the next."""
        if key not in self._unread:
            return []
        with self._lock:
            fetched = self._unread.pop(key, None)
            if fetched is None:
                return []
            self._prefetcher.record_outcome(key, "used" if fetched else "late")
            self._prefetcher.observe(key, now)
            return self._propose(key, is_absent)

    def _propose(self, key: str, is_absent: Callable[[str], bool]) -> list[str]:
        def size_of(other: str) -> int | None:
            return None if is_absent(other) else self._chunk_bytes

        keys = [guess.key for guess in self._prefetcher.propose(key, size_of, limit=AT_ONCE)]
        for one in keys:
            self._unread[one] = False
        while len(self._unread) > MOST_UNREAD:
            self._prefetcher.record_outcome(self._unread.popitem(last=False)[0], "wasted")
        return keys

    def fetched(self, key: str, *, found: bool) -> None:
        """Note the end of a fetch; a chunk that is absent at the source was a wrong guess."""
        with self._lock:
            if found and key in self._unread:
                self._unread[key] = True
            elif self._unread.pop(key, None) is not None:
                self._prefetcher.record_outcome(key, "wasted")
