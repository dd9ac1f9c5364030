from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memories.policies.lru import LruPolicy
from memories.policies.miss_ratio_curve import (
    MissRatioCurve,
    ReuseDistanceSampler,
    miss_ratio_curve,
)
from memories.simulate.simulator import replay
from memories.simulate.traces import Access, trace_of


def zipf(count, keys, seed=1):
    source = random.Random(seed)
    ranks = range(1, keys + 1)
    return source.choices([f"key/{n}" for n in ranks], [1 / n for n in ranks], k=count)


def lru(keys, sizes, capacity):
    rows = [Access(0.0, key, size) for key, size in zip(keys, sizes, strict=True)]
    return replay(trace_of(rows), LruPolicy(capacity)).re_access_miss_ratio


@given(st.lists(st.integers(0, 20), min_size=1, max_size=200))
def test_unsampled_distances_are_exact(numbers):
    """Without a sample the curve is LRU itself, up to the width of its buckets."""
    keys = [str(number) for number in numbers]
    distances = ReuseDistanceSampler(sampled_keys=64)
    for key in keys:
        distances.observe(key, 1)
        distances.check()
    curve = distances.curve()
    for capacity in (1, 2, 4, 8, 16):
        if len(keys) > len(set(keys)):
            assert lru(keys, [1] * len(keys), capacity) == pytest.approx(curve.miss_ratio(capacity))


def test_a_sample_gives_nearly_the_same_curve():
    """The point of sampling: a hundredth of the work for about the same answer."""
    keys = zipf(60_000, 20_000)
    curve = miss_ratio_curve(keys, [1] * len(keys), sampled_keys=1000)
    for capacity in (200, 1000, 5000):
        assert lru(keys, [1] * len(keys), capacity) == pytest.approx(
            curve.miss_ratio(capacity), abs=0.05
        )


def test_sizes_count():
    """Capacities are bytes, and a large value pushes out many small ones."""
    keys = zipf(20_000, 500)
    size = {f"key/{n}": 1 + n % 50 for n in range(1, 501)}
    sizes = [size[key] for key in keys]
    curve = miss_ratio_curve(keys, sizes)
    for capacity in (500, 2000, 8000):
        assert lru(keys, sizes, capacity) == pytest.approx(curve.miss_ratio(capacity), abs=0.04)


def test_the_sample_is_bounded():
    """It runs for ever beside a store with a billion keys."""
    distances = ReuseDistanceSampler(sampled_keys=100)
    for number in range(20_000):
        distances.observe(f"key/{number}", 1)
        distances.observe(f"key/{number // 2}", 1)
    distances.check()
    assert len(distances._latest) <= 100
    assert len(distances.curve().capacities) < 2000
    assert distances.rate < 0.02


def test_what_one_more_gigabyte_would_buy():
    """This is the answer that `advise` gives."""
    curve = MissRatioCurve((0.0, 100.0, 200.0), (1.0, 0.6, 0.5))
    assert curve.gain(50, 50) == pytest.approx(0.4)
    assert curve.gain(100, 100) == pytest.approx(0.1)
    assert 0 == curve.gain(300, 100)


def test_no_accesses_tell_nothing():
    """Before anything was read twice, no capacity is known to help."""
    assert 1.0 == ReuseDistanceSampler().curve().miss_ratio(10**12)


def test_accesses_that_were_not_sampled_hit_with_any_room() -> None:
    """The busiest keys are answered without a sample; where no other was read, too."""
    curve = ReuseDistanceSampler().curve(200)
    assert 0.0 == curve.miss_ratio(1000)
    assert 1.0 == curve.miss_ratio(0)
    sampler = ReuseDistanceSampler()
    for key in ("a", "b", "a"):
        sampler.observe(key, 100)
    curve = sampler.curve(10)  # One of them was sampled, at a distance of 200 bytes.
    assert [1.0, 0.1, 0.0] == pytest.approx([curve.miss_ratio(room) for room in (1, 150, 1000)])
