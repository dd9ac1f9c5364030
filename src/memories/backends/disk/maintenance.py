"""The background threads of a store: one syncs within a second, one compacts, one unlinks files.

They start with the first commit and sleep while there is none. Work that fails is tried again, and
`check` shows the failure; a thread that could not start, or died, starts with the next commit.
"""

from __future__ import annotations

import time

from memories.backends.disk.compaction import run_upkeep
from memories.backends.disk.files import NO_SPACE
from memories.backends.disk.writer import Writer
from memories.errors import StorageError
from memories.foundation.logging import logger
from memories.foundation.periodic import Latch, Periodic

SYNC_SECONDS = 0.5
UPKEEP_SECONDS = 0.25
QUIET_SECONDS = 1.0
STOP_SECONDS = 60.0


class Maintenance:
    """Runs `writer.sync` and `run_upkeep` in the background until `stop`."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._ended = Latch()
        self._synced_lately = False
        self._syncer = Periodic(
            self._sync, "sync", rest_seconds=SYNC_SECONDS, wake_event=writer.appender.changed
        )
        self._upkeep = Periodic(self._run_upkeep, "upkeep", rest_seconds=UPKEEP_SECONDS)
        self._unlinker = Periodic(
            writer.unlink_obsolete, "unlink", wake_event=writer.obsolete.added
        )
        self.threads = (self._syncer, self._upkeep, self._unlinker)

    def start(self) -> None:
        """Start the threads that do not run; may be called from many threads at once."""
        if self._syncer.runs and self._upkeep.runs and self._unlinker.runs:
            return
        for thread in self.threads:
            thread.start()

    def problems(self) -> list[str]:
        """Return the failures of the background threads, for `check`."""
        failures = [one.failure for one in self.threads]
        return [f"the last upkeep failed: {error}" for error in failures if error is not None]

    def stop(self) -> None:
        """End the threads and wait for them.

        Raises:
            StorageError: one does not end because the disk does not answer.
        """
        self._ended.set()
        for one in self.threads:
            one.stop(0.0)
        if not all(one.stop(STOP_SECONDS) for one in self.threads):
            raise StorageError(
                f"upkeep of {self._writer.paths.root} has not ended within {STOP_SECONDS:.0f} s, "
                "because the disk does not answer; the store stays locked until this process ends"
            )

    def _sync(self) -> None:
        self._synced_lately = True
        self._upkeep.wake()
        self._writer.sync()

    def _run_upkeep(self) -> None:
        """Compact after a sync, and once more, thoroughly, when nothing was written for a while."""
        busy, self._synced_lately = self._synced_lately, False
        self._upkeep.seconds = QUIET_SECONDS if busy else None
        try:
            run_upkeep(self._writer, Pace(self._ended, self._writer), quiet=not busy)
        except StoppedError:
            pass  # `close` does the rest.


class StoppedError(Exception):
    """The store is being closed; it never leaves this package."""


class Pace:
    """Pauses long work in Python, so that it holds the interpreter a quarter of the time.

    It does not pause while a caller waits for this work.
    """

    def __init__(self, ended: Latch, writer: Writer) -> None:
        self._ended = ended
        self._writer = writer
        self._since = time.perf_counter()

    def __call__(self) -> None:
        """Sleep if it is time; raise `StoppedError` when the store is being closed."""
        now = time.perf_counter()
        if now - self._since > 200e-6:
            if self._ended.is_set():
                raise StoppedError
            if not self._writer.waiting:
                time.sleep(500e-6)
            self._since = time.perf_counter()


def write_last_checkpoint(writer: Writer) -> None:
    """Write a checkpoint; without room for one, the next opening reads the log instead."""
    try:
        writer.on_full_disk(writer.checkpoint)
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        writer.sync()
        logger.warning("no room for a checkpoint of %s; opening it takes longer", writer.paths.root)
