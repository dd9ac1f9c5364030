"""Whether a version's time has come. The one place that compares a time to live with a clock.

Not its removal. Two ideas. What was stored in the future, by a clock that has been set right since,
lives for as long as it was given and no longer, counted from when that was found out. And a caller
who lists all keys to read them in the same breath, as `dict(manager)` does, is shown what was there
when he listed them: as long as he is at it, nothing that expires is removed.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import NamedTuple

from memories.clock import STEP_SECONDS
from memories.entry import Entry, Record

AHEAD_SECONDS = 60.0  # By less, clocks of two machines that share an archive may differ.

MANY_LISTINGS = 64  # From here on those that ended are forgotten before the next one.


class Breath(NamedTuple):
    """One instruction of one call: what a listing and the reads that belong to it have in common.

    Only what is written in C, such as `dict(manager)` and `{**manager}`, asks for the keys and then
    for the values without the caller's next instruction in between.
    """

    frame: int
    instruction: int

    @classmethod
    def of(cls, frame: FrameType) -> Breath:
        """Return the breath that `frame` is at."""
        return cls(id(frame), frame.f_lasti)

    def lasts(self, frame: FrameType | None) -> bool:
        """Return whether a thread at `frame` has not gone on since."""
        while frame is not None:
            if id(frame) == self.frame:
                return frame.f_lasti == self.instruction
            frame = frame.f_back
        return False


class Expiry:
    """Tells what has expired. Safe to use from any number of threads.

    Args:
        wall: Seconds since the epoch; they run backwards only to follow a clock set back.
    """

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._latest = self._since = wall()  # Since when this clock has run on.
        self._listings: dict[int, tuple[Breath, float]] = {}  # By thread, and when that was.

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
        return ends is not None and self._is_over(found, ends, self.now())

    def removable(self, found: Entry | Record) -> bool:
        """Return whether `found` has outlived its time, and no listing shows it still."""
        ends = found.terms.expires_at
        return ends is not None and self._is_over(found, ends, self.horizon())

    def _is_over(self, found: Entry | Record, ends: float, now: float) -> bool:
        if now >= ends:
            return True
        begun = found.stored_at
        return begun > now + AHEAD_SECONDS and now - self._since >= ends - begun

    def horizon(self) -> float:
        """Return the time up to which what has expired may be removed."""
        now = self.now()
        if not self._listings:
            return now
        frames = sys._current_frames()
        for thread, (breath, moment) in list(self._listings.items()):
            if breath.lasts(frames.get(thread)):
                now = min(now, moment)
            else:
                self._listings.pop(thread, None)
        return now

    def listed(self, frame: FrameType) -> None:
        """Learn that a caller who is at `frame` lists keys."""
        if len(self._listings) >= MANY_LISTINGS:
            self.horizon()
        self._listings[threading.get_ident()] = (Breath.of(frame), self.now())

    def moment(self, frame: FrameType) -> float | None:
        """Return when a caller at `frame` listed the keys that he reads; None if he did not."""
        listing = self._listings.get(threading.get_ident())
        return listing[1] if listing is not None and listing[0] == Breath.of(frame) else None
