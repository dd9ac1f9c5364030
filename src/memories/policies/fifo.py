"""FIFO: the node that was inserted first is evicted first, whether it was hit or not.

It suits data that are read once and in order.
"""

from __future__ import annotations

from typing import ClassVar

from memories.policies.base import Policy, PolicyNode
from memories.policies.paged_queue import PagedQueue


class FifoPolicy(Policy):
    """Evicts in order of arrival."""

    name: ClassVar[str] = "fifo"
    patient: ClassVar[bool] = True

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._queue = PagedQueue()

    def insert(self, node: PolicyNode) -> None:
        """Add a node as the newest."""
        self._queue.append(node, 0)

    def remove(self, node: PolicyNode) -> None:
        """Remove a node."""
        self._queue.remove(node)

    def evict(self) -> PolicyNode | None:
        """Remove and return the oldest node."""
        return self._queue.popleft()[0] if self._queue.count else None

    def __len__(self) -> int:
        return self._queue.count

    def check(self) -> None:
        """Assert that the queue is sound."""
        self._queue.check()
