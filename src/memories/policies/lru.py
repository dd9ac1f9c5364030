"""LRU: the node with the oldest latest access is evicted first.

It has no scan resistance: one pass over more data than the tier holds evicts everything else.
"""

from __future__ import annotations

from typing import ClassVar

from memories.policies.base import PolicyNode
from memories.policies.ranked_policy import RankedPolicy


class LruPolicy(RankedPolicy):
    """Evicts by recency. Exact, unless hundreds of nodes were hit since the last eviction."""

    name: ClassVar[str] = "lru"
    patient: ClassVar[bool] = True

    def rank(self, node: PolicyNode) -> float:
        """Return the stamp of the latest access."""
        return node.stamp
