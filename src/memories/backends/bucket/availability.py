"""Whether the bucket can be used, and the repeated attempts to reach it.

A bucket that does not answer at the opening is away. It is tried again in the background, and a
call that needs it meanwhile fails at once. (`retry` repeats a single request.)
"""

from __future__ import annotations

from collections.abc import Callable

from memories.errors import (
    ClosedError,
    MemoriesError,
    RefusedError,
    StoreLockedError,
    UnavailableError,
)
from memories.foundation.fork_lock import new_lock
from memories.foundation.periodic import BackgroundThread, Latch, Periodic

_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 30.0
_STOP_SECONDS = 5.0


class Availability:
    """The connection to a bucket, made by `connect`, which may be called again and again."""

    def __init__(self, url: str, connect: Callable[[], None]) -> None:
        self.away: MemoriesError | None = None  # Why the bucket cannot be used, if it cannot.
        self._url = url
        self._connect = connect
        self._connected = False
        self._reconnected: Callable[[], None] = lambda: None
        self._available: Callable[[], None] = lambda: None
        self._lock = new_lock()
        self._busy = False  # Whether an attempt is under way.
        self._last: Callable[[], None] | None = None  # To be called once no attempt is under way.
        self._attempts = Periodic(self._retry, "glacier-link", seconds=_FIRST_PAUSE_SECONDS)

    def open(self, seconds: float | None) -> None:
        """Connect; if the bucket is away or silent for `seconds`, return, and it is `away`.

        Raises:
            MemoriesError: the bucket has answered, and cannot be used; or, without `seconds`, it
                did not answer.
        """
        if seconds is None:
            self._attempt()
            return
        ended = Latch()
        failures: list[BaseException] = []

        def first() -> None:
            try:
                self._attempt()
            except BaseException as error:
                failures.append(error)
            finally:
                ended.set()

        self.away = UnavailableError(f"the archive {self._url} has not answered so far")
        BackgroundThread(first, "glacier-first").start()
        ended.wait(seconds)
        if not ended.is_set():
            return
        if not failures:
            self.away = None
        elif isinstance(failures[0], UnavailableError) and not isinstance(
            failures[0], RefusedError
        ):
            self.away = failures[0]
        else:
            raise failures[0]

    def resume(self, reconnected: Callable[[], None], available: Callable[[], None]) -> None:
        """Try until the bucket answers and `reconnected` returns; then call `available`.

        For all other callers the bucket is away until `reconnected` has returned.
        """
        self._reconnected, self._available = reconnected, available
        if self.away is not None:
            self._attempts.start()

    def require(self) -> None:
        """Raise unless the bucket can be used.

        Raises:
            UnavailableError: it is away.
            StoreLockedError: another store has become its writer.
        """
        away = self.away
        if away is None:
            return
        kind = StoreLockedError if isinstance(away, StoreLockedError) else UnavailableError
        raise kind(f"{away}; it is tried again by itself, and everything else goes on") from away

    def stop(self, last: Callable[[], None]) -> None:
        """End the attempts, and call `last`: now, or when a request that is under way has ended."""
        self._attempts.stop(_STOP_SECONDS)
        with self._lock:
            if self._busy:
                self._last = last
                return
        last()

    def _retry(self) -> None:
        with self._lock:
            if self._busy:
                return  # The first one is still waiting for an answer.
        try:
            if not self._connected:
                self._attempt()
            self._reconnected()
        except ClosedError:
            raise
        except MemoriesError as error:
            self.away = error
            assert self._attempts.seconds is not None
            self._attempts.seconds = min(2 * self._attempts.seconds, _LONGEST_PAUSE_SECONDS)
            return
        self.away = None
        self._available()
        self._attempts.stop()

    def _attempt(self) -> None:
        with self._lock:
            self._busy = True
        try:
            self._connect()
            self._connected = True
        finally:
            with self._lock:
                self._busy = False
                last = self._last
            if last is not None:
                last()
