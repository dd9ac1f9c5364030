"""What a manager shows of itself: series over time, one document of now, files for others to read.

Not in the way of anybody: it reads counters when it is asked or when its thread wakes, and a
directory that refuses the files costs a warning, never a store.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from memories.engine.hierarchy import Hierarchy
from memories.engine.lifecycle_state import LifecycleState
from memories.errors import InvalidOptionError
from memories.foundation.clock import Clock
from memories.foundation.fork_lock import new_lock
from memories.foundation.logging import logger
from memories.foundation.periodic import Periodic, idle_poll_seconds
from memories.observe.analytics import Sample, Sampler
from memories.observe.analytics.derived import DerivedMetrics
from memories.observe.analytics.hotkeys import HotKeys
from memories.observe.analytics.series import Series
from memories.observe.analytics.state_document import Document, document_of
from memories.observe.analytics.telemetry_files import write_document, write_series
from memories.observe.counters import Stats
from memories.observe.move_log import MoveLog

TELEMETRY_SECONDS = 1.0
QUIET_SECONDS = 10.0  # Without any activity, after which nothing new is to be expected.
SERIES_SECONDS = 15.0  # Between two writings of the series, which are larger.
LOOK_SECONDS = 0.2  # Hot keys are not looked for more often, however many watchers ask.
HOT_KEYS = 50
NEWS = ("reads", "stored", "failures", "removed", "moves", "tiers")  # What is worth a new file.


class TelemetryService:
    """Watches one engine. Safe to use from any number of threads.

    Args:
        stats: Returns the counters of now; raises ClosedError once there are none.
        hierarchy: What is watched.
        history: The latest moves.
        clock: The clocks.
        directory: Where the files for other processes go, None for nowhere.
    """

    def __init__(
        self,
        stats: Callable[[], Stats],
        hierarchy: Hierarchy,
        history: MoveLog,
        clock: Clock,
        directory: Path | None,
    ) -> None:
        self.stats = stats
        self._hierarchy = hierarchy
        self._history = history
        self._clock = clock
        self._directory = directory
        entries = hierarchy.catalog.entries
        self._hot = HotKeys(lambda at, end: list(islice(entries, at, end)), entries.get)
        self._lock = new_lock()
        self._looked_at = self._series_at = float("-inf")
        self._news: tuple[object, ...] = ()
        self._activity: tuple[float, ...] = ()
        self._quiet_at = float("-inf")
        self._analytics: Sampler | None = None
        self._figures: DerivedMetrics | None = None
        self._thread = Periodic(self._keep, "telemetry", seconds=TELEMETRY_SECONDS)
        if directory is not None:
            self._keep()
            self._thread.start()

    def enable(self, interval: float, history: int) -> None:
        """Start sampling, from the beginning if it was on already."""
        if self._analytics is not None:
            self._analytics.stop()
        self._figures = DerivedMetrics(self.stats())
        self._analytics = Sampler(
            self._sample, self._clock.monotonic, interval_seconds=interval, history=history
        )
        self._analytics.start()

    def series(self, window: float | None = None) -> Series:
        """Return the series sampled so far.

        Raises:
            InvalidOptionError: the analytics are off, or the window means nothing.
        """
        if self._analytics is None:
            raise InvalidOptionError("analytics are off; call enable_analytics() first")
        return self._analytics.series(window)

    def series_or_none(self) -> Series | None:
        """Return the series sampled so far, None while the analytics are off."""
        return None if self._analytics is None else self._analytics.series()

    def document(self, hot_keys: int = HOT_KEYS) -> Document:
        """Return what is known now, as plain data."""
        stats = self.stats()
        with self._lock:
            now = self._clock.monotonic()
            if now - self._looked_at >= LOOK_SECONDS or not self._hot:
                self._hot.look(now)
                self._looked_at = now
            hottest = self._hot.top(hot_keys)
        return document_of(
            stats,
            hot_keys=hottest,
            moves=list(self._history.latest),
            wall=self._clock.wall(),
            monotonic=now,
            state=self._hierarchy.state.value,
            pid=os.getpid(),
            host=os.uname().nodename,
        )

    def forget(self) -> None:
        """In a forked child: leave threads and files to the parent."""
        self._analytics = self._directory = None

    def stop(self) -> None:
        """End the threads, and say in the files that there will be no more."""
        self._thread.stop()
        self._attempt(self._write_last)
        if self._analytics is not None:
            self._analytics.stop()

    def _sample(self) -> Sample:
        assert self._figures is not None, "it is made before the first sample"
        return self._figures.sample(self.stats(), self._clock.monotonic())

    def _keep(self) -> None:
        """Write the files if there is something new, for as long as there is a place for them."""
        activity, now = self._hierarchy.activity(), self._clock.monotonic()
        self._thread.seconds = TELEMETRY_SECONDS
        if activity != self._activity or self._analytics is not None:
            self._activity, self._quiet_at = activity, now
            self._attempt(self._write_news)
        elif now - self._quiet_at > QUIET_SECONDS:
            self._thread.seconds = idle_poll_seconds(now - self._quiet_at)
        else:
            self._attempt(self._write_news)
        if self._directory is None:
            self._thread.stop()

    def _write_news(self, directory: Path) -> None:
        document = self.document()
        news = tuple(document[name] for name in NEWS)
        if news != self._news:
            self._news = news
            write_document(directory, document)
        now = self._clock.monotonic()
        if self._analytics is not None and now - self._series_at >= SERIES_SECONDS:
            self._series_at = now
            write_series(directory, self.series())

    def _write_last(self, directory: Path) -> None:
        write_document(directory, {**self.document(), "state": LifecycleState.CLOSED.value})
        if self._analytics is not None:
            write_series(directory, self.series())

    def _attempt(self, write: Callable[[Path], None]) -> None:
        directory = self._directory
        if directory is None:
            return
        try:
            write(directory)
        except OSError as error:
            self._directory = None
            logger.warning("%s takes no telemetry, which ends here: %s", directory, error)
