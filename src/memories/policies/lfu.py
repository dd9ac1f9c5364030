"""LFU: the node with the fewest hits is evicted first; among equals, the least recently used.

Hits never age, so a node that was popular once stays for long.
"""

from __future__ import annotations

from typing import ClassVar

from memories.policies.base import PolicyNode
from memories.policies.ranked_policy import RankedPolicy

_STAMP_BITS = 48


class LfuPolicy(RankedPolicy):
    """Evicts by frequency."""

    name: ClassVar[str] = "lfu"
    patient: ClassVar[bool] = True

    def rank(self, node: PolicyNode) -> float:
        """Return hits and stamp in one number."""
        return (node.hits << _STAMP_BITS) + node.stamp
