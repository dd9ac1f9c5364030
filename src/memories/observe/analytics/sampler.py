"""Takes samples in a background thread and returns them as time series.

The thread refers to the sampler weakly, and the sampler refers weakly to the object whose method
returns the samples. So the thread ends when either of them is garbage.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from types import MethodType

from memories.errors import InvalidOptionError
from memories.foundation.fork_lock import new_lock
from memories.foundation.periodic import Periodic
from memories.observe.analytics.downsampled import MIN_POINTS, DownsampledSeries, Point
from memories.observe.analytics.sample import Sample
from memories.observe.analytics.series import Series, series_of

MIN_INTERVAL_SECONDS = 0.001


LATEST_POINTS = 64  # Enough for the window of the hit rate.


class Sampler:
    """Samples usage and reads: once when it is made, and from `start` until `stop`.

    Safe to use from any number of threads. In a forked child only `series` takes samples.

    Args:
        sample: Returns the current sample. The object of a bound method is referred to weakly.
        monotonic: The clock.
        interval_seconds: Between two samples of the thread.
        history: The maximum number of points; further points replace every other one.

    Raises:
        InvalidOptionError: the interval or the history is too small.
    """

    def __init__(
        self,
        sample: Callable[[], Sample],
        monotonic: Callable[[], float],
        interval_seconds: float = 0.25,
        history: int = 4096,
    ) -> None:
        _check(interval_seconds, history)
        self._sample = _weakly(sample)
        self._monotonic = monotonic
        self._points = DownsampledSeries(history, interval_seconds)
        self._lock = new_lock()
        self._started_at = monotonic()
        self._thread = Periodic(self.take_sample, "analytics", seconds=interval_seconds)
        self.take_sample()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def take_sample(self) -> None:
        """Take a sample now; end the thread if the source of the samples is garbage."""
        with self._lock:
            sample = self._sample()
            if sample is not None:
                at = self._monotonic() - self._started_at
                self._points.add(Point(at, sample))
        if sample is None:
            self._thread.stop()

    def series(self, window: float | None = None) -> Series:
        """Return equal-length lists, the last point taken now unless sampling has been stopped.

        `timestamps` are seconds since the beginning, `hot_usage`, `warm_usage`, `cold_usage` and
        `glacier_usage` percent of the configured sizes, `hit_rate` percent of the reads of the
        latest two seconds that hot or warm answered, NaN where there were none. With `window`
        the lists cover only the last `window` seconds.
        """
        if not self._thread.stopped:
            self.take_sample()
        with self._lock:
            points = self._points.points()
        return series_of(points).window(window)

    def latest(self) -> dict[str, float]:
        """Return the last value of each series, without taking a sample."""
        with self._lock:
            points = self._points.points()[-LATEST_POINTS:]
        return {name: column[-1] for name, column in series_of(points).items()}

    def stop(self) -> None:
        """End the thread; the series can still be read. Idempotent."""
        self._thread.stop()


def _weakly(sample: Callable[[], Sample]) -> Callable[[], Sample | None]:
    """Return `sample`; for a bound method, a call that returns None once its object is garbage."""
    if not isinstance(sample, MethodType):
        return sample
    method = weakref.WeakMethod(sample)

    def call() -> Sample | None:
        alive = method()
        return None if alive is None else alive()

    return call


def _check(interval_seconds: float, history: int) -> None:
    if not interval_seconds >= MIN_INTERVAL_SECONDS:
        raise InvalidOptionError(
            f"interval={interval_seconds} must be at least {MIN_INTERVAL_SECONDS} seconds"
        )
    if history < MIN_POINTS:
        raise InvalidOptionError(f"history={history} must be at least {MIN_POINTS} points")
