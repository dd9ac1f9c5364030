"""MQ (Zhou, Philbin and Li, USENIX 2001): LRU queues Q0 to Q7, one for each doubling of the hits.

https://www.usenix.org/legacy/event/usenix01/full_papers/zhou/zhou.pdf

The paper's names: `m` queues (`_STEPS`), QueueNum(f) = log2(f), `lifeTime` (`_LIFETIME` accesses
per node) after which a node without a hit moves down one queue, and `Qout`, the history of evicted
keys with their hit counts (a ghost table here).
"""

from __future__ import annotations

from typing import ClassVar

from memories.policies.base import Policy, PolicyNode
from memories.policies.ghost_table import GhostTable
from memories.policies.hashing import digest
from memories.policies.lazy_priority_queue import LOOKS, LazyPriorityQueue

_STEPS = 8
_LIFETIME = 4  # Accesses without a hit before a step down, per node.
_GHOST_SPAN = 4  # Ghosts per node.


class MqPolicy(Policy):
    """Evicts the least recently used node of the lowest queue that is not empty."""

    name: ClassVar[str] = "mq"
    patient: ClassVar[bool] = True

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._steps = [LazyPriorityQueue() for _ in range(_STEPS)]
        self._past: dict[PolicyNode, int] = {}  # Hits of earlier stays, of nodes that had any.
        self._ghosts = GhostTable()
        self._now = 0
        self._count = 0

    def insert(self, node: PolicyNode) -> None:
        """Add a node to the queue for its hits, those of earlier stays included."""
        past = self._ghosts.take(digest(node.key), _GHOST_SPAN * (self._count + 1))
        if past is not None:
            self._past[node] = past + 1
        self._now = max(self._now, node.stamp)
        self._count += 1
        self._place(node)

    def remove(self, node: PolicyNode) -> None:
        """Remove a node."""
        self._past.pop(node, None)
        sublist = node.link
        sublist.owner.remove(node)
        self._count -= 1

    def forget(self, key: str) -> None:
        """Delete the ghost of a key, and the hits counted with it."""
        self._ghosts.drop(digest(key), _GHOST_SPAN * (self._count + 1))

    def skip(self, key: str) -> None:
        """Delete the ghost of a key, which an insertion would have taken."""
        self.forget(key)

    def remembers(self) -> bool:
        """Return whether there were ghosts."""
        return self._ghosts.used

    def _hits(self, node: PolicyNode) -> int:
        return node.hits + self._past.get(node, 0)

    def _place(self, node: PolicyNode) -> None:
        step = min((self._hits(node) + 1).bit_length() - 1, _STEPS - 1)
        self._steps[step].add(node, node.stamp)

    def evict(self) -> PolicyNode | None:
        """Move expired nodes down, at most one of each queue, then evict from the lowest queue."""
        self._age()
        for _ in range(LOOKS):
            step = next((step for step in self._steps if step.count), None)
            if step is None:
                return None
            node, rank = step.pop()
            if node.stamp <= rank:
                break
            self._place(node)
        else:
            node, _ = next(step for step in self._steps if step.count).pop()
        self._count -= 1
        hits = min(self._hits(node), 255)
        self._past.pop(node, None)
        self._ghosts.add(digest(node.key), _GHOST_SPAN * (self._count + 1), hits)
        return node

    def _age(self) -> None:
        lifetime = _LIFETIME * self._count
        for above, below in zip(self._steps[1:], self._steps, strict=False):
            if above.count and above.lowest() + lifetime < self._now:
                node, rank = above.pop()
                if node.stamp > rank:
                    self._place(node)
                else:
                    below.add(node, self._now)

    def __len__(self) -> int:
        return self._count

    def check(self) -> None:
        """Assert that the queues and the ghosts are sound."""
        for step in self._steps:
            step.check()
        assert self._count == sum(step.count for step in self._steps)
        assert len(self._past) <= self._count
        self._ghosts.check()
