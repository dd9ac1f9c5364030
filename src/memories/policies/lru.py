"""LRU: the node whose latest access lies furthest back leaves first.

No scan resistance: one pass over more data than the tier holds empties it of all else.
"""

from __future__ import annotations

from typing import ClassVar

from memories.policies.base import Node
from memories.policies.ranked_policy import RankedPolicy


class LruPolicy(RankedPolicy):
    """Evicts by recency. Exact, unless hundreds of nodes were hit since the last eviction."""

    name: ClassVar[str] = "lru"

    def rank(self, node: Node) -> float:
        """Return the stamp of the latest access."""
        return node.stamp
