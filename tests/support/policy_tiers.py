"""A tier made of lists, to compare policies with the plainest program that does the same."""

from __future__ import annotations

from memories.testing.policies import PlainNode


class PlainTier:
    """Keeps nodes in a list and finds the victim by looking at all of them."""

    def __init__(self, capacity, victim):
        self.capacity = capacity
        self.victim = victim
        self.nodes = []
        self.evicted = []

    def access(self, key, size, stamp):
        for node in self.nodes:
            if node.key == key:
                node.hit(stamp)
                return
        while sum(node.size for node in self.nodes) + size > self.capacity:
            victim = self.victim(self.nodes)
            self.nodes.remove(victim)
            self.evicted.append(victim.key)
        self.nodes.append(PlainNode(key, size, stamp=stamp))


class PolicyTier:
    """The same with a policy; what it refuses to admit enters all the same."""

    def __init__(self, policy):
        self.policy = policy
        self.nodes = {}
        self.evicted = []

    def access(self, key, size, stamp):
        node = self.nodes.get(key)
        if node is not None:
            node.hit(stamp)
            return
        while sum(node.size for node in self.nodes.values()) + size > self.policy.capacity:
            victim = self.policy.evict()
            del self.nodes[victim.key]
            self.evicted.append(victim.key)
        self.nodes[key] = node = PlainNode(key, size, stamp=stamp)
        self.policy.insert(node)
