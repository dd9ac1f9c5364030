"""Takes samples on a thread of its own, and gives out the series.

Not the source of the figures: that is a function, asked and never held on to. The thread holds the
recorder weakly and the recorder holds the owner of a bound method weakly, so that whoever is
forgotten by the program takes the thread with him.
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


class Sampler:
    """Samples usage and reads, once when it is made, and from `start` until `stop`.

    Safe to use from any number of threads, and in a forked child, where only `series` samples.

    Args:
        sample: Returns the figures of now. A bound method does not keep its object alive.
        monotonic: The clock.
        interval_seconds: Between two samples of the thread.
        history: The most points that are kept; more are thinned evenly.

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
        self._history = DownsampledSeries(history, interval_seconds)
        self._lock = new_lock()
        self._started_at = monotonic()
        self._thread = Periodic(self.look, "analytics", seconds=interval_seconds)
        self.look()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def look(self) -> None:
        """Take a sample now; when its source is gone that was the last."""
        with self._lock:
            sample = self._sample()
            if sample is not None:
                at = self._monotonic() - self._started_at
                self._history.add(Point(at, sample))
        if sample is None:
            self._thread.stop()

    def series(self, window: float | None = None) -> Series:
        """Return equal-length lists, the last point taken now unless sampling has been stopped.

        `timestamps` are seconds since the beginning, `hot_usage`, `warm_usage`, `cold_usage` and
        `glacier_usage` percent of the configured sizes, `hit_rate` percent of the reads of the
        latest two seconds that hot or warm answered, NaN where there were none. With `window`
        only the latest so many seconds.
        """
        if not self._thread.stopped:
            self.look()
        with self._lock:
            points = self._history.points()
        return series_of(points).window(window)

    def stop(self) -> None:
        """End the thread; what was sampled can still be read. Idempotent."""
        self._thread.stop()


def _weakly(sample: Callable[[], Sample]) -> Callable[[], Sample | None]:
    """Return `sample`; if it is a bound method, a call that gives None once its object died."""
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
