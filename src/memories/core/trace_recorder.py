"""Records the accesses to a manager, as a trace that `memories simulate` replays.

A line holds a time, a key and a size, but no value. The file is limited in size and may hold a
sample of the keys. A thread writes it; accesses that come too fast for it are counted as lost.
"""

from __future__ import annotations

import os
from collections import deque
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TextIO

from memories.core.services import Services
from memories.errors import InvalidOptionError, StorageError
from memories.foundation.logging import logger
from memories.foundation.periodic import Periodic
from memories.foundation.regular_file import open_output
from memories.foundation.units import parse_size
from memories.model.events import READS_AT_ONCE
from memories.policies.hashing import digest
from memories.simulate.traces import Access, jsonl_line

MAX_WAITING = 1 << 18  # Accesses that wait to be written.
WRITE_SECONDS = 0.2
_FULL = 1 << 64


class TraceRecorder(AbstractContextManager["TraceRecorder"]):
    """Writes a trace until `stop`, the end of a `with` statement, or the limit of its size.

    Meanwhile, reads of recorded keys do not use the front cache, which records no single access.

    Args:
        services: The services of the manager.
        path: A `.jsonl` file, replaced.
        share: The share of the keys that is recorded, each with all of its accesses.
        max_bytes: The size at which recording ends.

    Attributes:
        written: Accesses in the file.
        lost: Accesses that are missing, because they came too fast.
    """

    def __init__(
        self,
        services: Services,
        path: str | os.PathLike[str],
        *,
        share: float = 1.0,
        max_bytes: float | str = 1,
    ) -> None:
        if not 0 < share <= 1:
            raise InvalidOptionError(f"share={share!r} must be above 0 and at most 1")
        if Path(path).suffix != ".jsonl":
            raise InvalidOptionError(f"{Path(path).name!r} must end in .jsonl")
        self.written = self.lost = 0
        self._room = parse_size(max_bytes, name="max_bytes")
        self._below = int(share * _FULL)
        self._clock, self._hierarchy = services.clock, services.hierarchy
        self._sampler = services.access_sampler
        self._started_at = 0.0
        self._waiting: deque[Access] = deque()
        self._path = Path(path)
        self._file: TextIO
        self._failure: OSError | None = None
        self._active = True
        self._shortly = True  # Whether the short way of stores was in use before.
        self._thread = Periodic(self._write_waiting, "trace", seconds=WRITE_SECONDS)

    def start(self) -> None:
        """Start recording. OSError if the file cannot be opened."""
        self._started_at = self._clock.monotonic()
        self._file = os.fdopen(open_output(self._path), "w", encoding="utf-8")
        self._shortly, self._hierarchy.residency.enabled = self._hierarchy.residency.enabled, False
        self._hierarchy.settlement.settle()
        self._hierarchy.catalog.hide_from_front(self._records)
        self._hierarchy.events.reads_at_once = 1  # Batched reads would follow hits that came later.
        self._sampler.set_listener(self._record, list(self._hierarchy.catalog.entries.values()))
        self._thread.start()

    def stop(self) -> None:
        """Write what is left and close the file. Idempotent.

        Raises:
            StorageError: the trace could not be written, and ended before this.
        """
        if not self._thread.stop():
            raise StorageError(f"the disk does not answer: the end of {self._path} is missing")
        self._end()
        failure, self._failure = self._failure, None
        if failure is not None:
            raise StorageError(
                f"the trace {self._path} ended after {self.written} accesses: {failure}"
            ) from failure

    def _records(self, key: str) -> bool:
        return digest(key) < self._below

    def _record(self, key: str, size: int, read: bool) -> None:
        del read
        if not self._records(key) or not self._active:
            return
        if len(self._waiting) >= MAX_WAITING:
            self.lost += 1
        else:
            self._waiting.append(Access(self._clock.monotonic() - self._started_at, key, size))

    def _end(self) -> None:
        """Stop recording, write what is left and close the file."""
        if not self._active:
            return
        self._active = False
        self._hierarchy.catalog.hide_from_front(None)
        self._hierarchy.events.reads_at_once = READS_AT_ONCE
        self._sampler.set_listener(None, ())
        self._hierarchy.residency.enabled = self._shortly
        try:
            with self._file:
                self._write()
        except OSError as error:
            self._fail(error)

    def _write_waiting(self) -> None:
        try:
            if self._write():
                return
        except OSError as error:
            self._fail(error)
        self._end()
        self._thread.stop()

    def _fail(self, error: OSError) -> None:
        self._waiting.clear()
        if self._failure is None:
            self._failure = error
            logger.warning("the trace %s ends here: %s", self._path, error)

    def _write(self) -> bool:
        """Write what waits; False once the file is full."""
        while self._waiting:
            line = jsonl_line(self._waiting.popleft())
            self._room -= len(line.encode())
            if self._room < 0:
                self._waiting.clear()
                return False
            self._file.write(line)
            self.written += 1
        self._file.flush()
        return True

    def __exit__(self, *error: object) -> None:
        self.stop()
