"""What LRU, LFU and GDSF share: the node of the lowest rank leaves, ranks being read when asked.

Not a policy by itself. A rank may only rise by a hit, so the rank known is a lower bound, and the
node at the bottom is brought up to date before it is believed.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from memories.policies.base import Node, Policy
from memories.policies.lazy_heap import Ranking


class RankedPolicy(Policy):
    """Evicts the node for which `rank` is lowest."""

    floats: ClassVar[bool] = False  # Whether ranks are floats, and not integers of any size.

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._ranking = Ranking(floats=self.floats)

    @abstractmethod
    def rank(self, node: Node) -> float:
        """Return how much `node` is worth as of now; MUST NOT fall while it is inside."""

    def insert(self, node: Node) -> None:
        """Add a node at its rank."""
        self._ranking.add(node, self.rank(node))

    def remove(self, node: Node) -> None:
        """Forget a node."""
        self._ranking.remove(node)

    def evict(self) -> Node | None:
        """Take out the node of the lowest rank."""
        found = self._ranking.pop_settled(self.rank)
        return None if found is None else found[0]

    def __len__(self) -> int:
        return self._ranking.count

    def check(self) -> None:
        """Assert that the ranking is sound and that no rank has fallen."""
        self._ranking.check()
        assert all(rank <= self.rank(node) for node, rank in self._ranking)
