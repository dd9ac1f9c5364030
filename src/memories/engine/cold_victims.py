"""Who leaves the cold tier next: the coldest of a sample, so that a key at rest costs no RAM.

Not an order of all keys. A hand reads the journal in key order, some records at a time; the coldest
of these wait in a small pool, the others are forgotten (Redis chooses its victims so). How cold a
key is says the memory of recent touches; among those that it has forgotten the oldest version goes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from memories.backends.disk import DiskBackend
from memories.engine.recency import RecencyTracker
from memories.engine.victims import Victims
from memories.foundation.fork_lock import new_lock
from memories.model.record import Record
from memories.model.tiers import TierName

SAMPLE = 128  # Records that may leave, read at a time ...
LOOKED_AT = 2048  # ... unless so many others lie among them, and one was found.
POOL = 16  # The coldest of a sample and of those left of the one before.
REST = 8  # When so many are left, the next sample is read.


class ColdVictims(Victims[Record]):
    """The records of the cold tier. Reading a sample takes some milliseconds, for eight victims."""

    def __init__(
        self,
        journal: DiskBackend,
        tier: TierName,
        may_leave: Callable[[Record], bool],
        recency: RecencyTracker,
    ) -> None:
        self._journal = journal
        self._tier = tier
        self._may_leave = may_leave
        self._recency = recency
        self._hand = ""
        self._pool: dict[str, int] = {}  # Keys, with the versions that were seen.
        self._offered: dict[str, int] = {}  # Likewise, those that a sweep has in hand.
        self._lock = new_lock()

    def add(self, found: Record, *, accessed: bool = True) -> None:
        """Let it be offered again, if a sweep had it in hand and it stays."""
        with self._lock:
            self._offered.pop(found.key, None)

    def rebuild(self) -> None:
        """Offer again what a sweep had in hand that is over."""
        with self._lock:
            self._offered.clear()

    def discard(self, found: Record) -> None:
        """Nothing to forget: the journal knows it."""

    def record_arrival(self, key: str, reads: int) -> None:
        """Let the memory of touches know."""
        self._recency.record_demotion(key, reads)

    def forget(self, key: str) -> None:
        """Forget when it was touched."""
        self._recency.forget(key)

    def offer(self) -> Record | None:
        """Take the coldest out of the pool, read anew when it runs low; None if nothing may go."""
        with self._lock:
            if len(self._pool) <= REST:
                self._sample()
            for key in sorted(self._pool, key=self._rank):
                version = self._pool.pop(key)
                record = self._current(key, version)
                if record is not None:
                    self._offered[key] = version
                    return record
            return None

    def _current(self, key: str, version: int) -> Record | None:
        """Return the record of a key that was seen before, if it is here and may leave still."""
        record = self._journal.lookup(key)
        found = record is not None and record.version == version and self._leaves(record)
        return record if found else None

    def _sample(self) -> None:
        # What a sweep has moved is no longer here; what it gives back, it has named by `add`.
        held = self._offered.items()
        self._offered = {key: version for key, version in held if self._current(key, version)}
        for looked_at, record in enumerate(self._round()):
            self._hand = record.key
            if self._leaves(record) and record.key not in self._offered:
                self._pool[record.key] = record.version
            if len(self._pool) >= POOL + SAMPLE or (looked_at >= LOOKED_AT and self._pool):
                break
        coldest = sorted(self._pool, key=self._rank)[:POOL]
        self._pool = {key: self._pool[key] for key in coldest}

    def _rank(self, key: str) -> tuple[float, int]:
        return -self._recency.coldness(key), self._pool[key]

    def _leaves(self, record: Record) -> bool:
        return record.tier is self._tier and self._may_leave(record)

    def _round(self) -> Iterator[Record]:
        """Yield the records after the hand, and those up to it after the end."""
        start = self._hand
        yield from self._journal.scan(after=start)
        for record in self._journal.scan():
            if record.key > start:
                return
            yield record
