"""The conformance suite that every eviction policy must pass; it does not judge the hit rate.

Subclass `PolicyTests` and implement `make_policy`; pytest runs the tests. The seeds are fixed, so
that a failure can be repeated.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from typing import Any

from memories.policies.base import Policy


class PlainNode:
    """A minimal policy node: a key, a size, `hits`, `stamp` and a link."""

    __slots__ = ("__weakref__", "hits", "key", "link", "size", "stamp")

    def __init__(self, key: str, size: int = 1, *, stamp: int = 0, hits: int = 0) -> None:
        self.key = key
        self.size = size
        self.stamp = stamp
        self.hits = hits
        self.link: Any = None

    def hit(self, stamp: int) -> None:
        """Record an access, as the engine does."""
        self.hits += 1
        self.stamp = stamp


class PolicyTests(ABC):
    """The contract between a `Policy` and the engine."""

    @abstractmethod
    def make_policy(self, capacity: int) -> Policy:
        """Return a new, empty policy for a tier of `capacity` bytes."""

    def fill(self, policy: Policy, count: int) -> list[PlainNode]:
        """Insert `count` nodes of one byte, the stamps rising from 1."""
        nodes = [PlainNode(f"key/{number}", stamp=number + 1) for number in range(count)]
        for node in nodes:
            policy.insert(node)
        return nodes

    def test_an_empty_policy_has_no_victim(self) -> None:
        """The engine evicts until there is enough space; it must see that no victim is left."""
        policy = self.make_policy(10)
        assert len(policy) == 0
        assert policy.evict() is None
        policy.check()

    def test_every_node_leaves_exactly_once(self) -> None:
        """A node evicted twice frees its bytes twice; one never evicted blocks its bytes."""
        policy = self.make_policy(1000)
        nodes = self.fill(policy, 1000)
        assert len(policy) == 1000
        victims = [policy.evict() for _ in nodes]
        assert {id(node) for node in nodes} == {id(victim) for victim in victims}
        assert policy.evict() is None
        assert len(policy) == 0
        policy.check()

    def test_a_removed_node_is_never_a_victim(self) -> None:
        """It may be deleted, pinned, or in another tier."""
        policy = self.make_policy(300)
        nodes = self.fill(policy, 300)
        for node in nodes[::3]:
            policy.remove(node)
            policy.check()
        victims = {id(policy.evict()) for _ in range(len(policy))}
        assert victims == {id(node) for at, node in enumerate(nodes) if at % 3}

    def test_the_link_tells_whether_a_node_is_inside(self) -> None:
        """The engine checks the link instead of keeping a set beside a million nodes."""
        policy = self.make_policy(100)
        nodes = self.fill(policy, 100)
        assert all(node.link is not None for node in nodes)
        policy.remove(nodes[7])
        assert nodes[7].link is None
        victim = policy.evict()
        assert victim is not None
        assert victim.link is None

    def test_a_removed_node_can_come_back(self) -> None:
        """Unpinning and promotion insert the same entry again."""
        policy = self.make_policy(10)
        (node,) = self.fill(policy, 1)
        policy.remove(node)
        node.stamp = 2
        policy.insert(node)
        assert policy.evict() is node

    def test_a_node_that_left_is_not_kept_alive(self) -> None:
        """The entry refers to the payload: a policy that keeps it would keep gigabytes."""
        import gc
        import weakref

        policy = self.make_policy(100)
        nodes = self.fill(policy, 100)
        ghosts = [weakref.ref(node) for node in nodes]
        for node in nodes[:50]:
            policy.remove(node)
        for _ in range(50):
            policy.evict()
        del nodes, node
        gc.collect()
        assert [ghost() for ghost in ghosts] == [None] * 100

    def test_hits_need_not_be_reported(self) -> None:
        """A hit changes the node without a call; any `hits` and `stamp` must be accepted."""
        policy = self.make_policy(200)
        nodes = self.fill(policy, 200)
        stamp = 200
        for _ in range(20):
            for node in nodes:
                stamp += 1
                node.hit(stamp)
            policy.check()
        assert all(policy.evict() is not None for _ in nodes)

    def test_a_million_hits_do_not_stop_an_eviction(self) -> None:
        """Work per eviction is bounded, even when every node was hit since the last one."""
        import time

        policy = self.make_policy(20_000)
        nodes = self.fill(policy, 20_000)
        for node in nodes:
            node.hit(node.stamp + 20_000)
        start = time.thread_time()
        policy.evict()
        # A full pass over the nodes takes several times as long, on any machine.
        yardstick = time.thread_time()
        for node in nodes:
            policy.remove(node) if node.link is not None else None
        assert yardstick - start < time.thread_time() - yardstick

    def test_a_node_inserted_without_access_is_inside(self) -> None:
        """When the policy changes, the new one gets the nodes of the old one."""
        policy = self.make_policy(10)
        node = PlainNode("key", stamp=5, hits=3)
        policy.insert_without_access(node)
        policy.check()
        assert policy.evict() is node

    def test_admission_answers_without_taking_the_node(self) -> None:
        """A refused node must not be inside, and an accepted one is inserted by the caller."""
        policy = self.make_policy(10)
        self.fill(policy, 10)
        assert isinstance(policy.admit(PlainNode("new", 5, stamp=11)), bool)
        assert len(policy) == 10
        policy.check()

    def test_a_refused_node_gets_in_if_it_keeps_coming(self) -> None:
        """A policy that refused a node for ever would freeze the contents of the tier."""
        policy = self.make_policy(10)
        for node in self.fill(policy, 10):
            node.hit(20)
        assert any(policy.admit(PlainNode("new", 5, stamp=21 + t)) for t in range(1000))

    def test_random_use_keeps_every_invariant(self) -> None:
        """Sizes, hits, removals, evictions, resizes and returns in any order."""
        for seed in range(20):
            _Replay(self.make_policy(400), seed).run()


class _Replay:
    """A small tier with a policy, under random operations, checked after each of them."""

    def __init__(self, policy: Policy, seed: int) -> None:
        self.policy = policy
        self.random = random.Random(seed)
        self.inside: dict[str, PlainNode] = {}
        self.used = 0
        self.stamp = 0

    def run(self) -> None:
        for step in range(400):
            self.stamp += 1
            self.access(f"key/{min(self.random.randrange(80), self.random.randrange(80))}")
            if self.random.random() < 0.1:
                self.remove_one()
            if self.random.random() < 0.02:
                self.policy.resize(self.random.randrange(100, 400))
            if step % 10 == 0:
                self.policy.check()
            assert len(self.policy) == len(self.inside)

    def access(self, key: str) -> None:
        if self.policy.samples(key):
            self.policy.observe([(key, 1)])
        node = self.inside.get(key)
        if node is not None:
            node.hit(self.stamp)
            return
        node = PlainNode(key, self.random.randrange(1, 60), stamp=self.stamp)
        if self.used + node.size > self.policy.capacity and not self.policy.admit(node):
            return
        while self.inside and self.used + node.size > self.policy.capacity:
            victim = self.policy.evict()
            assert victim is not None
            assert self.inside.pop(victim.key) is victim
            self.used -= victim.size
        self.inside[key] = node
        self.used += node.size
        self.policy.insert(node)

    def remove_one(self) -> None:
        if self.inside:
            node = self.inside.pop(self.random.choice(sorted(self.inside)))
            self.policy.remove(node)
            self.used -= node.size
