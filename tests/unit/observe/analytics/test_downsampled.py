"""Samples are kept, thinned evenly, and turned into rates without losing a count."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from memories.observe.analytics.downsampled import DownsampledSeries, Point
from memories.observe.analytics.sample import Sample
from memories.observe.analytics.series import hit_rates, series_of


def point(at: float, hits: int = 0, reads: int = 0, **usage: float) -> Point:
    """Return a point with these figures."""
    return Point(at, Sample(usage=usage, hits=hits, reads=reads))


def fill(history: DownsampledSeries, count: int, spacing: float = 1.0) -> None:
    """Add points that count one hit and two reads each."""
    for index in range(count):
        history.add(point(index * spacing, hits=index, reads=2 * index))


@pytest.mark.parametrize("max_points", [4, 5, 16, 100])
def test_a_history_never_holds_more_than_it_may(max_points: int) -> None:
    """Analytics that were left on for a month must not eat the memory they watch."""
    history = DownsampledSeries(max_points, 1.0)
    for index in range(1000):
        history.add(point(float(index)))
        assert len(history.points()) <= max_points


def test_a_thinned_history_spans_the_whole_time_evenly() -> None:
    """A history that forgot the beginning could not show how things got where they are."""
    history = DownsampledSeries(16, 1.0)
    fill(history, 1000)
    times = [one.at for one in history.points()]
    gaps = [after - before for before, after in pairwise(times[:-1])]
    assert times[0] == 0.0
    assert times[-1] == 999.0
    assert max(gaps) < 1.5 * min(gaps)


def test_the_latest_point_is_always_there() -> None:
    """A query wants the current figures, not those of the latest full interval."""
    history = DownsampledSeries(16, 1.0)
    for at in (0.0, 0.1, 0.2, 1.0, 1.3):
        history.add(point(at))
        assert at == history.points()[-1].at
    assert [0.0, 1.0, 1.3] == [one.at for one in history.points()]


def test_the_latest_point_outlives_a_thinning() -> None:
    """It must not vanish at the one moment when the history makes room."""
    history = DownsampledSeries(8, 1.0)
    for index in range(100):
        history.add(point(float(index)))
        assert float(index) == history.points()[-1].at


def test_thinning_loses_no_count() -> None:
    """The rate of a long stretch must be that of all its reads, not of a sample of them."""
    history = DownsampledSeries(8, 1.0)
    fill(history, 500)
    assert [50.0] * (len(history.points()) - 1) == hit_rates(history.points(), 1.0)[1:]


def test_without_a_read_there_is_no_hit_rate() -> None:
    """0/0 is not 100 %: a plot with a gap is honest, one with a full bar is not."""
    rates = hit_rates([point(0.0), point(1.0), point(2.0, hits=1, reads=1)], 1.0)
    assert [True, True, False] == [math.isnan(rate) for rate in rates]
    assert 100.0 == rates[-1]


def test_a_hit_rate_looks_back_over_its_window_and_no_further() -> None:
    """A miss of an hour ago says nothing about now."""
    points = [
        point(0.0),
        point(1.0, hits=0, reads=10),
        point(2.0, hits=10, reads=20),
        point(3.0, hits=20, reads=30),
        point(4.0, hits=30, reads=40),
    ]
    assert [0.0, 50.0, 100.0, 100.0] == hit_rates(points, 2.0)[1:]


def test_a_burst_between_quiet_samples_is_drawn_as_a_line() -> None:
    """Samples are finer than the pauses between reads; isolated points would draw nothing."""
    points = [point(0.25 * index, hits=index // 2, reads=index // 2) for index in range(20)]
    assert 2 == sum(math.isnan(rate) for rate in series_of(points)["hit_rate"])


def test_the_series_are_of_one_length_and_complete() -> None:
    """They are handed to matplotlib as they are; a disabled tier is simply empty."""
    series = series_of([point(0.0, hot=1.0), point(1.0, hot=2.0, warm=3.0)])
    names = ["timestamps", "hot_usage", "warm_usage", "cold_usage", "glacier_usage", "hit_rate"]
    assert names == list(series)
    assert {2} == {len(values) for values in series.values()}
    assert [1.0, 2.0] == series["hot_usage"]
    assert [0.0, 3.0] == series["warm_usage"]
    assert [0.0, 0.0] == series["glacier_usage"]


def test_no_points_give_empty_series() -> None:
    """The pure part holds for nothing as well."""
    assert {0} == {len(values) for values in series_of([]).values()}
