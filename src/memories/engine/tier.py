"""A tier: one class for all four, which differ by what they are given.

Its medium keeps payloads, its budget counts bytes, its victims say who leaves first. It decides
nothing and moves nothing: that is the hierarchy's work.
"""

from __future__ import annotations

from threading import get_ident
from typing import Any

from memories.engine.budget import BackendBudget, Budget
from memories.engine.hit_clock import HitClock, HitCounter
from memories.engine.payload import Payload
from memories.engine.tier_storage import TierStorage
from memories.engine.victims import Arrival, Victims
from memories.model.entry import Entry
from memories.model.record import Record, Version
from memories.model.tiers import TierName


class EvictionThreads:
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
        storage: TierStorage,
        budget: Budget | BackendBudget,
        victims: Victims,
        counter: HitCounter,
        hit_clock: HitClock,
    ) -> None:
        self.name = name
        self.storage = storage
        self.budget = budget
        self.victims = victims
        self.counter = counter
        self.hit_clock = hit_clock
        self.sweeps = EvictionThreads()

    def save(
        self,
        payload: Payload,
        version: Version,
        *,
        hits: int = 0,
        backed: TierName | None = None,
        archived: bytes = b"",
    ) -> Entry | Record:
        """Keep a payload in the home form, for which room was reserved."""
        found: Entry | Record = self.storage.keep(
            payload, version, hits=hits, backed=backed, archived=archived
        )
        return found

    def load(self, found: Entry | Record) -> Payload:
        """Return what `found` stands for."""
        return self.storage.take(found)

    def load_part(self, found: Entry | Record) -> Payload:
        """Return what `found` stands for, to read regions of it only."""
        return self.storage.take_part(found)

    def holds(self, size: int) -> bool:
        """Return whether a value of `size` bytes could ever lie here."""
        return size <= self.budget.effective

    def admits(self, key: str, size: int, *, hits: int) -> bool:
        """Return whether a value may come in on its merit: for free room, or in another's place.

        `hits` is how often it was read elsewhere. Advice: who has nowhere else to go comes in.
        """
        if size <= self.budget.headroom:
            return True
        return self.victims.admits(Arrival(key, size, hits=hits, stamp=self.counter.stamp()))

    def __repr__(self) -> str:
        return f"<Tier {self.name} {self.budget.used} of {self.budget.effective} B>"


def version_of(found: Entry | Record | Any) -> Version:
    """Return the version that an entry or a record stands for."""
    return Version(found.key, found.version, found.stored_at, found.terms)
