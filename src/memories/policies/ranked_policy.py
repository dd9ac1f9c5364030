"""The base of LRU, LFU and GDSF: the node with the lowest rank is evicted.

A hit may only raise a rank, so a rank that was stored earlier is a lower bound. It is computed
again when its node comes to the front of the queue, and not at each hit.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from memories.policies.base import Policy, PolicyNode
from memories.policies.lazy_priority_queue import LazyPriorityQueue


class RankedPolicy(Policy):
    """Evicts the node for which `rank` is lowest."""

    floats: ClassVar[bool] = False  # Whether ranks are floats, and not integers of any size.

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._queue = LazyPriorityQueue(floats=self.floats)

    @abstractmethod
    def rank(self, node: PolicyNode) -> float:
        """Return the present rank of `node`; it MUST NOT fall while the node is inside."""

    def insert(self, node: PolicyNode) -> None:
        """Add a node at its rank."""
        self._queue.add(node, self.rank(node))

    def remove(self, node: PolicyNode) -> None:
        """Remove a node."""
        self._queue.remove(node)

    def evict(self) -> PolicyNode | None:
        """Remove and return the node with the lowest rank."""
        found = self._queue.pop_lowest(self.rank)
        return None if found is None else found[0]

    def __len__(self) -> int:
        return self._queue.count

    def check(self) -> None:
        """Assert that the queue is sound and that no rank has fallen."""
        self._queue.check()
        assert all(rank <= self.rank(node) for node, rank in self._queue)
