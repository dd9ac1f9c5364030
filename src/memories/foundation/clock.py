"""Time, injected: recency reads the monotonic clock, ages that persist read the wall clock.

The wall clock of a machine can be set: by hand, by mistake, by a server of time that was wrong. The
one idea: within a process it goes on as the monotonic clock does, and only where the two disagree
for long is the wall clock followed. A clock that was ten days ahead for a moment changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

STEP_SECONDS = 1.0  # What is set by less is followed at once, or stood still for.
BELIEF_SECONDS = 30.0  # A clock that jumped further is believed after so long.


class Clock(Protocol):
    """What the engine may ask about time."""

    def monotonic(self) -> float:
        """Return seconds that never run backwards within this process."""

    def wall(self) -> float:
        """Return seconds since the epoch; they run backwards only to follow a clock set back."""


class WallClock:
    """The wall clock, as far as it is to be believed. Safe to use from any number of threads.

    Args:
        system: Seconds since the epoch, as the machine has them.
        steady: Seconds that nobody sets; they should count those that the machine sleeps.
    """

    def __init__(self, system: Callable[[], float], steady: Callable[[], float]) -> None:
        self._system = system
        self._steady = steady
        # The latest answer, when that was by a clock that nobody sets, and since when the system's
        # has said something else. One object that is replaced: no lock, for a fork or an interrupt
        # may come at any moment.
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
        """Return seconds that count those the machine sleeps, too."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

else:
    _steady = time.monotonic

_wall = WallClock(lambda: time.time(), _steady)  # Looked up at each call: a test may set it.


class SystemClock:
    """The machine's clocks; all of a process share one idea of what time it is."""

    # The functions themselves: they are asked at every hit of what expires, or of a local copy.
    monotonic = staticmethod(time.monotonic)
    wall = staticmethod(_wall.read)
