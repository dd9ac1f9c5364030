"""Whether a version's time has come. The one place that compares a time to live with a clock.

Not its removal. Two ideas. What was stored in the future, by a clock that has been set right since,
lives for as long as it was given and no longer, counted from when that was found out. And a caller
who lists all keys to read them in the same breath, as `dict(manager)` does, is shown what was there
when he listed them: while he is at it, what expires is removed only for room.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import FrameType
from typing import NamedTuple

from memories.foundation.clock import STEP_SECONDS
from memories.model.entry import Entry
from memories.model.record import Record

AHEAD_SECONDS = 60.0  # By less, clocks of two machines that share an archive may differ.

BREATH_SECONDS = 5.0  # Between two reads of what was listed, at most, of keys that expire ...
LONGEST_SECONDS = 60.0  # ... and in all, after which they are removed though somebody reads.
MANY_LISTINGS = 64  # From here on those that ended are forgotten before the next one.


class CallSite(NamedTuple):
    """One instruction of one call: what a listing and the reads that belong to it have in common.

    Only what is written in C, such as `dict(manager)` and `{**manager}`, asks for the keys and then
    for the values without the caller's next instruction in between.
    """

    frame: int
    instruction: int

    @classmethod
    def of(cls, frame: FrameType) -> CallSite:
        """Return the breath that `frame` is at."""
        return cls(id(frame), frame.f_lasti)


class Listing(NamedTuple):
    """What a thread has listed, for as long as it may still be reading it."""

    breath: CallSite
    moment: float  # When it was; seconds of the wall clock, as are the others.
    until: float


class Expiry:
    """Tells what has expired. Safe to use from any number of threads.

    Args:
        wall: Seconds since the epoch; they run backwards only to follow a clock set back.
    """

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._latest = self._since = wall()  # Since when this clock has run on.
        self._listings: dict[int, Listing] = {}  # By thread.

    def now(self) -> float:
        """Return the time of now, and learn of a clock that was set back."""
        now = self._wall()
        if now < self._latest - STEP_SECONDS:
            self._since = now
        self._latest = now
        return now

    def has_expired(self, found: Entry | Record) -> bool:
        """Return whether `found` has outlived its time; whoever asks is reading."""
        ends = found.terms.expires_at
        if ends is None:
            return False
        now = self.now()
        if self._listings:
            self._read_on(now)
        return self._is_over(found, ends, now)

    def removable(self, found: Entry | Record, *, shown: bool = False) -> bool:
        """Return whether `found` has outlived its time, and no listing shows it still.

        With `shown` whether or not one does: room is needed.
        """
        ends = found.terms.expires_at
        now = self.now() if shown else self.horizon()
        return ends is not None and self._is_over(found, ends, now)

    def _is_over(self, found: Entry | Record, ends: float, now: float) -> bool:
        if now >= ends:
            return True
        begun = found.stored_at
        return begun > now + AHEAD_SECONDS and now - self._since >= ends - begun

    def horizon(self) -> float:
        """Return the time up to which what has expired may be removed."""
        now = horizon = self.now()
        for thread, listing in list(self._listings.items()):
            if listing.moment <= now < listing.until:
                horizon = min(horizon, listing.moment)
            else:
                self._listings.pop(thread, None)
        return horizon

    def record_listing(self, frame: FrameType) -> None:
        """Learn that a caller who is at `frame` lists keys."""
        if len(self._listings) >= MANY_LISTINGS:
            self.horizon()
        now = self.now()
        self._listings[threading.get_ident()] = Listing(
            CallSite.of(frame), now, now + BREATH_SECONDS
        )

    def end_listing(self) -> None:
        """Learn that this thread does something else than to read what it has listed."""
        if self._listings:
            self._listings.pop(threading.get_ident(), None)

    def _read_on(self, now: float) -> None:
        me = threading.get_ident()
        listing = self._listings.get(me)
        if listing is not None:
            until = min(now + BREATH_SECONDS, listing.moment + LONGEST_SECONDS)
            self._listings[me] = listing._replace(until=until)

    def moment(self, frame: FrameType) -> float | None:
        """Return when a caller at `frame` listed the keys that he reads; None if he did not."""
        listing = self._listings.get(threading.get_ident())
        if listing is None or listing.breath != CallSite.of(frame):
            return None
        return listing.moment
