"""A miniature simulation of one policy: it holds keys and sizes, but no values.

It gets a sample of the accesses and the same share of the capacity, so that its miss ratio
estimates that of the policy at full size (Waldspurger et al., "Cache Modeling and Optimization
using Miniature Simulations", USENIX ATC 2017).
"""

from __future__ import annotations

from typing import Any

from memories.policies.base import Policy


class ShadowNode:
    """A key that a shadow cache holds."""

    __slots__ = ("digest", "hits", "key", "link", "size", "stamp")

    def __init__(self, key: str, digest: int, size: int, stamp: int) -> None:
        self.key = key
        self.digest = digest
        self.size = size
        self.hits = 0
        self.stamp = stamp
        self.link: Any = None


class ShadowCache:
    """Replays sampled accesses against one policy."""

    __slots__ = ("_bytes", "_nodes", "policy")

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._nodes: dict[int, ShadowNode] = {}
        self._bytes = 0

    def access(self, key: str, digest: int, size: int, stamp: int) -> bool:
        """Return whether this is a hit; a miss inserts the key, if it is admitted."""
        node = self._nodes.get(digest)
        if node is not None:
            node.hits += 1
            node.stamp = stamp
            return True
        self._enter(ShadowNode(key, digest, size, stamp))
        return False

    def _enter(self, node: ShadowNode) -> None:
        capacity = self.policy.capacity
        if node.size > capacity:
            return
        if self._bytes + node.size > capacity:
            if not self.policy.admit(node):
                return
            self._shrink(capacity - node.size)
        self._nodes[node.digest] = node
        self._bytes += node.size
        self.policy.insert(node)

    def forget(self, key: str, digest: int) -> None:
        """Delete a key that was removed from all tiers."""
        node = self._nodes.pop(digest, None)
        if node is not None:
            self._bytes -= node.size
            self.policy.remove(node)
        self.policy.forget(key)

    def _shrink(self, size: int) -> None:
        while self._bytes > size and (victim := self.policy.evict()) is not None:
            assert isinstance(victim, ShadowNode)
            self._bytes -= victim.size
            del self._nodes[victim.digest]

    def resize(self, capacity: int, below: int) -> None:
        """Change the capacity, and drop the keys whose digest is not below `below`."""
        for node in [node for digest, node in self._nodes.items() if digest >= below]:
            self.policy.remove(node)
            del self._nodes[node.digest]
            self._bytes -= node.size
        self.policy.resize(capacity)
        self._shrink(capacity)

    def __len__(self) -> int:
        return len(self._nodes)

    def check(self) -> None:
        """Assert that keys, bytes and the policy agree and that the capacity is kept."""
        self.policy.check()
        assert len(self.policy) == len(self._nodes)
        assert self._bytes == sum(node.size for node in self._nodes.values())
        assert self._bytes <= self.policy.capacity
