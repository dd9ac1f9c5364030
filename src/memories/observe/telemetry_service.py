"""Reports of a manager: time series, its state as a document, and files for other processes.

It reads counters only when it is called or when its thread wakes up. A directory that cannot be
written to causes a warning and ends the files; it never makes a store fail.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from memories.engine.hierarchy import Hierarchy
from memories.engine.lifecycle_state import LifecycleState
from memories.errors import InvalidOptionError
from memories.foundation.clock import Clock
from memories.foundation.fork_lock import new_lock
from memories.foundation.keys import INTERNAL
from memories.foundation.logging import logger
from memories.foundation.periodic import Periodic, idle_poll_seconds
from memories.foundation.resident import resident_bytes
from memories.observe.analytics import Sample, Sampler
from memories.observe.analytics.derived import DerivedMetrics
from memories.observe.analytics.hotkeys import HotKeys
from memories.observe.analytics.series import Series
from memories.observe.analytics.state_document import (
    Document,
    document_of,
    none_for_nan,
)
from memories.observe.analytics.telemetry_files import write_document, write_series
from memories.observe.counters import Stats
from memories.observe.move_log import MoveLog

TELEMETRY_SECONDS = 1.0
QUIET_SECONDS = 10.0  # After this long without activity the thread polls less often.
SERIES_SECONDS = 15.0  # Between two writes of the series, which are larger.
HOT_KEY_SECONDS = 0.2  # Between two samples of the hot keys, however many callers ask.
HOT_KEYS = 50
MOST_LISTED = 1000  # Values in RAM that the file lists; of more it only gives the number.
CHANGING = ("reads", "stored", "failures", "removed", "moves", "tiers")  # Cause a new file.


class TelemetryService:
    """Observes one engine. Safe to use from any number of threads.

    Args:
        stats: Returns the current counters; raises ClosedError after the end.
        hierarchy: The observed hierarchy.
        move_log: The latest moves.
        clock: The clocks.
        directory: Where the files for other processes are written, None to write none.
        about: Further fields of the document that never change.
    """

    def __init__(
        self,
        stats: Callable[[], Stats],
        hierarchy: Hierarchy,
        move_log: MoveLog,
        clock: Clock,
        directory: Path | None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self.stats = stats
        self._hierarchy = hierarchy
        self._move_log = move_log
        self._clock = clock
        self._directory = directory
        self._about = about or {}
        self._began: float | None = None
        entries = hierarchy.catalog.entries
        self._hot = HotKeys(lambda at, end: list(islice(entries, at, end)), entries.get)
        self._lock = new_lock()
        self._sampled_at = self._series_at = float("-inf")
        self._written: tuple[object, ...] = ()
        self._activity: tuple[float, ...] = ()
        self._quiet_at = float("-inf")
        self._sampler: Sampler | None = None
        self._metrics: DerivedMetrics | None = None
        self._thread = Periodic(self._refresh_files, "telemetry", seconds=TELEMETRY_SECONDS)
        if directory is not None:
            self._refresh_files()
            self._thread.start()

    def enable(self, interval: float, history: int) -> None:
        """Start sampling; samples of an earlier call are discarded."""
        if self._sampler is not None:
            self._sampler.stop()
        self._metrics = DerivedMetrics(self.stats())
        self._sampler = Sampler(
            self._sample, self._clock.monotonic, interval_seconds=interval, history=history
        )
        self._began = self._clock.wall()
        self._sampler.start()

    def series(self, window: float | None = None) -> Series:
        """Return the series sampled so far.

        Raises:
            InvalidOptionError: the analytics are off, or the window is invalid.
        """
        if self._sampler is None:
            raise InvalidOptionError("analytics are off; call enable_analytics() first")
        return self._sampler.series(window)

    def series_or_none(self) -> Series | None:
        """Return the series sampled so far, None while the analytics are off."""
        return None if self._sampler is None else self._sampler.series()

    def document(self, hot_keys: int = HOT_KEYS) -> Document:
        """Return the current state as plain data."""
        stats = self.stats()
        with self._lock:
            now = self._clock.monotonic()
            if now - self._sampled_at >= HOT_KEY_SECONDS or not self._hot:
                self._hot.sample(now)
                self._sampled_at = now
            hottest, pinned = self._hot.top(hot_keys), self._hot.pinned()
        return document_of(
            stats,
            hot_keys=hottest,
            pinned_keys=pinned,
            moves=list(self._move_log.latest),
            wall=self._clock.wall(),
            monotonic=now,
            **self._about,
            state=self._hierarchy.state.value,
            pid=os.getpid(),
            host=os.uname().nodename,
            rss_bytes=resident_bytes(),
            analytics_began=self._began,
            sample=None if self._sampler is None else _numbers(self._sampler.latest()),
        )

    def disable_in_child(self) -> None:
        """Stop sampling and writing in a forked child: both belong to the parent."""
        self._sampler = self._directory = self._began = None

    def stop(self) -> None:
        """End the threads, and mark the files as those of a closed manager."""
        self._thread.stop()
        self._try_write(self._write_closed)
        if self._sampler is not None:
            self._sampler.stop()

    def _sample(self) -> Sample:
        assert self._metrics is not None, "`enable` sets it before the first sample"
        return self._metrics.sample(self.stats(), self._clock.monotonic())

    def _refresh_files(self) -> None:
        """Write the files if anything has changed."""
        activity, now = self._hierarchy.activity(), self._clock.monotonic()
        self._thread.seconds = TELEMETRY_SECONDS
        if activity != self._activity or self._sampler is not None:
            self._activity, self._quiet_at = activity, now
            self._try_write(self._write_changes)
        elif now - self._quiet_at > QUIET_SECONDS:
            self._thread.seconds = idle_poll_seconds(now - self._quiet_at)
        else:
            self._try_write(self._write_changes)
        if self._directory is None:
            self._thread.stop()

    def _write_changes(self, directory: Path) -> None:
        document = {**self.document(), "in_ram": self._in_ram()}
        state = tuple(document[name] for name in CHANGING)
        if state != self._written:
            self._written = state
            write_document(directory, document)
        now = self._clock.monotonic()
        if self._sampler is not None and now - self._series_at >= SERIES_SECONDS:
            self._series_at = now
            write_series(directory, self.series())

    def _in_ram(self) -> Mapping[str, Any]:
        """Return how many values are in RAM and nowhere else; of a few, also which they are."""
        catalog = self._hierarchy.catalog
        values = sum(catalog.counts.values())
        listed = list(catalog.entries.values()) if len(catalog.entries) <= MOST_LISTED else []
        return {
            "values": values,
            "unwritten": values - catalog.backing.total(),
            "listed": [
                (one.key, str(one.tier), one.size, one.backed is not None)
                for one in listed
                if one.key[0] != INTERNAL
            ],
        }

    def _write_closed(self, directory: Path) -> None:
        write_document(directory, {**self.document(), "state": LifecycleState.CLOSED.value})
        if self._sampler is not None:
            write_series(directory, self.series())

    def _try_write(self, write: Callable[[Path], None]) -> None:
        directory = self._directory
        if directory is None:
            return
        try:
            write(directory)
        except OSError as error:
            self._directory = None
            logger.warning(
                "telemetry files in %s could not be written and are no longer updated: %s",
                directory,
                error,
            )


def _numbers(sample: Mapping[str, float]) -> dict[str, float | None]:
    return {name: none_for_nan(value) for name, value in sample.items()}
