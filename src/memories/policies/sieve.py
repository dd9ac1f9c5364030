"""SIEVE (Zhang et al., NSDI 2024): a hand sweeps a queue and evicts what was not hit since.

Not a second-chance queue: survivors keep their place, so that newcomers are judged soon while old
favourites are passed over.
"""

from __future__ import annotations

from typing import ClassVar

from memories.policies.base import Node, Policy
from memories.policies.lazy_heap import LOOKS
from memories.policies.paged_queue import PageQueue


class SievePolicy(Policy):
    """Evicts the first node, from the hand towards the newer ones, that was not hit since."""

    name: ClassVar[str] = "sieve"

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._queue = PageQueue()

    def insert(self, node: Node) -> None:
        """Add a node as the newest."""
        self._queue.append(node, node.hits)

    def remove(self, node: Node) -> None:
        """Forget a node."""
        self._queue.remove(node)

    def evict(self) -> Node | None:
        """Sweep, forgetting the hits passed over, and take out the first node without one."""
        queue = self._queue
        if not queue.count:
            return None
        for _ in range(4 * LOOKS):
            queue.advance()
            page, index = queue.hand, queue.index
            node = page.nodes[index]
            if node.hits == page.seen[index]:
                break
            page.seen[index] = node.hits
            queue.index += 1
        queue.advance()
        return queue.take(queue.hand, queue.index)[0]

    def __len__(self) -> int:
        return self._queue.count

    def check(self) -> None:
        """Assert that the queue is sound and that no hits were invented."""
        self._queue.check()
        assert all(seen <= node.hits for node, seen in self._queue)
