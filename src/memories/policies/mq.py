"""MQ (Zhou et al., USENIX 2001): a ladder of LRU queues, one for every doubling of the hits.

No fixed frequency: what is not hit for a lifetime comes down a step. Hits are remembered in ghosts
after a node has left, so that a value read rarely but for ever climbs at last.
"""

from __future__ import annotations

from typing import ClassVar

from memories.policies.base import Node, Policy
from memories.policies.ghost_table import Ghosts
from memories.policies.hashing import digest
from memories.policies.lazy_heap import LOOKS, Ranking

_STEPS = 8
_LIFETIME = 4  # Accesses without a hit before a step down, per node.
_GHOST_SPAN = 4  # Ghosts per node.


class MqPolicy(Policy):
    """Evicts the least recent node of the lowest step."""

    name: ClassVar[str] = "mq"

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._steps = [Ranking() for _ in range(_STEPS)]
        self._past: dict[Node, int] = {}  # Hits of earlier stays, of nodes that had any.
        self._ghosts = Ghosts()
        self._now = 0
        self._count = 0

    def insert(self, node: Node) -> None:
        """Add a node at the step that its hits, former ones included, deserve."""
        past = self._ghosts.take(digest(node.key), _GHOST_SPAN * (self._count + 1))
        if past is not None:
            self._past[node] = past + 1
        self._now = max(self._now, node.stamp)
        self._count += 1
        self._place(node)

    def remove(self, node: Node) -> None:
        """Forget a node."""
        self._past.pop(node, None)
        rung = node.link
        rung.owner.remove(node)
        self._count -= 1

    def forget(self, key: str) -> None:
        """Forget the hits of a key that left."""
        self._ghosts.drop(digest(key), _GHOST_SPAN * (self._count + 1))

    def _hits(self, node: Node) -> int:
        return node.hits + self._past.get(node, 0)

    def _place(self, node: Node) -> None:
        step = min((self._hits(node) + 1).bit_length() - 1, _STEPS - 1)
        self._steps[step].add(node, node.stamp)

    def evict(self) -> Node | None:
        """Let one node of each step come down if its time is over, then evict from the lowest."""
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
        """Assert that the steps and the ghosts are sound."""
        for step in self._steps:
            step.check()
        assert self._count == sum(step.count for step in self._steps)
        assert len(self._past) <= self._count
        self._ghosts.check()
