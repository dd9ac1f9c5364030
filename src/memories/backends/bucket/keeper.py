"""A thread that does now and then what must be done: renew the lease, ship, reclaim.

Not a place for faults to vanish: whoever writes, syncs or closes does the same, and is told.
It ends when it is told to, or with the process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from memories.errors import MemoriesError


class Keeper:
    """Calls `chore` every `seconds` until stopped."""

    def __init__(self, chore: Callable[[], None], seconds: float) -> None:
        self._chore = chore
        self._seconds = seconds
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memories-glacier", daemon=True)
        self.failure: MemoriesError | None = None
        self._thread.start()

    def stop(self) -> None:
        """Return once the thread has ended; a chore at work is waited for."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(self._seconds):
            try:
                self._chore()
                self.failure = None
            except MemoriesError as error:
                self.failure = error
