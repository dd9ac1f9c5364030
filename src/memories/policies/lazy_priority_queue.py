"""A priority queue of nodes whose stored ranks are lower bounds of the present ones.

It is a sorted list that is cut into sublists, at about twenty bytes per node besides the rank; the
`link` of a node is its sublist. `pop_lowest` computes the rank of the first node again, and
reinserts the node if its rank has risen.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, MutableSequence
from itertools import pairwise

from memories.policies.base import PolicyNode

SUBLIST = 128

# One call looks at no more risen nodes than this, so that a million hits between two evictions
# make the order a little less exact instead of stopping the program.
LOOKS = 64


class Sublist:
    """Neighbours in the queue; `ranks` is sorted and parallel to `nodes`. Never empty."""

    __slots__ = ("nodes", "owner", "ranks")

    def __init__(
        self, owner: LazyPriorityQueue, ranks: MutableSequence[float], nodes: list[PolicyNode]
    ) -> None:
        self.owner = owner
        self.ranks = ranks
        self.nodes = nodes
        for node in nodes:
            node.link = self


class LazyPriorityQueue:
    """Nodes sorted by rank; equal ranks in order of arrival.

    Adding at the end costs a microsecond, anywhere else a little more, at any length. With
    `floats` the ranks are packed into arrays, which saves the 32 bytes of a float object.
    """

    __slots__ = ("_floats", "_sublists", "_tops", "count")

    def __init__(self, *, floats: bool = False) -> None:
        self._floats = floats
        self._sublists: list[Sublist] = []
        self._tops: list[float] = []  # No rank of a sublist is higher; sorted.
        self.count = 0

    def add(self, node: PolicyNode, rank: float) -> None:
        """Add `node` behind all nodes whose rank is lower or equal."""
        self.count += 1
        at = bisect_right(self._tops, rank)
        if at == len(self._tops):
            if not at:
                self._sublists.append(Sublist(self, self._packed(rank), [node]))
                self._tops.append(rank)
                return
            at -= 1
            self._tops[at] = rank
        sublist = self._sublists[at]
        index = bisect_right(sublist.ranks, rank)
        sublist.ranks.insert(index, rank)
        sublist.nodes.insert(index, node)
        node.link = sublist
        if len(sublist.nodes) > SUBLIST:
            self._split(at)

    def pop(self) -> tuple[PolicyNode, float]:
        """Remove the node with the lowest stored rank, and return both; IndexError when empty."""
        if not self.count:
            raise IndexError("the queue is empty")
        return self._take(self._sublists[0], 0)

    def remove(self, node: PolicyNode) -> float:
        """Remove `node`, which must be inside, and return its stored rank."""
        sublist: Sublist = node.link
        return self._take(sublist, sublist.nodes.index(node))[1]

    def lowest(self) -> float:
        """Return the lowest stored rank; IndexError if the queue is empty."""
        return self._sublists[0].ranks[0]

    def pop_lowest(self, rank_of: Callable[[PolicyNode], float]) -> tuple[PolicyNode, float] | None:
        """Remove the node with the lowest present rank, and return both; None when empty.

        A stored rank must not exceed what `rank_of` returns. After `LOOKS` nodes whose rank had
        risen, the lowest of these is removed.
        """
        lowest: tuple[float, PolicyNode] | None = None
        for _ in range(min(self.count, LOOKS)):
            node, old = self.pop()
            rank = rank_of(node)
            if rank <= old:
                return node, old
            self.add(node, rank)
            if lowest is None or rank < lowest[0]:
                lowest = rank, node
        if lowest is None:
            return None
        rank, node = lowest
        self.remove(node)
        return node, rank

    def _packed(self, rank: float) -> MutableSequence[float]:
        return array("d", (rank,)) if self._floats else [rank]

    def _take(self, sublist: Sublist, index: int) -> tuple[PolicyNode, float]:
        node, rank = sublist.nodes.pop(index), sublist.ranks.pop(index)
        node.link = None
        self.count -= 1
        if not sublist.nodes:
            at = self._sublists.index(sublist, bisect_left(self._tops, rank))
            del self._sublists[at], self._tops[at]
        return node, rank

    def _split(self, at: int) -> None:
        """Cut a full sublist in two; the last one stays nearly full, since most ranks grow."""
        sublist = self._sublists[at]
        last = at == len(self._sublists) - 1
        cut = SUBLIST if last else SUBLIST // 2
        upper = Sublist(self, sublist.ranks[cut:], sublist.nodes[cut:])
        del sublist.ranks[cut:], sublist.nodes[cut:]
        self._sublists.insert(at + 1, upper)
        self._tops.insert(at, sublist.ranks[-1])

    def __iter__(self) -> Iterator[tuple[PolicyNode, float]]:
        for sublist in self._sublists:
            yield from zip(sublist.nodes, sublist.ranks, strict=True)

    def check(self) -> None:
        """Assert that ranks are sorted and that links and counts agree."""
        assert self._tops == sorted(self._tops)
        assert len(self._tops) == len(self._sublists)
        for sublist, top in zip(self._sublists, self._tops, strict=True):
            assert 0 < len(sublist.nodes) == len(sublist.ranks) <= SUBLIST
            assert sublist.ranks[-1] <= top
            assert sublist.owner is self
            assert all(node.link is sublist for node in sublist.nodes)
        ranks = [rank for _, rank in self]
        assert all(low <= high for low, high in pairwise(ranks))
        assert len(ranks) == self.count
