"""Whether a version's time has come. The one place that compares a time to live with a clock.

Not its removal. The idea: what was stored in the future, by a clock that has been set right since,
lives for as long as it was given and no longer, counted from when that was found out.
"""

from __future__ import annotations

from collections.abc import Callable

from memories.clock import STEP_SECONDS
from memories.entry import Entry, Record

AHEAD_SECONDS = 60.0  # By less, clocks of two machines that share an archive may differ.


class Expiry:
    """Tells what has expired. Safe to use from any number of threads.

    Args:
        wall: Seconds since the epoch; they run backwards only to follow a clock set back.
    """

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._latest = self._since = wall()  # Since when this clock has run on.

    def now(self) -> float:
        """Return the time of now, and learn of a clock that was set back."""
        now = self._wall()
        if now < self._latest - STEP_SECONDS:
            self._since = now
        self._latest = now
        return now

    def over(self, found: Entry | Record) -> bool:
        """Return whether `found` has outlived its time."""
        ends = found.terms.expires_at
        if ends is None:
            return False
        now = self.now()
        if now >= ends:
            return True
        begun = found.stored_at
        return begun > now + AHEAD_SECONDS and now - self._since >= ends - begun
