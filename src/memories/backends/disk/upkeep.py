"""The threads behind a store: one syncs within the second, one tidies up, one unlinks files.

They start with the first commit and sleep while there is none. A failure is kept, tried again, and
shown by `check`; it never ends a thread.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable

from memories.backends.disk.compact import tidy
from memories.backends.disk.writer import Writer
from memories.logs import logger

SYNC_SECONDS = 0.5
TIDY_SECONDS = 0.25
QUIET_SECONDS = 1.0


class Upkeep:
    """Runs `writer.sync` and `tidy` in the background until `stop`."""

    def __init__(self, writer: Writer) -> None:
        self._writer = weakref.ref(writer)
        self._changed = writer.changed
        self._stopped = threading.Event()
        self._untidy = threading.Event()
        self._filled = writer.graves.filled
        self._starting = threading.Lock()
        self._threads: list[threading.Thread] = []
        self.failure: BaseException | None = None
        # A store that is dropped without `close` takes its threads with it.
        weakref.finalize(writer, self._wake).atexit = False

    def start(self) -> None:
        """Start the threads, unless they run; many may ask at once."""
        if self._threads or self._stopped.is_set():
            return
        with self._starting:
            if self._threads:
                return
            threads = [
                threading.Thread(target=self._sync_loop, name="memories-sync", daemon=True),
                threading.Thread(target=self._tidy_loop, name="memories-tidy", daemon=True),
                threading.Thread(target=self._unlink_loop, name="memories-unlink", daemon=True),
            ]
            for thread in threads:
                thread.start()
            self._threads = threads

    def problems(self) -> list[str]:
        """Return what `check` should say of the background."""
        return [] if self.failure is None else [f"the last upkeep failed: {self.failure}"]

    def stop(self) -> None:
        """End the threads and wait for them."""
        self._wake()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()

    def _wake(self) -> None:
        self._stopped.set()
        self._changed.set()
        self._untidy.set()
        self._filled.set()

    def _sync_loop(self) -> None:
        while True:
            self._changed.wait()
            self._changed.clear()
            if self._stopped.is_set():
                return
            self._untidy.set()
            self._try(Writer.sync, self._changed)
            self._stopped.wait(SYNC_SECONDS)

    def _tidy_loop(self) -> None:
        while True:
            self._untidy.wait()
            if self._stopped.is_set():
                return
            self._untidy.clear()
            self._stopped.wait(TIDY_SECONDS)
            self._try(self._tidy, self._untidy)
            if self._untidy.is_set() or self._stopped.wait(QUIET_SECONDS):
                continue
            if not self._untidy.is_set():
                self._try(self._tidy_all, self._untidy)

    def _unlink_loop(self) -> None:
        """Give the pages of dead files back soon, for whoever writes the next ones."""
        while True:
            self._filled.wait()
            self._filled.clear()
            if self._stopped.is_set():
                return
            self._try(Writer.release, self._filled)

    def _tidy(self, writer: Writer) -> None:
        tidy(writer, Pace(self._stopped))

    def _tidy_all(self, writer: Writer) -> None:
        tidy(writer, Pace(self._stopped), quiet=True)

    def _try(self, action: Callable[[Writer], object], again: threading.Event) -> None:
        writer = self._writer()
        if writer is None:
            self._stopped.set()
            return
        try:
            action(writer)
            self.failure = None
        except StoppedError:
            pass  # `close` does what is left.
        except Exception as error:
            if self.failure is None:
                logger.warning("upkeep of a store failed and is tried again: %s", error)
            self.failure = error
            del writer
            self._stopped.wait(1.0)
            again.set()


class StoppedError(Exception):
    """The store is being closed; it never leaves this package."""


class Pace:
    """Lets long work in Python give way: it holds the interpreter a quarter of the time."""

    def __init__(self, stopped: threading.Event) -> None:
        self._stopped = stopped
        self._since = time.perf_counter()

    def __call__(self) -> None:
        """Sleep if it is time to; raise `StoppedError` when the store is being closed."""
        now = time.perf_counter()
        if now - self._since > 200e-6:
            if self._stopped.is_set():
                raise StoppedError
            time.sleep(500e-6)
            self._since = time.perf_counter()
