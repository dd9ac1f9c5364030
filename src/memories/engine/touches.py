"""The recent reads of durable keys: what may go up, and what a sweep should spare."""

from __future__ import annotations

from memories.locks import new_lock
from memories.policies.promotion import PromotionGate


class Touches:
    """A promotion gate that any thread may ask."""

    def __init__(self) -> None:
        self._gate = PromotionGate()
        self._lock = new_lock()

    def read(self, key: str, size: int, *, room: int) -> bool:
        """Record a read of `key` and return whether it should be promoted."""
        with self._lock:
            return self._gate.touch(key, size, room=room)

    def recent(self, key: str) -> bool:
        """Return whether `key` was read lately."""
        with self._lock:
            return self._gate.touches(key) > 0

    def count(self, key: str) -> int:
        """Return how often `key` was read lately."""
        with self._lock:
            return self._gate.touches(key)

    def forget(self, key: str) -> None:
        """Start `key` anew: it was promoted."""
        with self._lock:
            self._gate.forget(key)
