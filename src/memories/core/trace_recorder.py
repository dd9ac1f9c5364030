"""Records what a manager is asked for, as a trace that `memories simulate` replays.

Not a log of values: a line holds a time, a key and a size. Bounded in bytes, sampled by key, and
written by a thread of its own; what comes too fast for it is counted as lost.
"""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Self

from memories.engine.access_sampler import AccessSampler
from memories.engine.hierarchy import Hierarchy
from memories.errors import InvalidOptionError, StorageError
from memories.foundation.clock import Clock
from memories.foundation.logging import logger
from memories.foundation.periodic import Periodic
from memories.foundation.units import parse_size
from memories.model.events import READS_AT_ONCE
from memories.policies.hashing import digest
from memories.simulate.traces import Access, jsonl_line

MAX_WAITING = 1 << 18  # Accesses that wait to be written.
WRITE_SECONDS = 0.2
_FULL = 1 << 64


class TraceRecorder:
    """A trace while it is written; ends with `stop`, at the end of a `with`, or when it is full.

    While it goes on, reads of recorded keys take the long road, for the short one tells nobody.

    Args:
        path: A `.jsonl` file, replaced.
        share: The share of the keys that is recorded; all accesses to these are.
        max_bytes: The size at which the file ends.

    Attributes:
        written: Accesses in the file.
        lost: Accesses that came too fast to be written.
    """

    def __init__(
        self,
        hierarchy: Hierarchy,
        sampler: AccessSampler,
        clock: Clock,
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
        self._clock, self._hierarchy, self._sampler = clock, hierarchy, sampler
        self._started_at = clock.monotonic()
        self._waiting: deque[Access] = deque()
        self._file = Path(path).open("w", encoding="utf-8")  # noqa: SIM115 - the thread closes it.
        self._failure: OSError | None = None
        self._goes_on = True
        self._thread = Periodic(self._look, "trace", seconds=WRITE_SECONDS)
        hierarchy.catalog.hide_from_front(self._records)
        hierarchy.events.reads_at_once = 1  # Or they would come after hits that they preceded.
        sampler.listen(self._note, list(hierarchy.catalog.entries.values()))
        self._thread.start()

    def stop(self) -> None:
        """Write what is left and close the file. Idempotent.

        Raises:
            StorageError: the trace could not be written, and ended before this.
        """
        if not self._thread.stop():
            raise StorageError(f"the disk does not answer; {self._file.name} lacks its end")
        self._end()
        failure, self._failure = self._failure, None
        if failure is not None:
            raise StorageError(
                f"the trace {self._file.name} ended after {self.written} accesses: {failure}"
            ) from failure

    def _records(self, key: str) -> bool:
        return digest(key) < self._below

    def _note(self, key: str, size: int, read: bool) -> None:
        del read
        if not self._records(key) or not self._goes_on:
            return
        if len(self._waiting) >= MAX_WAITING:
            self.lost += 1
        else:
            self._waiting.append(Access(self._clock.monotonic() - self._started_at, key, size))

    def _end(self) -> None:
        """Listen no more, write what is left and close the file."""
        if not self._goes_on:
            return
        self._goes_on = False
        self._hierarchy.catalog.hide_from_front(None)
        self._hierarchy.events.reads_at_once = READS_AT_ONCE
        self._sampler.listen(None, ())
        try:
            with self._file:
                self._write()
        except OSError as error:
            self._fail(error)

    def _look(self) -> None:
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
            logger.warning("the trace %s ends here: %s", self._file.name, error)

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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
