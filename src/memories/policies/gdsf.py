"""GDSF (Cherkasova, HPL-98-69, 1998): rank = age + hits * cost / size; the lowest rank is evicted.

https://www.hpl.hp.com/techreports/98/HPL-98-69R1.pdf

The paper's names: Pr(f) = Clock + Fr(f) * Cost(f) / Size(f), where `Clock` is `_age` here, and is
set to the priority of the evicted file. The clock that held at a node's latest hit is looked up by
the stamp of that hit, so that a hit calls no method. The policy prefers small values: it maximises
the hit rate, not the byte hit rate.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from typing import ClassVar

from memories.policies.base import PolicyNode
from memories.policies.ghost_table import GhostTable
from memories.policies.hashing import digest
from memories.policies.ranked_policy import RankedPolicy

_MARKS = 4096  # Ages remembered; every other one is dropped when there are more.
_SPREAD = 2.0**-40  # Far below any difference in priority, yet above the rounding of floats.
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
        newcomer: How many hits a node without a hit counts as. 1 is the published policy; less
            evicts new nodes sooner, except those that were evicted recently and came back.
    """

    name: ClassVar[str] = "gdsf"
    patient: ClassVar[bool] = True
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
        self._ghosts = GhostTable()
        self._returned: set[PolicyNode] = set()  # Nodes inside whose key was a ghost.
        self._age = 0.0
        self._bytes = 0
        self._stamps = [0]  # From this stamp on ...
        self._ages = [0.0]  # ... the age was this.

    def rank(self, node: PolicyNode) -> float:
        """Return the node's priority as of its latest hit.

        Nodes of equal priority are ordered by the hashes of their keys. In order of arrival, a loop
        over a little more than the tier holds would always evict the value that it needs next.
        """
        age = self._ages[max(bisect_right(self._stamps, node.stamp) - 1, 0)]
        return age + self._priority(node, returned=node in self._returned)

    def _priority(self, node: PolicyNode, *, returned: bool) -> float:
        proven = node.hits or returned or not self._remembers
        hits = node.hits + 1 if proven else self._newcomer
        spread = 1 + (digest(node.key) & 0xFFFF) * _SPREAD
        return hits * self._cost(node.size) / node.size * spread

    def admit(self, node: PolicyNode) -> bool:
        """Refuse a node whose priority is below that of each victim; the age rises all the same."""
        bits = digest(node.key)
        returned = self._remembers and self._ghosts.has(bits, len(self) + 1)
        priority = self._age + self._priority(node, returned=returned)
        if self._outranks_victims(node.size, priority):
            return True
        self._age = priority
        self._remember(node)
        return False

    def _remember(self, node: PolicyNode) -> None:
        if self._remembers:
            self._ghosts.add(digest(node.key), len(self) + 1)

    def _outranks_victims(self, size: int, priority: float) -> bool:
        room = self.capacity - self._bytes
        victims: list[tuple[PolicyNode, float]] = []
        while room < size and len(self) and len(victims) < _VICTIMS:
            victim = self._queue.pop_lowest(self.rank)
            if victim is None:
                break
            victims.append(victim)
            room += victim[0].size
            if victim[1] > priority:
                break
        for victim in victims:
            self._queue.add(*victim)
        return not victims or victims[-1][1] <= priority

    def insert(self, node: PolicyNode) -> None:
        """Add a node; its priority builds on the present age."""
        if self._remembers and self._ghosts.take(digest(node.key), len(self) + 1) is not None:
            self._returned.add(node)
        self._mark(node.stamp)
        self._bytes += node.size
        super().insert(node)

    def remove(self, node: PolicyNode) -> None:
        """Remove a node."""
        self._bytes -= node.size
        self._returned.discard(node)
        super().remove(node)

    def forget(self, key: str) -> None:
        """Delete the ghost of a key."""
        if self._ghosts.used:
            self._ghosts.drop(digest(key), len(self) + 1)

    def skip(self, key: str) -> None:
        """Delete the ghost of a key, which an insertion would have taken."""
        self.forget(key)

    def remembers(self) -> bool:
        """Return whether there were ghosts."""
        return self._ghosts.used

    def evict(self) -> PolicyNode | None:
        """Remove and return the node of the lowest priority, which becomes the new age."""
        found = self._queue.pop_lowest(self.rank)
        if found is None:
            return None
        node, rank = found
        self._bytes -= node.size
        self._returned.discard(node)
        self._remember(node)
        self._age = max(self._age, rank)
        return node

    def _mark(self, stamp: int) -> None:
        """Record that the age has its present value from `stamp` on."""
        if self._age == self._ages[-1] or stamp <= self._stamps[-1]:
            return
        self._stamps.append(stamp)
        self._ages.append(self._age)
        if len(self._stamps) > _MARKS:
            # Older marks cover longer spans: a node then gets the age of a little earlier.
            del self._stamps[1:_MARKS:2], self._ages[1:_MARKS:2]

    def insert_without_access(self, node: PolicyNode) -> None:
        """Add a node whose arrival is not an access; no age is recorded for its stamp."""
        self._bytes += node.size
        super().insert(node)

    def check(self) -> None:
        """Assert that ages and stamps rise together."""
        assert self._stamps == sorted(self._stamps)
        assert self._ages == sorted(self._ages)
        assert self._ages[-1] <= self._age
        assert all(node.link is not None for node in self._returned)
        self._ghosts.check()
        assert self._bytes == sum(node.size for node, _ in self._queue)
        self._queue.check()
