from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from memories.policies.idle_limits import RANGES, IdleLimits

CALLS = st.lists(
    st.one_of(
        st.tuples(st.just("demoted"), st.integers(0, 5), st.just(0.0)),
        st.tuples(st.just("regretted"), st.integers(0, 5), st.floats(0, 1e6)),
    ),
    max_size=60,
)


@given(CALLS, st.integers(0, 9))
def test_a_limit_stays_in_its_bounds_whatever_happens(calls, which):
    """The bounds are promises of the migration example: five seconds unread, thirty read twice."""
    limits = IdleLimits(remembered_keys=3)
    for number, (call, hits, seconds) in enumerate(calls):
        if call == "demoted":
            limits.record_demotion(hits)
        else:
            limits.record_regret(hits, seconds, key=str(number % 10))
        limits.check()
    for key in (None, str(which)):
        assert limits.limit(0, key) < 5
        assert 5 <= limits.limit(1, key) <= 30
        assert limits.limit(2, key) >= 30
        assert limits.limit(2, key) == limits.limit(50, key)


def test_a_workload_that_returns_every_two_minutes_is_soon_left_alone():
    """A fixed lifetime would find every re-read demoted; here the regrets lengthen it."""
    limits = IdleLimits()
    regrets = 0
    for _ in range(400):
        if limits.limit(2) < 120:
            limits.record_demotion(2)
            regrets += limits.record_regret(2, 120.0)
    assert regrets < 10
    assert limits.limit(2) > 120


def test_one_regret_does_not_throw_the_limit_about():
    """Damping: a single accident must not change how a whole tier behaves."""
    limits = IdleLimits()
    before = limits.limit(2)
    limits.record_regret(2, 600.0)
    assert before < limits.limit(2) < before + 0.25 * (750 - before)


def test_demotions_without_regret_bring_the_limit_back():
    """What was learnt from one phase of a program must not outlive it."""
    limits = IdleLimits()
    for _ in range(50):
        limits.record_regret(2, 3000.0)
    assert limits.limit(2) > 2900
    limits.record_demotion(2, count=1000)
    assert abs(limits.limit(2) - RANGES[2].start_seconds) < 1


def test_a_gap_that_no_limit_could_cover_teaches_nothing():
    """A value read again after a day was rightly demoted."""
    limits = IdleLimits()
    assert not limits.record_regret(2, 86_400.0, key="daily")
    assert limits.limit(2, "daily") == limits.limit(2) == RANGES[2].start_seconds


def test_a_key_whose_demotion_was_regretted_stays_longer_than_others():
    """Lifetimes adapt per item, so that one periodic key does not change the rest."""
    limits = IdleLimits()
    limits.record_regret(2, 40.0, key="periodic")
    assert limits.limit(2, "periodic") == 2 * limits.limit(2, "other")


def test_only_so_many_keys_are_remembered():
    """Memory stays bounded, and the latest regrets are the ones kept."""
    limits = IdleLimits(remembered_keys=2)
    for key in ("a", "b", "c"):
        limits.record_regret(2, 65.0, key=key)
    common = limits.limit(2)
    assert [common, 2 * common, 2 * common] == [limits.limit(2, key) for key in "abc"]
