"""GDSF (Cherkasova 1998): hits times cost over size, on top of an age that rises with evictions.

Not for tiers whose bytes matter more than their requests: it prefers small values. The age that
held at a node's latest hit is looked up by its stamp, so that a hit needs to tell nothing.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from typing import ClassVar

from memories.policies.base import Node
from memories.policies.ghost_table import Ghosts
from memories.policies.hashing import digest
from memories.policies.ranked_policy import RankedPolicy

_MARKS = 4096  # Ages remembered; every other one is dropped when there are more.
_SPREAD = 2.0**-40  # Far below any difference in worth, yet above the noise of floats.
_VICTIMS = 64  # No newcomer is compared with more nodes than this.


def same_cost(size: int) -> float:
    """Return 1: a miss is a miss, whatever its size."""
    del size
    return 1.0


class GdsfPolicy(RankedPolicy):
    """Evicts by hits, size and the cost of fetching again.

    Args:
        capacity: Bytes of the tier.
        cost: What a miss of so many bytes costs, in any unit; the same for all unless given.
        newcomer: What a node is worth before its first hit, as a share of what a hit is worth. 1 is
            the published policy; less makes newcomers prove themselves, unless they left lately.
    """

    name: ClassVar[str] = "gdsf"
    floats: ClassVar[bool] = True

    def __init__(
        self,
        capacity: int,
        *,
        cost: Callable[[int], float] = same_cost,
        newcomer: float = 1.0,
    ) -> None:
        super().__init__(capacity)
        self._cost = cost
        self._newcomer = newcomer
        self._remembers = newcomer != 1
        self._ghosts = Ghosts()
        self._returned: set[Node] = set()  # Nodes inside that had left lately.
        self._age = 0.0
        self._bytes = 0
        self._stamps = [0]  # From this stamp on ...
        self._ages = [0.0]  # ... the age was this.

    def rank(self, node: Node) -> float:
        """Return the node's worth as of its latest hit.

        Nodes of equal worth are told apart by their keys, in an order of no meaning: by arrival, a
        loop a little larger than the tier would always evict what it needs next.
        """
        age = self._ages[max(bisect_right(self._stamps, node.stamp) - 1, 0)]
        return age + self._worth(node, returned=node in self._returned)

    def _worth(self, node: Node, *, returned: bool) -> float:
        proven = node.hits or returned or not self._remembers
        hits = node.hits + 1 if proven else self._newcomer
        spread = 1 + (digest(node.key) & 0xFFFF) * _SPREAD
        return hits * self._cost(node.size) / node.size * spread

    def admit(self, node: Node) -> bool:
        """Refuse a node worth less than any that would leave for it; the age rises all the same."""
        bits = digest(node.key)
        returned = self._remembers and self._ghosts.has(bits, len(self) + 1)
        worth = self._age + self._worth(node, returned=returned)
        if self._outranks_victims(node.size, worth):
            return True
        self._age = worth
        self._remember(node)
        return False

    def _remember(self, node: Node) -> None:
        if self._remembers:
            self._ghosts.add(digest(node.key), len(self) + 1)

    def _outranks_victims(self, size: int, worth: float) -> bool:
        room = self.capacity - self._bytes
        victims: list[tuple[Node, float]] = []
        while room < size and len(self) and len(victims) < _VICTIMS:
            victim = self._ranking.pop_settled(self.rank)
            if victim is None:
                break
            victims.append(victim)
            room += victim[0].size
            if victim[1] > worth:
                break
        for victim in victims:
            self._ranking.add(*victim)
        return not victims or victims[-1][1] <= worth

    def insert(self, node: Node) -> None:
        """Add a node; what it is worth builds on the age as of now."""
        if self._remembers and self._ghosts.take(digest(node.key), len(self) + 1) is not None:
            self._returned.add(node)
        self._mark(node.stamp)
        self._bytes += node.size
        super().insert(node)

    def remove(self, node: Node) -> None:
        """Forget a node."""
        self._bytes -= node.size
        self._returned.discard(node)
        super().remove(node)

    def forget(self, key: str) -> None:
        """Forget that a key left lately."""
        self._ghosts.drop(digest(key), len(self) + 1)

    def evict(self) -> Node | None:
        """Take out the node of the least worth; its worth is the new age."""
        found = self._ranking.pop_settled(self.rank)
        if found is None:
            return None
        node, rank = found
        self._bytes -= node.size
        self._returned.discard(node)
        self._remember(node)
        self._age = max(self._age, rank)
        return node

    def _mark(self, stamp: int) -> None:
        """Remember that the age has its present value from `stamp` on."""
        if self._age == self._ages[-1] or stamp <= self._stamps[-1]:
            return
        self._stamps.append(stamp)
        self._ages.append(self._age)
        if len(self._stamps) > _MARKS:
            # Older marks cover longer spans: a node then gets the age of a little earlier.
            del self._stamps[1:_MARKS:2], self._ages[1:_MARKS:2]

    def adopt(self, node: Node) -> None:
        """Add a node that was in the tier before; its stamp must not date the age."""
        self._bytes += node.size
        super().insert(node)

    def check(self) -> None:
        """Assert that ages and stamps rise together."""
        assert self._stamps == sorted(self._stamps)
        assert self._ages == sorted(self._ages)
        assert self._ages[-1] <= self._age
        assert all(node.link is not None for node in self._returned)
        self._ghosts.check()
        assert self._bytes == sum(node.size for node, _ in self._ranking)
        self._ranking.check()
