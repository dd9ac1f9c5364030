"""Decides whether a version has expired: the only place that compares a time to live with a clock.

A version whose store time lies in the future comes from a clock that has been set back since. It
lives for its time to live, counted from when that was found out.

A caller may list all keys and read them in one call, as `dict(manager)` does. It is shown what was
there when it listed them: until it has read them, expired values are removed only for room.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import FrameType
from typing import NamedTuple

from memories.foundation.clock import STEP_SECONDS
from memories.model.entry import Entry
from memories.model.record import Record

AHEAD_SECONDS = 60.0  # The clocks of two machines that share an archive may differ by less.

READ_ON_SECONDS = 5.0  # At most between two reads of listed keys that expire ...
LONGEST_SECONDS = 60.0  # ... and for the whole listing; then its keys are removed all the same.
MANY_LISTINGS = 64  # From here on, ended listings are dropped before the next one is added.


class CallSite(NamedTuple):
    """One instruction of one call: the same for a listing and for the reads that belong to it.

    Only code written in C, such as `dict(manager)` and `{**manager}`, lists the keys and reads the
    values within one instruction of the caller.
    """

    frame: int
    instruction: int

    @classmethod
    def of(cls, frame: FrameType) -> CallSite:
        """Return the instruction that `frame` executes."""
        return cls(id(frame), frame.f_lasti)


class Listing(NamedTuple):
    """A list of keys that a thread may still be reading."""

    site: CallSite
    moment: float  # When it was; seconds of the wall clock, as are the others.
    until: float


class Expiry:
    """Decides which versions have expired. Safe to use from any number of threads.

    Args:
        wall: Seconds since the epoch; they run backwards only to follow a clock set back.
    """

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._latest = self._since = wall()  # Since when this clock has run on.
        self.listings: dict[int, Listing] = {}  # By thread.

    def now(self) -> float:
        """Return the present time, and notice a clock that was set back."""
        now = self._wall()
        if now < self._latest - STEP_SECONDS:
            self._since = now
        self._latest = now
        return now

    def has_expired(self, found: Entry | Record) -> bool:
        """Return whether `found` has expired; the caller is reading it."""
        ends = found.terms.expires_at
        if ends is None:
            return False
        now = self.now()
        if self.listings:
            self._read_on(now)
        return self._is_over(found, ends, now)

    def removable(self, found: Entry | Record, *, shown: bool = False) -> bool:
        """Return whether `found` has expired, and no listing still shows it.

        With `shown` it may be shown: room is needed.
        """
        ends = found.terms.expires_at
        if ends is None:
            return False
        return self._is_over(found, ends, self.now() if shown else self.horizon())

    def _is_over(self, found: Entry | Record, ends: float, now: float) -> bool:
        if now >= ends:
            return True
        begun = found.stored_at
        return begun > now + AHEAD_SECONDS and now - self._since >= ends - begun

    def horizon(self) -> float:
        """Return the time up to which expired versions may be removed."""
        now = horizon = self.now()
        for thread, listing in list(self.listings.items()):
            if listing.moment <= now < listing.until:
                horizon = min(horizon, listing.moment)
            else:
                self.listings.pop(thread, None)
        return horizon

    def record_listing(self, frame: FrameType) -> None:
        """Record that a caller at `frame` lists keys."""
        if len(self.listings) >= MANY_LISTINGS:
            self.horizon()
        now = self.now()
        self.listings[threading.get_ident()] = Listing(
            CallSite.of(frame), now, now + READ_ON_SECONDS
        )

    def end_listing(self) -> None:
        """End the listing of this thread: it does something else now."""
        if self.listings:
            self.listings.pop(threading.get_ident(), None)

    def _read_on(self, now: float) -> None:
        me = threading.get_ident()
        listing = self.listings.get(me)
        if listing is not None:
            until = min(now + READ_ON_SECONDS, listing.moment + LONGEST_SECONDS)
            self.listings[me] = listing._replace(until=until)

    def moment(self, frame: FrameType) -> float | None:
        """Return when a caller at `frame` listed the keys that it reads; None if it did not."""
        listing = self.listings.get(threading.get_ident())
        if listing is None or listing.site != CallSite.of(frame):
            return None
        return listing.moment
