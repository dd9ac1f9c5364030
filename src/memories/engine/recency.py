"""The recent reads of durable keys: they decide what is promoted and what is evicted first."""

from __future__ import annotations

from collections.abc import Sequence

from memories.foundation.fork_lock import new_lock
from memories.model.record import Record
from memories.policies.promotion_gate import PromotionGate


class RecencyTracker:
    """A promotion gate that is safe to use from many threads."""

    def __init__(self) -> None:
        self._gate = PromotionGate()
        self._lock = new_lock()

    def record_reads(self, records: Sequence[Record], *, room: int) -> list[bool]:
        """Record a read of each of `records`, and return which of them should be promoted."""
        with self._lock:
            touch = self._gate.touch
            return [touch(record.key, record.size, room=room) for record in records]

    def record_demotions(self, demoted: Sequence[tuple[str, int]]) -> None:
        """Record that keys came down to a durable tier, each after so many reads above it."""
        with self._lock:
            for key, reads in demoted:
                self._gate.record(key, reads)

    def coldness(self, key: str) -> float:
        """Return how long ago `key` was read or came down, in touches; inf if that is forgotten."""
        with self._lock:
            return self._gate.coldness(key)

    def reads(self, key: str) -> int:
        """Return how often `key` was read lately."""
        with self._lock:
            return self._gate.touches(key)

    def forget(self, keys: Sequence[str]) -> None:
        """Forget the reads of `keys`: they were promoted or removed."""
        with self._lock:
            for key in keys:
                self._gate.forget(key)
