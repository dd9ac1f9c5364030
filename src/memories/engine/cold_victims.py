"""Chooses eviction candidates of the cold tier: the coldest of a sample of its records.

Keys at rest take no RAM, so no list orders all keys. A cursor reads the journal in key order,
some records at a time. The coldest of these wait in a small pool and the others are forgotten, as
Redis does it. A key is the colder the longer ago its last access is remembered, the larger it is,
and the less time it saves to read it here and not in glacier; among keys whose accesses are
forgotten the oldest version leaves first. Of keys that RAM holds as well the copies here move down
before all others; where a value that leaves is dropped, from RAM too, these keys come last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from memories.engine.recency import RecencyTracker
from memories.engine.victims import Victims
from memories.foundation.fork_lock import new_lock
from memories.model.entry import Entry
from memories.model.record import Record
from memories.model.tiers import TierName

if TYPE_CHECKING:
    from memories.backends.disk import DiskBackend

SAMPLE = 128  # Records that may leave, read at a time ...
LOOKED_AT = 2048  # ... or fewer, once so many records were read and one was found.
POOL = 16  # The coldest of a sample and of the pool before it.
REST = 8  # The next sample is read when so few are left in the pool.


class ColdVictims(Victims[Record]):
    """The records of the cold tier. Reading a sample takes some milliseconds, for eight victims."""

    def __init__(
        self,
        journal: DiskBackend,
        tier: TierName,
        may_leave: Callable[[Record], bool],
        recency: RecencyTracker,
        saved: Callable[[int], float],
        entries: Mapping[str, Entry],
        sinks: Callable[[Record], bool],
    ) -> None:
        """`saved` returns the seconds by which so many bytes are fetched faster from here.

        Keys of which RAM has `entries` are not read here. `sinks` says whether a slower tier takes
        a record; what leaves is dropped otherwise.
        """
        self._journal = journal
        self._tier = tier
        self._may_leave = may_leave
        self._recency = recency
        self._saved = saved
        self._entries = entries
        self._sinks = sinks
        self._cursor = ""
        self._keys = 0.0  # In the tier, when the latest sample was read.
        self._pool: dict[str, Record] = {}  # As they were seen.
        self._offered: dict[str, int] = {}  # Likewise, those handed to an eviction pass.
        self._lock = new_lock()

    def add(self, found: Record, *, accessed: bool = True) -> None:
        """Allow that a record which an eviction pass gave back is offered again."""
        with self._lock:
            self._offered.pop(found.key, None)

    def rebuild(self) -> None:
        """Offer again what an eviction pass held that has ended."""
        with self._lock:
            self._offered.clear()

    def discard(self, found: Record) -> None:
        """Do nothing: the journal has removed the record already."""

    def record_arrivals(self, arrivals: Sequence[tuple[str, int]]) -> None:
        """Record arrivals, each of which counts as an access."""
        self._recency.record_demotions(arrivals)

    def record_arrival(self, key: str) -> None:
        """Record the arrival of a small value."""
        self._recency.record_arrival(key)

    def forget(self, keys: Sequence[str]) -> None:
        """Forget the accesses of keys."""
        self._recency.forget(keys)

    def offer(self) -> Record | None:
        """Remove the coldest record from the pool and return it; None if no record may leave."""
        with self._lock:
            if len(self._pool) <= REST:
                self._sample()
            for key in sorted(self._pool, key=self._rank):
                version = self._pool.pop(key).version
                record = self._current(key, version)
                if record is not None:
                    self._offered[key] = version
                    return record
            return None

    def offer_next(self, found: Record) -> None:
        """Add the coldest record to the pool again, where nothing is colder."""
        with self._lock:
            self._offered.pop(found.key, None)
            self._pool[found.key] = found

    def _current(self, key: str, version: int) -> Record | None:
        """Return the record of a sampled key if it is still in the tier and may leave."""
        record = self._journal.lookup(key)
        found = record is not None and record.version == version and self._leaves(record)
        return record if found else None

    def _sample(self) -> None:
        # Drop records handed to an eviction pass that have left the tier; those that it returned
        # were registered again by `add`.
        self._keys = self._journal.count_keys() - self._journal.keys_elsewhere()
        held = self._offered.items()
        self._offered = {key: version for key, version in held if self._current(key, version)}
        for looked_at, record in enumerate(self._round()):
            self._cursor = record.key
            if self._leaves(record) and record.key not in self._offered:
                self._pool[record.key] = record
            if len(self._pool) >= POOL + SAMPLE or (looked_at >= LOOKED_AT and self._pool):
                break
        coldest = sorted(self._pool, key=self._rank)[:POOL]
        self._pool = {key: self._pool[key] for key in coldest}

    def _rank(self, key: str) -> tuple[int, float, int]:
        record = self._pool[key]
        entry = self._entries.get(key)
        if entry is not None and not self._sinks(record):
            return 2, entry.stamp, record.version  # Of those in RAM, the one read longest ago.
        size = record.size
        coldness = self._recency.coldness(key, size, self._saved(size), self._keys)
        return 0 if entry is not None else 1, -coldness, record.version

    def _leaves(self, record: Record) -> bool:
        return record.tier is self._tier and self._may_leave(record)

    def _round(self) -> Iterator[Record]:
        """Yield the records after the cursor, then those up to it."""
        start = self._cursor
        yield from self._journal.scan(after=start)
        for record in self._journal.scan():
            if record.key > start:
                return
            yield record
