"""Time, injected: recency reads the monotonic clock, ages that persist read the wall clock."""

from __future__ import annotations

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """What the engine may ask about time."""

    def monotonic(self) -> float:
        """Return seconds that never run backwards within this process."""

    def wall(self) -> float:
        """Return seconds since the epoch, clamped never to run backwards."""


class SystemClock:
    """The machine's clocks."""

    def __init__(self) -> None:
        self._latest = 0.0
        self._lock = threading.Lock()

    # The function itself: it is asked at every hit of a local copy of what lies on nodes.
    monotonic = staticmethod(time.monotonic)

    def wall(self) -> float:
        """Return `time.time()`, or the latest value seen when the clock was set back."""
        with self._lock:
            self._latest = max(self._latest, time.time())
            return self._latest
