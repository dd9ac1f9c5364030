"""Nodes in order of a rank, at about twenty bytes a node besides the rank itself.

Not a policy. A sorted list cut into rungs; a node's `link` is its rung. Ranks only ever have to be
lower bounds: whoever takes the lowest looks whether it has risen meanwhile and puts it back.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, MutableSequence
from itertools import pairwise

from memories.policies.base import Node

RUNG = 128

# One call looks at no more risen nodes than this, so that a million hits between two evictions
# make the order a little less exact instead of stopping the program.
LOOKS = 64


class Rung:
    """Neighbours in a ranking; `ranks` is sorted and parallel to `nodes`. Never empty."""

    __slots__ = ("nodes", "owner", "ranks")

    def __init__(self, owner: Ranking, ranks: MutableSequence[float], nodes: list[Node]) -> None:
        self.owner = owner
        self.ranks = ranks
        self.nodes = nodes
        for node in nodes:
            node.link = self


class Ranking:
    """Nodes sorted by rank; equal ranks in order of arrival.

    Adding at the end costs a microsecond, anywhere else a little more, at any length. With
    `floats` the ranks are packed, which spares the 32 bytes of an object that nobody else holds.
    """

    __slots__ = ("_floats", "_rungs", "_tops", "count")

    def __init__(self, *, floats: bool = False) -> None:
        self._floats = floats
        self._rungs: list[Rung] = []
        self._tops: list[float] = []  # No rank of a rung is higher; sorted.
        self.count = 0

    def add(self, node: Node, rank: float) -> None:
        """Add `node` behind all nodes whose rank is no higher."""
        self.count += 1
        at = bisect_right(self._tops, rank)
        if at == len(self._tops):
            if not at:
                self._rungs.append(Rung(self, self._packed(rank), [node]))
                self._tops.append(rank)
                return
            at -= 1
            self._tops[at] = rank
        rung = self._rungs[at]
        index = bisect_right(rung.ranks, rank)
        rung.ranks.insert(index, rank)
        rung.nodes.insert(index, node)
        node.link = rung
        if len(rung.nodes) > RUNG:
            self._split(at)

    def pop(self) -> tuple[Node, float]:
        """Take out the node of the lowest rank; IndexError if there is none."""
        if not self.count:
            raise IndexError("the ranking is empty")
        return self._take(self._rungs[0], 0)

    def remove(self, node: Node) -> float:
        """Take out `node`, which must be inside, and return its rank."""
        rung: Rung = node.link
        return self._take(rung, rung.nodes.index(node))[1]

    def lowest(self) -> float:
        """Return the lowest rank; IndexError if the ranking is empty."""
        return self._rungs[0].ranks[0]

    def pop_settled(self, rank_of: Callable[[Node], float]) -> tuple[Node, float] | None:
        """Take out the node whose rank is lowest by `rank_of` now, or None when empty.

        Ranks inside must not exceed what `rank_of` says. After `LOOKS` nodes that had risen, the
        lowest of these is taken.
        """
        lowest: tuple[float, Node] | None = None
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

    def _take(self, rung: Rung, index: int) -> tuple[Node, float]:
        node, rank = rung.nodes.pop(index), rung.ranks.pop(index)
        node.link = None
        self.count -= 1
        if not rung.nodes:
            at = self._rungs.index(rung, bisect_left(self._tops, rank))
            del self._rungs[at], self._tops[at]
        return node, rank

    def _split(self, at: int) -> None:
        """Cut a full rung in two; a rung at the end stays nearly full, as ranks mostly grow."""
        rung = self._rungs[at]
        last = at == len(self._rungs) - 1
        cut = RUNG if last else RUNG // 2
        upper = Rung(self, rung.ranks[cut:], rung.nodes[cut:])
        del rung.ranks[cut:], rung.nodes[cut:]
        self._rungs.insert(at + 1, upper)
        self._tops.insert(at, rung.ranks[-1])

    def __iter__(self) -> Iterator[tuple[Node, float]]:
        for rung in self._rungs:
            yield from zip(rung.nodes, rung.ranks, strict=True)

    def check(self) -> None:
        """Assert that ranks are sorted and that links and counts agree."""
        assert self._tops == sorted(self._tops)
        assert len(self._tops) == len(self._rungs)
        for rung, top in zip(self._rungs, self._tops, strict=True):
            assert 0 < len(rung.nodes) == len(rung.ranks) <= RUNG
            assert rung.ranks[-1] <= top
            assert rung.owner is self
            assert all(node.link is rung for node in rung.nodes)
        ranks = [rank for _, rank in self]
        assert all(low <= high for low, high in pairwise(ranks))
        assert len(ranks) == self.count
