from __future__ import annotations

import random

import pytest

from memories.policies.auto import AutoPolicy
from memories.policies.fifo import FifoPolicy
from memories.policies.gdsf import GdsfPolicy
from memories.policies.lru import LruPolicy
from memories.policies.policy_selector import PolicySelector
from memories.policies.s3fifo import S3FifoPolicy
from memories.simulate.simulator import Simulator, replay
from memories.simulate.traces import Access, trace_of
from memories.testing.policies import PlainNode


def loop(keys, rounds):
    return trace_of(Access(0.0, f"key/{n}", 1) for _ in range(rounds) for n in range(keys))


def recent(count, seed=1):
    """Every key is read twice, shortly after it came, and never again."""
    source = random.Random(seed)
    return trace_of(
        Access(0.0, f"new/{n - source.choice((0, 20))}", 1)
        for n in range(20, count)
        for _ in (0, 1)
    )


def test_it_follows_the_candidate_that_suits_the_workload():
    """A loop larger than the tier is the worst case of LRU, and S3-FIFO keeps a part of it."""
    policy = AutoPolicy(500, candidates=[LruPolicy, S3FifoPolicy])
    outcome = replay(loop(1000, 20), policy)
    assert "s3fifo" == policy.following
    assert outcome.miss_ratio < 0.75
    assert 1.0 == replay(loop(1000, 20), LruPolicy(500)).miss_ratio


def test_it_changes_its_mind_when_the_workload_changes():
    """Following what was best an hour ago is no adaptation."""
    policy = AutoPolicy(100, candidates=[LruPolicy, S3FifoPolicy])
    simulator = Simulator(policy)
    simulator.replay(loop(300, 40))
    assert "s3fifo" == policy.following
    for number in range(15_000):
        # A key is read again just when S3-FIFO's small queue has let it go.
        simulator.access(f"new/{number}", 1)
        simulator.access(f"new/{max(0, number - 40)}", 1)
    simulator.check()
    assert "lru" == policy.following


def test_it_stays_where_candidates_are_equal():
    """Chance alone must not make nodes wander from policy to policy."""
    policy = AutoPolicy(100, candidates=[FifoPolicy, FifoPolicy, LruPolicy])
    source = random.Random(3)
    simulator = Simulator(policy)
    for _ in range(8_000):
        simulator.access(f"key/{source.randrange(400)}", 1)
        assert "fifo" == policy.following


@pytest.mark.parametrize("capacity", [200, 4_000])
def test_the_sample_stays_small_however_many_nodes_there_are(capacity):
    """Memory and time go into the sample, so it must not grow with the tier."""
    policy = AutoPolicy(capacity, sample=64)
    replay(loop(2 * capacity, 2), policy)
    assert all(len(shadow) <= 4 * 64 for shadow in policy._shadows)
    sampled = sum(policy.samples(f"other/{number}") for number in range(10_000))
    assert sampled == pytest.approx(10_000 * min(1, 64 * 1.5 / capacity), rel=0.6)


def test_no_node_is_lost_while_policies_change():
    """A hand-over takes many evictions; removals and arrivals meanwhile find their policy."""
    policy = AutoPolicy(5000, candidates=[LruPolicy, GdsfPolicy])
    nodes = [PlainNode(f"key/{n}", 1, stamp=n + 1) for n in range(5000)]
    for node in nodes:
        policy.insert(node)
    policy._follow(1)
    assert policy._previous is not None
    out = set()
    stamp = 5001
    for number, node in enumerate(nodes[::-7]):
        stamp += 1
        if number % 3 == 0 and node.link is not None:
            policy.remove(node)
            out.add(node.key)
        elif number % 3 == 1:
            policy.insert(PlainNode(f"new/{number}", 1, stamp=stamp))
        elif number % 100 == 2:
            out.add(policy.evict().key)
        if number % 50 == 0:
            policy.check()
    left = set()
    while (node := policy.evict()) is not None:
        assert node.key not in left | out
        left.add(node.key)
    assert {node.key for node in nodes} <= left | out
    assert 0 == len(policy)
    policy.check()


def test_a_second_change_waits_for_the_first_to_end():
    """Finishing at once would stop the program for as long as the tier is large."""
    policy = AutoPolicy(50_000, candidates=[LruPolicy, FifoPolicy])
    for n in range(50_000):
        policy.insert(PlainNode(f"key/{n}", 1, stamp=n + 1))
    policy._follow(1)
    policy._follow(0)
    assert "fifo" == policy.following
    assert len(policy._current) < 1000


def test_hits_of_sampled_keys_teach_it():
    """The engine reports hits by `observe`; without them a shadow would see only misses."""
    policy = AutoPolicy(10)
    policy.insert(PlainNode("key", 1, stamp=1))
    policy.observe([("key", 1)] * 5)
    policy.process_observed()
    assert all(
        shadow._nodes and next(iter(shadow._nodes.values())).hits == 5 for shadow in policy._shadows
    )


def test_an_insert_without_access_is_not_observed():
    """A demotion from above and a value fetched ahead are no evidence for anyone."""
    policy = AutoPolicy(10)
    policy.insert_without_access(PlainNode("key", 1, stamp=1))
    assert [0] * 4 == [len(shadow) for shadow in policy._shadows]


def test_an_admitted_arrival_counts_once():
    """Asking for admission and inserting are one access."""
    policy = AutoPolicy(10)
    node = PlainNode("key", 1, stamp=1)
    policy.admit(node)
    policy.insert(node)
    policy.process_observed()
    assert [0] * 4 == [next(iter(s._nodes.values())).hits for s in policy._shadows]


def test_a_chance_difference_selects_no_other_policy():
    """Two candidates that toss coins must not replace each other."""
    source = random.Random(5)
    selector = PolicySelector(2)
    changes = 0
    for number in range(24_000):
        changed = selector.record([source.random() < 0.5, source.random() < 0.5])
        selector.followed = selector.leader
        assert not changed or number < 4096
        changes += changed
    assert changes < 3, "also at first, where a small lead is enough"


@pytest.mark.parametrize(("before", "leader"), [(0, 1), (5_000, 0)])
def test_a_small_lead_is_enough_at_first_only(before: int, leader: int):
    """Nothing speaks for the candidate that is merely the first one."""
    selector = PolicySelector(2)
    for _ in range(before):
        selector.record([False, False])
    for number in range(740):  # It saves 400 misses and costs 340: a lead of 2.2 deviations.
        saves = 400 * (number + 1) // 740 > 400 * number // 740
        selector.record([saves, not saves])
        selector.followed = selector.leader
    assert leader == selector.leader


def test_fewer_misses_select_another_policy():
    """A candidate is selected after it has missed less for long enough, and not before."""
    selector = PolicySelector(2)
    changed = [selector.record([number % 10 != 0, number % 10 == 0]) for number in range(2000)]
    assert 1 == selector.leader
    assert True not in changed[:15]
