"""Writes, moves and removes many small values at once: one append, one change of the catalog.

The caller chooses the keys. Each method locks those that no thread works on, looks each up again
under its lock, and returns what it has left: values that are large or archived, keys that are busy,
tiers without room. The caller does those one by one, which waits, makes room and raises the errors.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, takewhile
from typing import NamedTuple, TypeVar

from memories.engine.archive import is_archived
from memories.engine.catalog import Catalog
from memories.engine.expiry import Expiry
from memories.engine.keylocks import KeyLocks
from memories.engine.payload import Payload
from memories.engine.ranks import Ranks
from memories.engine.tier import DurableTier, Packed, Tiers, VolatileTier, version_of
from memories.errors import MemoriesError, StorageError, TierFullError
from memories.foundation.keys import INTERNAL, some_of
from memories.model.entry import Entry
from memories.model.events import EventBus, Moved, Removed, Stored, Written
from memories.model.record import DEFAULT_TERMS, Record, Terms, Version
from memories.model.tiers import Cause, Form, TierName

_new = tuple.__new__  # What a named tuple does, without its argument parsing.
T = TypeVar("T")
BATCH_KEYS = 256  # More would save little, and other threads wait for the locks.
BATCH_BYTES = 1 << 20
MAX_VALUE = 64 << 10  # A larger value costs so much by itself that a batch saves nothing.


class BatchOutcome(NamedTuple):
    """Which entries of a batch were done, and which are left; the others had left before."""

    done: Sequence[Entry]
    left: Sequence[Entry]


class NewValue(NamedTuple):
    """A value that is to be stored."""

    key: str
    payload: Payload
    terms: Terms


def batched(keys: Iterable[str]) -> Iterator[list[str]]:
    """Yield `keys` in batches."""
    rest = iter(keys)
    while batch := list(islice(rest, BATCH_KEYS)):
        yield batch


def split(
    items: list[T], size_of: Callable[[T], int], *, most: float = BATCH_KEYS
) -> Iterator[list[T]]:
    """Yield `items` in batches of at most so many; one that is too large for one comes alone."""
    sizes = list(map(size_of, items))
    if items and len(items) <= most and sum(sizes) <= BATCH_BYTES:
        yield items
        return
    batch, nbytes = list[T](), 0
    for item, size in zip(items, sizes, strict=True):
        if batch and (len(batch) == most or nbytes + size > BATCH_BYTES):
            yield batch
            batch, nbytes = [], 0
        batch.append(item)
        nbytes += size
    if batch:
        yield batch


class BatchWriter:
    """Changes many keys at once; every method is called within an operation."""

    def __init__(
        self,
        tiers: Tiers,
        catalog: Catalog,
        *,
        locks: KeyLocks,
        monotonic: Callable[[], float],
        expiry: Expiry,
        events: EventBus,
        ranks: Ranks,
    ) -> None:
        self._tiers = tiers
        self._catalog = catalog
        self._locks = locks
        self._monotonic = monotonic
        self._expiry = expiry
        self._events = events
        self._ranks = ranks

    def store(self, values: Sequence[NewValue], target: DurableTier, moment: float) -> int:
        """Store new versions of different keys; return how many of the first ones are stored."""
        started = self._monotonic()
        with self._locks.try_lock_all([value.key for value in values]) as locked:
            free = values
            if len(locked) < len(values):
                free = list(takewhile(lambda value: value.key in locked, values))
            numbers = self._catalog.next_versions(len(free))
            packed, replaced = list[Packed](), list[Entry | None]()
            known = self._catalog.lookup_locked([value.key for value in free])
            record_under, name, pack = self._catalog.record_under, target.name, self._pack
            for (key, payload, terms), number, previous in zip(free, numbers, known, strict=True):
                entry = None
                if previous is not None:
                    record = record_under(previous)
                    if record is not None and is_archived(record):
                        break
                    entry = previous if isinstance(previous, Entry) else None
                if terms is not DEFAULT_TERMS and not terms.admits(name):
                    break
                one = pack(payload, _new(Version, (key, number, moment, terms)), target)
                if one is None:
                    break
                packed.append(one)
                replaced.append(entry)
            self._tiers.settle(
                [entry for entry in replaced if entry is not None],
                [record.key for record, _ in packed],
            )
            records = self._write(packed, target)
            target.victims.record_arrivals([(record.key, 0) for record in records])
            self.drop([entry for entry in replaced[: len(records)] if entry is not None])
            now, each = self._timed(started, len(records))
            self._events.emit_batch(
                [Stored(record.key, now, target.name, record.size, each) for record in records]
            )
        return len(records)

    def write_back(self, entries: Sequence[Entry], target: DurableTier) -> list[Entry]:
        """Give versions in RAM durable copies; return those that are left."""
        self._tiers.settle(entries)
        with self._locks.try_lock_all([entry.key for entry in entries]) as locked:
            left, packed, named = list[Entry](), list[Packed](), list[Entry]()
            for entry in entries:
                if entry.key not in locked or not self._is_current(entry):
                    left.append(entry)  # A move may have replaced the entry since it was listed.
                elif not entry.backed and entry.key[0] != INTERNAL:
                    one = self._pack_entry(entry, target)
                    if one is None:
                        left.append(entry)
                    else:
                        packed.append(one)
                        named.append(entry)
            records = self._write(packed, target)
            self._catalog.set_backing_batch(records)
        return left + named[len(records) :]

    def demote(self, entries: Sequence[Entry], target: DurableTier, cause: Cause) -> BatchOutcome:
        """Move versions from one tier in RAM to a durable one."""
        self._tiers.settle(entries)
        started = self._monotonic()
        with self._locks.try_lock_all([entry.key for entry in entries]) as locked:
            left, packed, named = list[Entry](), list[Packed](), list[Entry]()
            backed = list[tuple[Entry, Record]]()
            for entry in entries:
                if entry.key not in locked:
                    left.append(entry)
                    continue
                if not self._is_current(entry):
                    continue
                one, record = None, None
                if self._may_go(entry, target.name):
                    if entry.backed is target.name:
                        record = self._catalog.record(entry.key)
                    elif entry.backed is None:
                        one = self._pack_entry(entry, target)
                if record is not None:
                    backed.append((entry, record))
                elif one is not None:
                    packed.append(one)
                    named.append(entry)
                else:
                    left.append(entry)
            records = self._write(packed, target)
            moved = backed + list(zip(named, records, strict=False))
            self.drop([entry for entry, _ in moved])
            target.victims.record_arrivals([(entry.key, entry.hits) for entry, _ in moved])
            self._emit_moves(moved, target.name, cause, started)
        return BatchOutcome([entry for entry, _ in moved], left + named[len(records) :])

    def move(self, entries: Sequence[Entry], target: VolatileTier, cause: Cause) -> BatchOutcome:
        """Move versions from one tier in RAM to another one there, except to a device."""
        if target.device is not None:
            return BatchOutcome([], entries)
        if target.pool is not None:
            return self._change_rank(entries, target, cause)
        self._tiers.settle(entries)
        started = self._monotonic()
        with self._locks.try_lock_all([entry.key for entry in entries]) as locked:
            left, chosen = list[Entry](), list[tuple[Entry, Payload]]()
            for entry in entries:
                if entry.key in locked and not self._is_current(entry):
                    continue
                payload = Payload.of_entry(entry)
                if (
                    entry.key not in locked
                    or payload.form is not Form.HOST
                    or not self._may_go(entry, target.name)
                    or self._catalog.rules.room(entry.key, target.name) is not None
                ):
                    left.append(entry)
                else:
                    chosen.append((entry, target.convert(payload)))
            size = sum([payload.size for _, payload in chosen])
            if not target.budget.reserve(size):
                return BatchOutcome([], [*left, *[entry for entry, _ in chosen]])
            moved = self._move(chosen, target, size)
            self._emit_moves(moved, target.name, cause, started)
        return BatchOutcome([entry for entry, _ in moved], left)

    def _change_rank(
        self, entries: Sequence[Entry], target: VolatileTier, cause: Cause
    ) -> BatchOutcome:
        """Let entries of the other tier of a pool lie in `target`: none is copied."""
        started = self._monotonic()
        with self._locks.try_lock_all([entry.key for entry in entries]) as locked:
            left, moved = list[Entry](), list[Entry]()
            assert target.pool is not None
            source = target.pool.other(target)
            for entry in entries:
                if entry.key in locked and not self._is_current(entry):
                    continue
                if (
                    entry.key not in locked
                    or entry.tier is target.name
                    or not self._may_go(entry, target.name)
                    or self._catalog.rules.room(entry.key, target.name) is not None
                    or not target.budget.reserve(entry.size)
                ):
                    left.append(entry)
                    continue
                self._ranks.change(entry, target)
                moved.append(entry)
            if moved:
                now, each = self._timed(started, len(moved))
                self._events.emit_batch(
                    [
                        Moved(one.key, now, source.name, target.name, one.size, cause, each)
                        for one in moved
                    ]
                )
        return BatchOutcome(moved, left)

    def load(
        self,
        keys: Sequence[str],
        target: VolatileTier,
        cause: Cause,
        may_come: Callable[[Record], bool],
    ) -> list[str]:
        """Bring those versions in cold into RAM for which `may_come` is true; return what is left.

        A tier of a device takes none. Its room is for other values as well, so nothing leaves it.
        """
        if target.device is not None:
            return list(keys)
        started = self._monotonic()
        records = list[Record]()
        with self._locks.try_lock_all(keys) as locked:
            left = [key for key in keys if key not in locked]
            mine = [key for key in keys if key in locked]
            for found in self._catalog.lookup_locked(mine):
                if isinstance(found, Record) and may_come(found):
                    records.append(found)
            entries = self._enter(self._read(records), target, cause, started)
        done = {entry.key for entry in entries}
        return left + [record.key for record in records if record.key not in done]

    def enter(
        self, values: Sequence[tuple[Record, bytes]], target: VolatileTier, cause: Cause
    ) -> int:
        """Bring versions in cold into RAM, of which these are the frames; return how many came.

        The caller holds the locks of the keys, which have no entries. The rest is as for `load`.
        """
        return len(self._enter(values, target, cause, self._monotonic()))

    def remove(
        self, keys: Sequence[str], cause: Cause, may_go: Callable[[Entry | Record], bool]
    ) -> tuple[int, list[str]]:
        """Remove those of `keys` for which `may_go` is true, durably where they were durable.

        Returns how many were removed, and which of `keys` are left.
        """
        keys = list(dict.fromkeys(keys))  # An entry and its backing copy have the same key.
        with self._locks.try_lock_all(keys) as locked:
            left, gone = list[str](), list[Entry | Record]()
            durable = list[Entry | Record]()
            for key in dict.fromkeys(keys):
                if key not in locked:
                    left.append(key)
                    continue
                found = self._catalog.lookup(key)
                if found is None or not may_go(found):
                    continue
                record = self._catalog.record_under(found)
                if record is None:
                    gone.append(found)
                elif is_archived(record):
                    left.append(key)
                else:
                    durable.append(found)
            removed = self._bury([found.key for found in durable])
            left += [found.key for found in durable[removed:]]
            gone += durable[:removed]
            self.drop([found for found in gone if isinstance(found, Entry)])
            self._emit_removals(gone, cause)
            for victims in self._tiers.victims():
                victims.forget([found.key for found in gone])
        return len(gone), left

    def drop(self, entries: Sequence[Entry]) -> None:
        """Remove entries from the catalog, and release what they hold."""
        if not entries:
            return
        self._catalog.drop_batch(entries)
        self._tiers.release_batch(entries)

    def _is_current(self, entry: Entry) -> bool:
        return self._catalog.entries.get(entry.key) is entry

    def _may_go(self, entry: Entry, target: TierName) -> bool:
        """Return whether an entry may lie in a slower tier, and has not expired."""
        terms = entry.terms
        if terms.pinned or not terms.admits(target):
            return False
        return terms.expires_at is None or not self._expiry.removable(entry)

    def _pack_entry(self, entry: Entry, target: DurableTier) -> Packed | None:
        if entry.size > MAX_VALUE or not entry.terms.admits(target.name):
            return None
        if entry.terms.expires_at is not None and self._expiry.removable(entry):
            return None
        return self._pack(Payload.of_entry(entry), version_of(entry), target)

    def _pack(self, payload: Payload, version: Version, target: DurableTier) -> Packed | None:
        """Return a value as a small frame; None if it is large, or where the single way raises."""
        try:
            packed = target.pack(payload, version)
        except Exception:
            return None
        return packed if packed[0].stored <= MAX_VALUE else None

    def _write(self, packed: Sequence[Packed], target: DurableTier) -> list[Record]:
        """Write the frames, and return the records of those that were written: the first ones."""
        size = sum([record.stored for record, _ in packed])
        if not packed or not target.budget.reserve(size):
            return []
        started = self._monotonic()
        try:
            records = target.write_batch(packed)
        except MemoriesError:
            return []  # Nothing is written. One by one, the value that is to blame is found.
        finally:
            target.budget.release(size)
        now, each = self._timed(started, len(records))
        self._events.emit_batch(
            [
                Written(record.key, now, target.name, record.size, record.stored, each)
                for record in records
            ]
        )
        return records

    def _bury(self, keys: Sequence[str]) -> int:
        """Write tombstones, and return for how many of the first keys that was done."""
        if not keys:
            return 0
        versions = self._catalog.next_versions(len(keys))
        try:
            return self._catalog.journal.remove_many(list(zip(keys, versions, strict=True)))
        except MemoriesError:
            return 0  # As in `_write`.

    def _move(
        self, chosen: Sequence[tuple[Entry, Payload]], target: VolatileTier, size: int
    ) -> list[tuple[Entry, Entry]]:
        """Move payloads whose `size` is reserved; return the old and the new entries."""
        try:
            moved = [
                (old, target.put(payload, version_of(old), hits=old.hits, backed=old.backed))
                for old, payload in chosen
            ]
        except BaseException:
            target.budget.release(size)
            raise
        self._catalog.put_batch([new for _, new in moved])
        rises = any(target.name.rank < old.tier.rank for old, _ in moved)
        target.victims.add_batch([new for _, new in moved], accessed=rises)
        self._tiers.release_moved(moved)
        return moved

    def _read(self, records: Sequence[Record]) -> list[tuple[Record, bytes]]:
        """Read small frames, and leave out those that the single way must read."""
        small = [one for one in records if one.stored <= MAX_VALUE and one.tier is TierName.COLD]
        try:
            found = self._catalog.journal.use_neighbours(small, _as_read, None)
        except OSError:
            return []  # One by one, the value that is to blame is found.
        return [
            (record, frame) for record, frame in zip(small, found, strict=True) if frame is not None
        ]

    def _enter(
        self,
        values: Sequence[tuple[Record, bytes]],
        target: VolatileTier,
        cause: Cause,
        started: float,
    ) -> list[Entry]:
        """Give versions in cold entries around the values of their frames; return the entries."""
        rules = self._catalog.rules
        if rules:
            values = [one for one in values if rules.room(one[0].key, target.name) is None]
        entries = target.load_all(values)
        if not entries or not target.budget.reserve(sum([entry.size for entry in entries])):
            return []
        stamps = [entry.stamp for entry in entries]  # A reader may mark one as soon as it is there.
        self._catalog.put_batch(entries)
        target.victims.settle_earlier()
        target.settle(list(zip(entries, stamps, strict=True)), [])
        now, each = self._timed(started, len(entries))
        source, name = TierName.COLD, target.name
        self._events.emit_batch(
            [Moved(one.key, now, source, name, one.size, cause, each) for one in entries]
        )
        return entries

    def _emit_moves(
        self,
        moved: Sequence[tuple[Entry | Record, Entry | Record]],
        target: TierName,
        cause: Cause,
        started: float,
    ) -> None:
        now, each = self._timed(started, len(moved))
        self._events.emit_batch(
            [Moved(old.key, now, old.tier, target, new.size, cause, each) for old, new in moved]
        )

    def _emit_removals(self, gone: Iterable[Entry | Record], cause: Cause) -> None:
        now, removals = self._monotonic(), defaultdict[TierName, list[Removed]](list)
        for found in gone:
            removals[found.tier].append(Removed(found.key, now, found.tier, found.size, cause))
        for events in removals.values():
            self._events.emit_batch(events)

    def _timed(self, started: float, count: int) -> tuple[float, float]:
        """Return the time, and the seconds since `started` for each of `count` values."""
        now = self._monotonic()
        return now, (now - started) / max(count, 1)


def _as_read(frame: bytes, record: Record) -> bytes | None:
    """Return a frame as it was read."""
    del record
    return frame


def not_written(failed: dict[str, Exception]) -> Exception:
    """Return one error that names the keys that `flush` could not write."""
    errors = list(failed.values())
    first = next((error for error in errors if isinstance(error, TierFullError)), errors[0])
    if len(failed) == 1:
        return first
    kind = type(first) if isinstance(first, MemoriesError) else StorageError
    one = kind(
        f"{len(failed)} values could not be written ({some_of(failed)}), the first as {first}"
    )
    one.__cause__ = first
    if isinstance(one, OSError) and isinstance(first, OSError):
        one.errno = first.errno
    return one
