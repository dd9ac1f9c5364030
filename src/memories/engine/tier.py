"""A tier: one class for all four, which differ by what they are given.

Its medium keeps payloads, its ledger counts bytes, its victims say who leaves first. It decides
nothing and moves nothing: that is the hierarchy's work.
"""

from __future__ import annotations

from threading import get_ident
from typing import Any

from memories.engine.budget import BackendLedger, Ledger
from memories.engine.hit_clock import HitCounter, Timeline
from memories.engine.payload import Parcel
from memories.engine.tier_storage import Medium
from memories.engine.victims import Arrival, Victims
from memories.model.entry import Entry, Record, TierName, Version


class Sweeps:
    """How many threads are making room in a tier."""

    def __init__(self) -> None:
        self._threads: set[int] = set()

    def begin(self) -> None:
        """Count this thread."""
        self._threads.add(get_ident())

    def end(self) -> None:
        """Count it no more."""
        self._threads.discard(get_ident())

    def reset(self) -> None:
        """Count nobody, while nobody is at it."""
        self._threads.clear()

    @property
    def shared(self) -> bool:
        """Return whether there is more than one."""
        return len(self._threads) > 1


class Tier:
    """One level of the hierarchy."""

    def __init__(
        self,
        name: TierName,
        *,
        medium: Medium,
        ledger: Ledger | BackendLedger,
        victims: Victims,
        counter: HitCounter,
        timeline: Timeline,
    ) -> None:
        self.name = name
        self.medium = medium
        self.ledger = ledger
        self.victims = victims
        self.counter = counter
        self.timeline = timeline
        self.sweeps = Sweeps()

    def save(
        self,
        parcel: Parcel,
        version: Version,
        *,
        hits: int = 0,
        backed: TierName | None = None,
        archived: bytes = b"",
    ) -> Entry | Record:
        """Keep a parcel in the home form, for which room was reserved."""
        found: Entry | Record = self.medium.keep(
            parcel, version, hits=hits, backed=backed, archived=archived
        )
        return found

    def load(self, found: Entry | Record) -> Parcel:
        """Return what `found` stands for."""
        return self.medium.take(found)

    def load_part(self, found: Entry | Record) -> Parcel:
        """Return what `found` stands for, to read regions of it only."""
        return self.medium.take_part(found)

    def holds(self, size: int) -> bool:
        """Return whether a value of `size` bytes could ever lie here."""
        return size <= self.ledger.effective

    def admits(self, key: str, size: int, *, hits: int) -> bool:
        """Return whether a value may come in on its merit: for free room, or in another's place.

        `hits` is how often it was read elsewhere. Advice: who has nowhere else to go comes in.
        """
        if size <= self.ledger.headroom:
            return True
        return self.victims.admits(Arrival(key, size, hits=hits, stamp=self.counter.stamp()))

    def __repr__(self) -> str:
        return f"<Tier {self.name} {self.ledger.used} of {self.ledger.effective} B>"


def version_of(found: Entry | Record | Any) -> Version:
    """Return the version that an entry or a record stands for."""
    return Version(found.key, found.version, found.stored_at, found.terms)
