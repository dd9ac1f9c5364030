"""LFU: the node with the fewest hits leaves first, of equals the one unused for longest.

Its past weighs as much as its present: what was popular once stays for long.
"""

from __future__ import annotations

from typing import ClassVar

from memories.policies.base import Node
from memories.policies.ranked_policy import RankedPolicy

_STAMP_BITS = 48


class LfuPolicy(RankedPolicy):
    """Evicts by frequency."""

    name: ClassVar[str] = "lfu"

    def rank(self, node: Node) -> float:
        """Return hits and stamp in one number."""
        return (node.hits << _STAMP_BITS) + node.stamp
