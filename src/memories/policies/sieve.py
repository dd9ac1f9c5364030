"""SIEVE (Zhang et al., NSDI 2024): a hand sweeps a FIFO queue and evicts the first unvisited node.

https://www.usenix.org/conference/nsdi24/presentation/zhang-yazhuo

A visited node keeps its position in the queue when the hand passes it, unlike in CLOCK, where it is
reinserted at the head. The paper's `visited` bit of an object is `node.hits != seen` here.
"""

from __future__ import annotations

from typing import ClassVar

from memories.policies.base import Policy, PolicyNode
from memories.policies.lazy_priority_queue import LOOKS
from memories.policies.paged_queue import PagedQueue


class SievePolicy(Policy):
    """Evicts the first node, from the hand towards the newer ones, that was not hit since."""

    name: ClassVar[str] = "sieve"
    patient: ClassVar[bool] = True

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._queue = PagedQueue()

    def insert(self, node: PolicyNode) -> None:
        """Add a node as the newest."""
        self._queue.append(node, node.hits)

    def remove(self, node: PolicyNode) -> None:
        """Remove a node."""
        self._queue.remove(node)

    def evict(self) -> PolicyNode | None:
        """Sweep from the hand on, clearing `visited`, and evict the first unvisited node."""
        queue = self._queue
        if not queue.count:
            return None
        for _ in range(4 * LOOKS):
            queue.advance()  # At the head of the queue the hand returns to the tail.
            page, index = queue.hand, queue.index
            node = page.nodes[index]
            if node.hits == page.seen[index]:  # Not visited: this is the victim.
                break
            page.seen[index] = node.hits  # Clear `visited`, and move the hand on.
            queue.index += 1
        queue.advance()
        return queue.take(queue.hand, queue.index)[0]

    def __len__(self) -> int:
        return self._queue.count

    def check(self) -> None:
        """Assert that the queue is sound and that no hits were invented."""
        self._queue.check()
        assert all(seen <= node.hits for node, seen in self._queue)
