"""FIFO: the node that came first leaves first.

No notion of use at all. The plainest policy, and the right one for data read once in order.
"""

from __future__ import annotations

from typing import ClassVar

from memories.policies.base import Node, Policy
from memories.policies.paged_queue import PageQueue


class FifoPolicy(Policy):
    """Evicts in order of arrival."""

    name: ClassVar[str] = "fifo"

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._queue = PageQueue()

    def insert(self, node: Node) -> None:
        """Add a node as the newest."""
        self._queue.append(node, 0)

    def remove(self, node: Node) -> None:
        """Forget a node."""
        self._queue.remove(node)

    def evict(self) -> Node | None:
        """Take out the oldest node."""
        return self._queue.popleft()[0] if self._queue.count else None

    def __len__(self) -> int:
        return self._queue.count

    def check(self) -> None:
        """Assert that the queue is sound."""
        self._queue.check()
