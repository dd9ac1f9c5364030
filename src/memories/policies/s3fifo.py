"""S3-FIFO (Yang et al., SOSP 2023): a small queue sifts newcomers, a large one keeps the rest.

No recency order. What is hit twice in the small queue, or comes back soon after it left, moves on
to the main queue, where hits buy further rounds; all else leaves quickly.
"""

from __future__ import annotations

from typing import ClassVar

from memories.policies.base import Node, Policy
from memories.policies.ghost_table import Ghosts
from memories.policies.hashing import digest
from memories.policies.lazy_heap import LOOKS
from memories.policies.paged_queue import PageQueue

_SMALL_SHARE = 0.1
_HITS_TO_PASS = 2
_MAX_ROUNDS = 3


class S3FifoPolicy(Policy):
    """Evicts one-hit wonders from a small queue and the rest from a main queue."""

    name: ClassVar[str] = "s3fifo"

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._small = PageQueue()
        self._main = PageQueue()
        self._ghosts = Ghosts()
        self._full = False

    def admit(self, node: Node) -> bool:
        """Refuse, the first time, what would sweep the small queue by its size alone."""
        key = digest(node.key)
        if node.size < self.capacity * _SMALL_SHARE or self._ghosts.has(key, len(self) + 1):
            return True
        self._ghosts.add(key, len(self) + 1)
        return False

    def insert(self, node: Node) -> None:
        """Add a node: to the main queue if it left lately, to the small one otherwise.

        Until the tier was full once nobody has been sifted, so the small queue fills to its share
        and the main queue takes the rest.
        """
        sifted = self._small.bytes + node.size > self.capacity * _SMALL_SHARE and not self._full
        returned = self._ghosts.take(digest(node.key), len(self) + 1) is not None
        (self._main if returned or sifted else self._small).append(node, node.hits)

    def adopt(self, node: Node) -> None:
        """Add a node that has been in the tier for a while: to the main queue."""
        self._main.append(node, node.hits)

    def remove(self, node: Node) -> None:
        """Forget a node."""
        node.link.queue.remove(node)

    def forget(self, key: str) -> None:
        """Forget that a key left lately."""
        self._ghosts.drop(digest(key), len(self) + 1)

    def evict(self) -> Node | None:
        """Take out the oldest unused node of the queue that is above its share."""
        self._full = True
        main_share = self.capacity * (1 - _SMALL_SHARE)
        if self._main.bytes > main_share or not self._small.count:
            return self._evict_main()
        return self._evict_small() or self._evict_main()

    def _evict_small(self) -> Node | None:
        for _ in range(min(self._small.count, LOOKS)):
            node, seen = self._small.popleft()
            if node.hits - seen < _HITS_TO_PASS:
                self._ghosts.add(digest(node.key), len(self) + 1)
                return node
            self._main.append(node, node.hits)
        return None

    def _evict_main(self) -> Node | None:
        main = self._main
        for _ in range(4 * LOOKS):
            if not main.count:
                return None
            node, seen = main.popleft()
            rounds = min(node.hits - seen, _MAX_ROUNDS)
            if not rounds:
                return node
            main.append(node, node.hits - rounds + 1)
        return main.popleft()[0]

    def __len__(self) -> int:
        return self._small.count + self._main.count

    def check(self) -> None:
        """Assert that queues and ghosts are sound."""
        for queue in (self._small, self._main):
            queue.check()
            assert all(seen <= node.hits for node, seen in queue)
        self._ghosts.check()
