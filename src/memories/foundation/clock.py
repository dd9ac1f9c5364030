"""The clocks: monotonic for recency, wall clock for times that are stored.

The wall clock of a machine can jump: set by hand, by mistake, or by a wrong time server. Within a
process it therefore advances with the monotonic clock, and follows a jump only if the jump lasts. A
clock that is ten days ahead for a moment changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

STEP_SECONDS = 1.0  # A smaller jump forward is followed at once; after one back, time stands still.
BELIEF_SECONDS = 30.0  # A larger jump is followed after it has lasted this long.


class Clock(Protocol):
    """The clocks that the engine reads."""

    def monotonic(self) -> float:
        """Return seconds that never run backwards within this process."""

    def wall(self) -> float:
        """Return seconds since the epoch; they run backwards only to follow a clock set back."""


class WallClock:
    """The wall clock without short jumps. Safe to use from any number of threads.

    Args:
        system: Returns seconds since the epoch by the machine's clock.
        steady: Returns seconds of a clock that cannot be set, preferably including sleep.
    """

    def __init__(self, system: Callable[[], float], steady: Callable[[], float]) -> None:
        self._system = system
        self._steady = steady
        # The latest result, the steady time of it, and the steady time since which the system's
        # clock has disagreed. One tuple that is replaced in one assignment, so that no lock is
        # needed and a fork or an interrupt can come at any moment.
        self._latest: tuple[float, float, float | None] = (system(), steady(), None)

    def read(self) -> float:
        """Return seconds since the epoch."""
        now, steady = self._system(), self._steady()
        latest, asked, doubted = self._latest
        expected = latest + (steady - asked)
        if -STEP_SECONDS < now - expected < STEP_SECONDS:
            now, doubted = max(now, latest), None
        elif doubted is None:
            now, doubted = expected, steady
        elif steady - doubted < BELIEF_SECONDS:
            now = expected
        else:
            doubted = None
        self._latest = (now, steady, doubted)
        return now


if hasattr(time, "CLOCK_BOOTTIME"):

    def _steady() -> float:
        """Return seconds that include the time for which the machine sleeps."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

else:
    _steady = time.monotonic

_wall = WallClock(lambda: time.time(), _steady)  # Looked up at each call: a test may set it.


class SystemClock:
    """The machine's clocks; the whole process shares one wall clock."""

    # The functions themselves: they are called at every hit of a value that expires.
    monotonic = staticmethod(time.monotonic)
    wall = staticmethod(_wall.read)
