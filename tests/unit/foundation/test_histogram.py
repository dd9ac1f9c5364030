"""The histogram of latencies: small, mergeable by subtraction, and right to within a tenth."""

from __future__ import annotations

import math
import random

import pytest

from memories.foundation.histogram import BUCKETS, Histogram
from memories.observe.analytics.state_document import BOUNDS


def filled(samples: list[float]) -> Histogram:
    """Return a histogram of the samples."""
    histogram = Histogram()
    for seconds in samples:
        histogram.add(seconds)
    return histogram


@pytest.mark.parametrize("share", [0.01, 0.5, 0.9, 0.99, 1.0])
def test_a_quantile_is_right_to_within_a_tenth(share: float) -> None:
    """Ten thousand samples over five orders of magnitude are compared with a sorted list."""
    random_ = random.Random(3)
    samples = sorted(10 ** random_.uniform(-5, 0) for _ in range(10_000))
    truth = samples[math.ceil(share * len(samples)) - 1]
    assert pytest.approx(truth, rel=0.1) == filled(samples).read().quantile(share)


def test_nothing_has_no_quantile() -> None:
    """NaN, and neither 0 nor the largest bucket."""
    assert math.isnan(Histogram().read().quantile(0.5))


@pytest.mark.parametrize("seconds", [0.0, -1.0, 1e-9, 1e9, math.inf])
def test_a_sample_beyond_the_ends_counts_at_the_end(seconds: float) -> None:
    """A clock that jumped must not break a store."""
    latency = filled([seconds]).read()
    assert 1 == latency.samples
    assert BUCKETS == len(latency.counts)


def test_the_time_between_two_readings_is_exact() -> None:
    """Series are made of differences."""
    histogram = filled([0.001] * 5)
    earlier = histogram.read()
    for _ in range(3):
        histogram.add(1.0)
    late = histogram.read().since(earlier)
    assert (3, pytest.approx(3.0)) == (late.samples, late.seconds)
    assert pytest.approx(1.0, rel=0.1) == late.quantile(0.5)
    assert earlier == earlier.since(None)


def test_cumulative_counts_only_grow_and_end_with_all() -> None:
    """What a Prometheus histogram must do; a value on a bound lies below it."""
    samples = [2e-6, 5e-5, 5e-5, 0.3, 20.0]
    below = list(filled(samples).read().cumulative(BOUNDS))
    assert sorted(below) == below
    assert [sum(one <= bound for one in samples) for bound in BOUNDS] == below
