from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.policy_tiers import PlainTier, PolicyTier

from memories import policies
from memories.testing.policies import PlainNode

ACCESSES = st.lists(st.tuples(st.integers(0, 25), st.integers(1, 40)), max_size=300)
CAPACITY = 100


def oldest(nodes):
    return nodes[0]


def least_recent(nodes):
    return min(nodes, key=lambda node: node.stamp)


def least_frequent(nodes):
    return min(nodes, key=lambda node: (node.hits, node.stamp))


class Sieve:
    """The published algorithm, word by word, on a list whose end is the newest node."""

    def __init__(self):
        self.at = 0
        self.seen = {}

    def __call__(self, nodes):
        while True:
            if self.at >= len(nodes):
                self.at = 0
            node = nodes[self.at]
            if node.hits == self.seen.get(node.key, (None, 0))[1]:
                self.seen.pop(node.key, None)
                return node
            self.seen[node.key] = (node, node.hits)
            self.at += 1


@pytest.mark.parametrize(
    ("name", "victim"),
    [("fifo", oldest), ("lru", least_recent), ("lfu", least_frequent), ("sieve", Sieve)],
)
@given(accesses=ACCESSES)
def test_a_lazy_policy_evicts_exactly_what_an_eager_one_would(name, victim, accesses):
    """Looking at the marks only when asked must not change a single decision."""
    plain = PlainTier(CAPACITY, victim() if victim is Sieve else victim)
    tier = PolicyTier(policies.make(name, CAPACITY))
    sizes = {}
    for stamp, (number, size) in enumerate(accesses, 1):
        key = f"key/{number}"
        size = sizes.setdefault(key, size)
        plain.access(key, size, stamp)
        tier.access(key, size, stamp)
        assert plain.evicted == tier.evicted
    tier.policy.check()


@pytest.mark.parametrize("seed", range(5))
def test_sieve_forgets_the_hits_it_has_passed_over(seed):
    """A node hit once must not be spared for ever."""
    source = random.Random(seed)
    plain, tier = PlainTier(20, Sieve()), PolicyTier(policies.make("sieve", 20))
    for stamp in range(1, 1500):
        key = f"key/{min(source.randrange(60), source.randrange(60))}"
        plain.access(key, 1, stamp)
        tier.access(key, 1, stamp)
    assert plain.evicted == tier.evicted


@given(accesses=ACCESSES)
def test_gdsf_ranks_by_the_age_at_the_latest_hit(accesses):
    """The age is looked up by stamp long after the hit, and must be the one that held then."""
    age = [0.0]
    worth = {}

    def least_worth(nodes):
        victim = min(nodes, key=lambda node: (worth[node.key], 0))
        age[0] = max(age[0], worth[victim.key])
        return victim

    plain = PlainTier(CAPACITY, least_worth)
    tier = PolicyTier(policies.make("gdsf", CAPACITY))
    sizes = {}
    for stamp, (number, size) in enumerate(accesses, 1):
        key = f"key/{number}"
        size = sizes.setdefault(key, size)
        tier.access(key, size, stamp)
        plain.access(key, size, stamp)
        node = next(node for node in plain.nodes if node.key == key)
        worth[key] = age[0] + (node.hits + 1) / size
        # Equal worth may be decided either way, and then the two go different ways.
        if plain.evicted != tier.evicted:
            differing = zip(plain.evicted, tier.evicted, strict=True)
            ours, theirs = next((a, b) for a, b in differing if a != b)
            assert worth[ours] == pytest.approx(worth[theirs])
            return
    tier.policy.check()


def test_s3fifo_lets_a_scan_pass_by():
    """One pass over cold data must not empty the tier of what is in use."""
    tier = PolicyTier(policies.make("s3fifo", 1000))
    stamp = 0
    for _ in range(5):
        for number in range(500):
            stamp += 1
            tier.access(f"hot/{number}", 1, stamp)
    for number in range(5000):
        stamp += 1
        tier.access(f"scan/{number}", 1, stamp)
    assert sum(key.startswith("hot/") for key in tier.nodes) > 450


def test_s3fifo_knows_what_left_lately():
    """A key that comes back soon after it left belongs to the main queue."""
    policy = policies.make("s3fifo", 100)
    tier = PolicyTier(policy)
    for stamp in range(1, 160):
        tier.access(f"key/{stamp}", 1, stamp)
    returning = tier.evicted[-1]
    before = policy._main.count
    tier.access(returning, 1, 200)
    assert before + 1 == policy._main.count


def test_s3fifo_refuses_the_first_time_what_is_larger_than_its_small_queue():
    """One huge value read once would push out a tenth of the tier."""
    policy = policies.make("s3fifo", 100)
    tier = PolicyTier(policy)
    for stamp in range(1, 101):
        tier.access(f"key/{stamp}", 1, stamp)
    huge = PlainNode("huge", 40, stamp=200)
    assert [False, True] == [policy.admit(huge), policy.admit(huge)]


def test_mq_remembers_hits_of_former_stays():
    """A value read rarely but for ever must climb above those read once."""
    tier = PolicyTier(policies.make("mq", 50))
    absent = []
    for step in range(40):
        absent.append("regular" not in tier.nodes)
        tier.access("regular", 1, step * 100)
        for number in range(60):
            tier.access(f"once/{step}/{number}", 1, step * 100 + number + 1)
    assert all(absent[:2])
    assert sum(absent[20:]) < 3


def test_gdsf_keeps_small_values_and_costly_ones():
    """Many small hits are worth more than one large, unless the large one is dear to fetch."""
    small_first = PolicyTier(policies.make("gdsf", 100))
    dear = PolicyTier(policies.make("gdsf", 100, cost=lambda size: float(size * size)))
    for tier in (small_first, dear):
        tier.access("large", 60, 1)
        for number in range(4):
            tier.access(f"small/{number}", 10, number + 2)
        tier.access("another", 30, 10)
    assert ["large"] == small_first.evicted
    assert "large" in dear.nodes
