from __future__ import annotations

import random

import pytest

from memories import policies
from memories.policies.predictors import Prefetcher
from memories.simulate.simulator import Simulator, replay
from memories.simulate.traces import Access, trace_of


def trace(*keys, size=1):
    return trace_of(Access(float(at), key, size) for at, key in enumerate(keys))


def test_it_counts_what_a_hand_would():
    """The figures decide which policy is the default, so the counting itself is checked."""
    outcome = replay(trace("a", "b", "a", "c", "a", "b"), policies.make("lru", 2))
    assert (6, 4, 3, 2) == (
        outcome.requests,
        outcome.misses,
        outcome.first_accesses,
        outcome.evictions,
    )
    assert outcome.miss_ratio == pytest.approx(4 / 6)
    assert outcome.re_access_miss_ratio == pytest.approx(1 / 3)


def test_bytes_are_counted_apart_from_requests():
    """A policy may save requests at the expense of bytes."""
    rows = [Access(0, "large", 90), Access(1, "small", 10), Access(2, "small", 10)]
    outcome = replay(trace_of(rows), policies.make("fifo", 1000))
    assert (110, 100) == (outcome.bytes_requested, outcome.bytes_missed)
    assert outcome.byte_miss_ratio == pytest.approx(100 / 110)


def test_what_is_larger_than_the_tier_passes_by():
    """It would throw everything out and still not fit."""
    simulator = Simulator(policies.make("lru", 10))
    simulator.access("small", 4)
    simulator.access("huge", 11)
    assert simulator.access("small", 4)
    simulator.check()


@pytest.mark.parametrize("name", policies.names())
def test_the_capacity_is_never_exceeded(name):
    """A simulated byte too many is a hit that no tier could have had."""
    source = random.Random(1)
    simulator = Simulator(policies.make(name, 200), Prefetcher(budget_bytes=20))
    sizes = {number: source.randrange(1, 50) for number in range(60)}
    for step in range(3000):
        number = min(source.randrange(60), source.randrange(60))
        simulator.access(f"key/{number}", sizes[number])
        if step % 20 == 0:
            simulator.check()


def test_fetching_ahead_turns_misses_into_hits_and_is_accounted():
    """The gain and its price stand side by side."""
    loop = trace(*[f"part-{number:05d}" for number in range(300)] * 5)
    plain = replay(loop, policies.make("lru", 100))
    ahead = replay(loop, policies.make("lru", 100), Prefetcher(budget_bytes=10))
    assert 1.0 == plain.re_access_miss_ratio
    assert ahead.re_access_miss_ratio < 0.2
    counts = ahead.prefetch
    assert counts["issued"] == ahead.bytes_fetched_ahead
    assert counts["used"] + counts["wasted"] <= counts["issued"]


def test_a_replay_decides_the_same_every_time():
    """A figure that cannot be repeated cannot be argued with."""
    source = random.Random(2)
    some = trace(*[f"key/{source.randrange(300)}" for _ in range(5000)])
    first, second = (replay(some, policies.make("auto", 50)) for _ in range(2))
    assert first == second


def test_an_empty_trace_has_no_misses():
    """Ratios of nothing are zero and no division by it."""
    outcome = replay(trace(), policies.make("lru", 1))
    assert (0.0, 0.0, 0.0) == (
        outcome.miss_ratio,
        outcome.byte_miss_ratio,
        outcome.re_access_miss_ratio,
    )
