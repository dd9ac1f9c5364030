"""Maps each key to its entry or its record.

Versions in volatile tiers are entries in a dict. All others are records in the journal of the cold
tier, on disk, so that a key at rest takes no RAM. An entry shadows the record of its key; where
both exist they are the same version, and the record is the backing copy of the entry.

The caller serialises all changes of one key (`keylocks`). The lock here orders the changes of
different keys against each other, so that `instant` sees one moment; it is also the mutex of the
key locks, so that the short way of a store (`residency`) takes one lock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from heapq import merge
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from memories.engine.entry_table import EntryTable
from memories.engine.front_cache import FrontCache
from memories.engine.hit_clock import SampledTick
from memories.engine.key_order import KeyOrder
from memories.foundation.deadlines import Deadlines
from memories.foundation.fork_lock import is_held_here
from memories.foundation.keys import INTERNAL, MAX_KEY_BYTES
from memories.model.entry import Common, Entry, ExpiringEntry
from memories.model.record import DEFAULT_TERMS, Record
from memories.model.rules import Rules
from memories.model.tiers import TierName

if TYPE_CHECKING:
    from memories.backends.disk import DiskBackend
    from memories.backends.disk.overlay_index import StoreView

STEPS = 16  # So many keys below a prefix are passed over one by one; then the others at once.
LAST = "\U0010ffff" * (MAX_KEY_BYTES // 4)  # No key with a prefix comes after it and this.


class Instant(NamedTuple):
    """Everything that was stored at one moment."""

    version: int
    entries: list[Entry]
    records: StoreView  # May repeat a key of `entries`, as its backing copy.


class Catalog:
    """The entries of all keys in RAM, and the journal with the records of the others."""

    def __init__(
        self,
        journal: DiskBackend,
        table: EntryTable,
        rules: Rules | None = None,
    ) -> None:
        self.table = table
        self.entries = table.entries
        self.front = FrontCache()
        self.order = KeyOrder(table)
        self.rules = rules or Rules()
        self.journal = journal
        self.counts: Counter[TierName] = Counter()  # Entries, by their tier.
        self.backing: Counter[TierName] = Counter()  # Entries, by the tier that backs them.
        self._internal = 0  # Entries with internal keys.
        self.deadlines = Deadlines(self._ends)  # Of entries.
        self._torn = False  # Whether an exception ended a change in the middle.
        self.lock = table.lock

    def next_version(self) -> int:
        """Return the sequence number of the next commit."""
        with self.lock:
            self.table.version += 1
            return self.table.version

    def next_versions(self, count: int) -> range:
        """Return the sequence numbers of the next `count` commits."""
        with self.lock:
            first = self.table.version + 1
            self.table.version += count
            return range(first, first + count)

    def raise_version(self, version: int) -> None:
        """Give later commits higher numbers than `version`."""
        with self.lock:
            self.table.version = max(self.table.version, version)

    def lookup(self, key: str) -> Entry | Record | None:
        """Return the entry or the record of `key`, or None."""
        # Thread 1 finds no entry. Thread 2 stores a volatile version: it puts the entry into the
        # catalog, then buries the record. Thread 1 finds no record either, and looks once more.
        entries = self.entries
        return entries.get(key) or self.journal.lookup(key) or entries.get(key)

    def lookup_locked(self, keys: Sequence[str]) -> list[Entry | Record | None]:
        """Return what `lookup` returns of each key; the caller has locked them."""
        entries, records = self.entries, self.journal.small_reads.newest(keys)
        if records is None:
            return [self.lookup(key) for key in keys]
        return [entries.get(key, record) for key, record in zip(keys, records, strict=True)]

    def record(self, key: str) -> Record | None:
        """Return the record of `key`, even if an entry shadows it."""
        return self.journal.lookup(key)

    def is_only_below(self, found: Entry | Record) -> bool:
        """Return whether RAM has no version of the key of `found`."""
        return found.key not in self.entries

    def record_under(self, found: Entry | Record | None) -> Record | None:
        """Return `found` if it is a record, and the backing copy if it is an entry that has one."""
        if isinstance(found, Entry):
            return self.record(found.key) if found.backed else None
        return found

    def put(self, entry: Entry) -> None:
        """Make `entry` the entry of its key."""
        with self.lock:
            self._change(lambda: self._swap(entry.key, entry))

    def drop(self, entry: Entry) -> None:
        """Remove the entry of a key; its record, if it has one, is found from then on."""
        with self.lock:
            self._change(lambda: self._swap(entry.key, None))

    def rename(self, entry: Entry, old: Entry) -> None:
        """Make `entry` the entry of its key, and remove `old`, which held the same value."""

        def swap() -> None:
            self._swap(entry.key, entry)
            self._swap(old.key, None)

        with self.lock:
            self._change(swap)

    def put_batch(self, entries: Sequence[Entry]) -> None:
        """Make each of `entries` the entry of its key."""
        with self.lock:
            self._change(lambda: self._put_all(entries))

    def drop_batch(self, entries: Iterable[Entry]) -> None:
        """Remove the entries of many keys; their records are found from then on."""
        with self.lock:
            self._change(lambda: self._drop_all(entries))

    def request_front(self, key: str) -> None:
        """Ask that the next reads of `key` are answered by the front cache; mostly lock-free."""
        if not self.front.request(key) or is_held_here(self.lock):
            return  # Too few keys wait, or a signal handler reads in the middle of a change.
        with self.lock:
            self._change(lambda: self.front.insert(self.entries))

    def hide_from_front(self, hidden: Callable[[str], bool] | None) -> None:
        """Keep keys for which `hidden` is true out of the front cache; None allows all keys."""
        with self.lock:
            self.front.hidden = hidden
            self._change(lambda: self.front.flush(self.entries))

    def credit_front_hits(self) -> None:
        """Add the hits of the front cache to its entries."""
        with self.lock:
            self._change(lambda: self.front.credit_hits(self.entries))

    def flush_front(self) -> None:
        """Add the hits of the front cache to its entries, and empty it."""
        with self.lock:
            self._change(lambda: self.front.flush(self.entries))

    def set_backing(self, record: Record) -> None:
        """Set where the backing copy of a version is, if an entry holds that version."""
        self.set_backing_batch([record])

    def set_backing_batch(self, records: Iterable[Record]) -> None:
        """Do what `set_backing` does, for many records."""
        with self.lock:
            self._change(lambda: self._set_backing(records))

    def set_tier(self, entry: Entry, common: Callable[[], Common]) -> None:
        """Let an entry lie in another tier of its pool: it gets what `common` returns."""
        with self.lock:
            self._change(lambda: self._set_tier(entry, common))

    def clear_backing(self, entry: Entry) -> None:
        """Set that no durable tier holds a copy of an entry's version."""
        with self.lock:
            self._change(lambda: self._set_backed(entry, None))

    def count_changes(self, changes: Counter[TierName], arrivals: int, keys: Iterable[str]) -> None:
        """Count entries that came into their tier, or left it, by the short way.

        None of them has a backing copy or a rule. `keys` are those of which an entry came or left.
        """
        with self.lock:
            self._change(lambda: self._count_changes(changes, arrivals, keys))

    def recount(self) -> None:
        """Recount the entries and empty the front cache."""
        with self.lock:
            self._recount()

    def keys(self, prefix: str = "") -> Iterator[str]:
        """Yield the keys that start with `prefix`, in the order of their UTF-8 bytes.

        Of strings it is the order, too. Some of the keys may be gone.
        """
        return _distinct(
            merge(
                self.order.snapshot().keys(prefix),  # First: what leaves RAM since is in the other.
                (record.key for record in self.journal.scan(prefix)),
            )
        )

    def described(self) -> Iterator[Entry | Record]:
        """Yield what has metadata, in key order; some of it may have expired, or be gone."""
        known = [entry for entry in list(self.entries.values()) if entry.common.terms.metadata]
        known = sorted((one for one in known if one.key[0] != INTERNAL), key=_key_of)
        entries: Iterator[Entry | Record] = iter(known)
        latest = None
        for found in merge(entries, self.journal.described(), key=_key_of):
            if found.key != latest:
                latest = found.key
                yield self.entries.get(latest) or found

    def level(self, prefix: str, delimiter: str, exists: Callable[[str], bool]) -> Iterator[str]:
        """Yield what exists directly below `prefix`: keys, and the prefixes of keys further down.

        A prefix ends with the `delimiter`, and is yielded once; the keys below it are passed over.
        """
        volatile, durable = self.order.snapshot(), self.journal.ordered(prefix)

        def seek(after: str) -> Iterator[str]:
            return _distinct(merge(volatile.keys(prefix, after), durable(after)))

        keys, group, steps = seek(""), "", 0
        while (key := next(keys, None)) is not None:
            if group and key.startswith(group):
                steps += 1
                if steps > STEPS:
                    keys, group = seek(group + LAST), ""
                continue
            if not exists(key):
                continue
            end = key.find(delimiter, len(prefix)) + len(delimiter)
            group, steps = ("", 0) if end < len(delimiter) else (key[:end], 0)
            yield group or key

    def __len__(self) -> int:
        """Return the number of keys."""
        with self.journal.commit_lock:
            with self.lock:
                own = len(self.entries) - self._internal - self.backing.total()
            return own + self.journal.count_keys()

    @contextmanager
    def instant(self) -> Iterator[Instant]:
        """Give the entries and records of one moment, for as long as the context lasts.

        Commits wait while the view is made, not while it is used.
        """
        with self.journal.commit_lock:
            view = self.journal.view()
            records = view.__enter__()
            with self.lock:
                entries = [entry for entry in self.entries.values() if entry.key[0] != INTERNAL]
                version = self.table.version
        try:
            yield Instant(version, entries, records)
        finally:
            view.__exit__(None, None, None)

    def clear(self) -> list[Entry]:
        """Remove all entries for good, and return them; they report to no sample any more.

        The garbage collector cannot look into compiled entries, so no cycle may go through them.
        """
        with self.lock:
            entries = list(self.entries.values())
            for entry in entries:
                _end_samples(entry.inner if isinstance(entry, ExpiringEntry) else entry)
            self._change(lambda: self.front.flush(self.entries))
            self.entries.clear()
            self._recount()
            return entries

    def _change(self, steps: Callable[[], None]) -> None:
        """Run `steps`; if an exception ends them, derive counts and front from the entries."""
        if self._torn:
            self._recount()
        try:
            steps()
        except BaseException:
            self._torn = True
            self._recount()
            raise

    def _recount(self) -> None:
        self.order.reset()
        self.front.clear()
        self.counts.clear()
        self.rules.clear()
        self.backing.clear()
        self._internal = 0
        self.deadlines.rebuild(self._deadlines)
        for entry in self.entries.values():
            self._count(entry, 1)
        self._torn = False

    def _count_changes(
        self, changes: Counter[TierName], arrivals: int, keys: Iterable[str]
    ) -> None:
        self.order.update(keys)
        for tier, change in changes.items():
            self.counts[tier] += change
        self.front.count_arrivals(arrivals, self.entries)

    def _deadlines(self) -> Iterator[tuple[str, float]]:
        for key, entry in self.entries.items():
            if entry.terms.expires_at is not None:
                yield key, entry.terms.expires_at

    def _set_tier(self, entry: Entry, make_common: Callable[[], Common]) -> None:
        self.front.drop(entry.key, self.entries)  # Its hits are those of the former tier.
        self._count(entry, -1)
        common = make_common()
        if isinstance(entry, ExpiringEntry):
            entry.inner.common = common
        entry.common = common
        self._count(entry, 1)

    def _set_backed(self, entry: Entry, tier: TierName | None) -> None:
        before, entry.backed = entry.backed, tier
        if entry.key[0] != INTERNAL:
            if tier is not None:
                self.backing[tier] += 1
            if before is not None:
                self.backing[before] -= 1

    def _set_backing(self, records: Iterable[Record]) -> None:
        for record in records:
            entry = self.entries.get(record.key)
            if entry is not None and entry.version == record.version:
                self._set_backed(entry, record.tier)

    def _drop_all(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            self._swap(entry.key, None)

    def _put_all(self, entries: Sequence[Entry]) -> None:
        common = entries[0].common if entries else None
        others = entries
        if (
            common is not None
            and common.terms is DEFAULT_TERMS
            and not (self.order.in_use or self.rules)
        ):  # As `_swap` does, in fewer calls.
            others = self.table.put_absent(entries, common)
            count = len(entries) - len(others)
            self.counts[common.tier] += count
            if common.backed is not None:
                self.backing[common.backed] += count
            self.front.count_arrivals(count, self.entries)
        for entry in others:
            self._swap(entry.key, entry)

    def _swap(self, key: str, entry: Entry | None) -> None:
        # The front goes first: after one reader saw the new value, no other may see the old one.
        self.front.drop(key, self.entries)
        previous = self.entries.get(key)
        if previous is not None:
            self._count(previous, -1)
            if previous.terms.expires_at is not None:
                self.deadlines.mark_stale()
        if entry is None:
            self.entries.pop(key, None)
        else:
            self.entries[key] = entry
            self._count(entry, 1)
            if entry.terms.expires_at is not None:
                self.deadlines.add(key, entry.terms.expires_at)
            self.front.count_arrivals(1, self.entries)
        if self.order.in_use:
            self.order.update((key,))

    def _ends(self, key: str) -> float | None:
        entry = self.entries.get(key)
        return None if entry is None else entry.terms.expires_at

    def _count(self, entry: Entry, change: int) -> None:
        if entry.key[0] == INTERNAL:
            self._internal += change
            return
        common = entry.common
        self.counts[common.tier] += change
        if self.rules:
            self.rules.count_entry(entry, change)
        if common.backed is not None:
            self.backing[common.backed] += change


_key_of = attrgetter("key")


def _distinct(keys: Iterable[str]) -> Iterator[str]:
    """Yield each of some ordered keys once."""
    latest = None
    for key in keys:
        if key != latest:
            yield key
        latest = key


def _end_samples(entry: Entry) -> None:
    """Have an entry report its hits to no sample."""
    tick = entry.common.tick
    while isinstance(tick, SampledTick):
        tick = tick.inner
    if tick is not entry.common.tick:
        entry.tick = tick
