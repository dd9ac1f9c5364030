"""The sampling thread: it runs while needed, ends with its owner, and survives failures."""

from __future__ import annotations

import gc
import logging
import math
import os
import threading
import time
import weakref
from dataclasses import dataclass

import pytest
from tests.support.waiting import until

from memories.errors import ClosedError, InvalidOptionError
from memories.observe.analytics import Sample, Sampler

NEVER = 3600.0


@dataclass
class ManualClock:
    """A clock that a test turns."""

    now: float = 100.0

    def monotonic(self) -> float:
        """Return the time the test has set."""
        return self.now


class Source:
    """Counts how often it was asked, and answers with what the test has set."""

    def __init__(self) -> None:
        self.asked = 0
        self.hits = 0
        self.reads = 0
        self.error: Exception | None = None

    def sample(self) -> Sample:
        """Return the figures, or raise the error that a test set."""
        self.asked += 1
        if self.error is not None:
            raise self.error
        return Sample(usage={"hot": float(self.asked)}, hits=self.hits, reads=self.reads)


_of_other_tests: set[threading.Thread] = set()


def sampling_threads() -> list[threading.Thread]:
    """Return the sampling threads of this test that are alive."""
    found = [one for one in threading.enumerate() if one.name == "memories-analytics"]
    return [one for one in found if one not in _of_other_tests]


@pytest.fixture(autouse=True)
def _only_those_of_this_test() -> None:
    """Managers that other tests have forgotten may end at any time."""
    _of_other_tests.clear()
    _of_other_tests.update(sampling_threads())


def test_the_first_sample_is_taken_at_once_and_one_at_every_look() -> None:
    """A run shorter than an interval has a beginning and an end to show."""
    clock, source = ManualClock(), Source()
    analytics = Sampler(source.sample, clock.monotonic, NEVER)
    clock.now += 3.0
    source.hits, source.reads = 3, 4
    series = analytics.series()
    assert [0.0, 3.0] == series["timestamps"]
    assert math.isnan(series["hit_rate"][0])
    assert 75.0 == series["hit_rate"][1]


def test_reads_before_the_analytics_were_enabled_do_not_count() -> None:
    """What is asked is how it went since, not how it went on average for ever."""
    clock, source = ManualClock(), Source()
    source.hits, source.reads = 0, 1000
    analytics = Sampler(source.sample, clock.monotonic, NEVER)
    clock.now += 1.0
    source.hits, source.reads = 10, 1010
    assert 100.0 == analytics.series()["hit_rate"][-1]


def test_the_thread_samples_by_itself_until_it_is_stopped() -> None:
    """A plot must not need a program that polls."""
    source = Source()
    analytics = Sampler(source.sample, time.monotonic, 0.002)
    analytics.start()
    until(lambda: source.asked > 3)
    analytics.stop()
    analytics.stop()
    assert [] == sampling_threads()
    asked = source.asked
    assert len(analytics.series()["timestamps"]) >= 3
    assert asked == source.asked


def test_forgetting_the_source_ends_the_thread() -> None:
    """A manager that went out of scope must not live on as the thread that watches it."""
    source = Source()
    analytics = Sampler(source.sample, time.monotonic, 0.002)
    analytics.start()
    gone = weakref.ref(source)
    del source
    until(lambda: gone() is None)
    until(lambda: not sampling_threads())
    assert len(analytics.series()["timestamps"]) >= 1


def test_forgetting_the_analytics_ends_the_thread() -> None:
    """The same for the watcher itself, whatever it watched."""
    source = Source()
    analytics = Sampler(source.sample, time.monotonic, 0.002)
    analytics.start()
    del analytics
    gc.collect()
    until(lambda: not sampling_threads())


def test_a_closed_source_ends_the_thread_in_silence(caplog: pytest.LogCaptureFixture) -> None:
    """A closed manager is not a failure of the sampler."""
    source = Source()
    analytics = Sampler(source.sample, time.monotonic, 0.002)
    source.error = ClosedError("closed")
    analytics.start()
    until(lambda: not sampling_threads())
    assert [] == caplog.records


def test_a_failing_source_is_reported_once_and_asked_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A traceback each quarter of a second would bury the first one; a plot that ends is a loss."""
    source = Source()
    analytics = Sampler(source.sample, time.monotonic, 0.002)
    source.error = ZeroDivisionError("broken")
    with caplog.at_level(logging.ERROR, logger="memories"):
        analytics.start()
        asked = source.asked
        until(lambda: source.asked >= asked + 2)
        source.error = None
        until(lambda: source.asked >= asked + 4)
    assert 1 == len(caplog.records)
    analytics.stop()


def test_series_raises_the_failure_of_the_source() -> None:
    """A caller of `series` is there to hear it."""
    source = Source()
    analytics = Sampler(source.sample, time.monotonic, NEVER)
    source.error = ClosedError("closed")
    with pytest.raises(ClosedError):
        analytics.series()


@pytest.mark.parametrize(
    ("interval", "history"), [(0, 100), (-1, 100), (math.nan, 100), (1.0, 3), (1.0, -5)]
)
def test_intervals_and_histories_that_mean_nothing_are_refused(
    interval: float, history: int
) -> None:
    """A busy loop, or a plot of nothing, is not what any user meant."""
    with pytest.raises(InvalidOptionError):
        Sampler(Source().sample, time.monotonic, interval, history)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_can_still_read_the_series() -> None:
    """The child has no sampling thread, and must not wait for a lock that one held."""
    source = Source()
    analytics = Sampler(source.sample, time.monotonic, 0.001)
    analytics.start()
    child = os.fork()
    if child == 0:
        os._exit(0 if len(analytics.series()["timestamps"]) >= 2 else 1)
    assert (child, 0) == os.waitpid(child, 0)
    analytics.stop()
