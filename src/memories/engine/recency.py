"""The recent reads of durable keys: they decide what is promoted and what is evicted first."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

from memories.foundation.fork_lock import new_lock
from memories.model.record import Record
from memories.policies.promotion_gate import PromotionGate

AT_ONCE = 256  # Arrivals that are recorded together, unless something is asked before.


class RecencyTracker:
    """A promotion gate that is safe to use from many threads."""

    def __init__(self) -> None:
        self._gate = PromotionGate()
        self._lock = new_lock()
        self._arrived: deque[str] = deque()  # In their order; recorded before anything else is.

    def record_reads(self, records: Sequence[Record], *, room: int) -> list[bool]:
        """Record a read of each of `records`, and return which of them should be promoted."""
        with self._lock:
            self._record_arrivals()
            return self._gate.touch_all([(one.key, one.size) for one in records], room=room)

    def record_read(self, key: str) -> int:
        """Record a read of `key`, and return how often it was read lately."""
        with self._lock:
            self._record_arrivals()
            return self._gate.record(key, 1)

    def record_demotions(self, demoted: Sequence[tuple[str, int]]) -> None:
        """Record that keys came down to a durable tier, each after so many reads above it."""
        with self._lock:
            self._record_arrivals()
            self._gate.record_all(demoted)

    def record_arrival(self, key: str) -> None:
        """Record that a key was stored in a durable tier; many are recorded together later."""
        self._arrived.append(key)
        if len(self._arrived) >= AT_ONCE:
            with self._lock:
                self._record_arrivals()

    def _record_arrivals(self) -> None:
        arrived, record = self._arrived, self._gate.record
        while arrived:  # The caller has the lock, so none is taken by another thread.
            record(arrived.popleft(), 0)

    def coldness(
        self, key: str, size: int = 1, saved: float = 1.0, span: float = math.inf
    ) -> float:
        """Return how long ago `key` was read or came down, in touches; inf if that is forgotten.

        It is weighed with its bytes, and with the seconds that are saved if it stays. Reads count
        half after `span` touches.
        """
        with self._lock:
            self._record_arrivals()
            return self._gate.coldness_of(key, size, saved, span)

    def reads(self, key: str) -> int:
        """Return how often `key` was read lately."""
        with self._lock:
            self._record_arrivals()
            return self._gate.touches(key)

    def forget(self, keys: Sequence[str]) -> None:
        """Forget the reads of `keys`, which were removed."""
        with self._lock:
            self._record_arrivals()
            for key in keys:
                self._gate.forget(key)
