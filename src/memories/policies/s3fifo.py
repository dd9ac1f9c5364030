"""S3-FIFO (Yang et al., SOSP 2023): a small FIFO queue S, a main FIFO queue M and a ghost queue G.

https://dl.acm.org/doi/10.1145/3600006.3613147

The paper's steps: (1) a new object goes into S, or into M if its key is in G; (2) an object at the
end of S moves to M if it was accessed more than once, else it is evicted and its key goes into G;
(3) an object at the end of M is reinserted with its frequency reduced by one, or evicted at zero.
Frequencies are capped at 3 (`_MAX_ROUNDS`). One step is ours: `admit`, and the first filling in
`insert`.
"""

from __future__ import annotations

from typing import ClassVar

from memories.policies.base import Policy, PolicyNode
from memories.policies.ghost_table import GhostTable
from memories.policies.hashing import digest
from memories.policies.lazy_priority_queue import LOOKS
from memories.policies.paged_queue import PagedQueue

_SMALL_SHARE = 0.1
_HITS_TO_PASS = 2
_MAX_ROUNDS = 3


class S3FifoPolicy(Policy):
    """Evicts one-hit wonders from the small queue and the rest from the main queue."""

    # Not `patient`: until the small queue is full, where a node goes follows from all nodes that
    # were there when it came, also from those that have left since.
    name: ClassVar[str] = "s3fifo"

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._small = PagedQueue()
        self._main = PagedQueue()
        self._ghosts = GhostTable()
        self._full = False

    def admit(self, node: PolicyNode) -> bool:
        """Refuse, at its first arrival, a node as large as the whole small queue."""
        key = digest(node.key)
        if node.size < self.capacity * _SMALL_SHARE or self._ghosts.has(key, len(self) + 1):
            return True
        self._ghosts.add(key, len(self) + 1)
        return False

    def insert(self, node: PolicyNode) -> None:
        """Add a node: to the main queue if its key is a ghost, else to the small one.

        Before the first eviction the small queue is filled to its share, and the main queue gets
        the nodes that come after.
        """
        filled = self._small.bytes + node.size > self.capacity * _SMALL_SHARE and not self._full
        returned = self._ghosts.take(digest(node.key), len(self) + 1) is not None
        (self._main if returned or filled else self._small).append(node, node.hits)

    def insert_without_access(self, node: PolicyNode) -> None:
        """Add a node whose arrival is not an access to the main queue."""
        self._main.append(node, node.hits)

    def remove(self, node: PolicyNode) -> None:
        """Remove a node."""
        node.link.queue.remove(node)

    def forget(self, key: str) -> None:
        """Delete the ghost of a key."""
        self._ghosts.drop(digest(key), len(self) + 1)

    def skip(self, key: str) -> None:
        """Delete the ghost of a key, which an insertion would have taken."""
        self.forget(key)

    def remembers(self) -> bool:
        """Return whether there were ghosts."""
        return self._ghosts.used

    def evict(self) -> PolicyNode | None:
        """Remove and return the oldest unused node of the queue that is above its share."""
        self._full = True
        main_share = self.capacity * (1 - _SMALL_SHARE)
        if self._main.bytes > main_share or not self._small.count:
            return self._evict_main()
        return self._evict_small() or self._evict_main()

    def _evict_small(self) -> PolicyNode | None:
        for _ in range(min(self._small.count, LOOKS)):
            node, seen = self._small.popleft()
            if node.hits - seen < _HITS_TO_PASS:
                self._ghosts.add(digest(node.key), len(self) + 1)
                return node
            self._main.append(node, node.hits)
        return None

    def _evict_main(self) -> PolicyNode | None:
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
