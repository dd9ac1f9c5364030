"""Moves versions between tiers and makes room in them; what should move is decided elsewhere.

A move copies, commits, and only then releases the source, so that a failure at any point leaves the
value where it was. The caller of each method holds the lock of the key. No lock of a tier or of the
catalog is held during I/O.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence

import msgspec

from memories.engine.archive import Archive, is_archived
from memories.engine.batch_write import BATCH_KEYS, BatchOutcome, BatchWriter
from memories.engine.catalog import Catalog
from memories.engine.eviction_pass import EvictionOutcome, EvictionPass, MayEvict
from memories.engine.expiry import Expiry
from memories.engine.keylocks import KeyLocks
from memories.engine.payload import PackedFrame, Payload
from memories.engine.placement import fits_without, other_of_pool, why_full
from memories.engine.ranks import Ranks
from memories.engine.tier import AnyTier, DurableTier, Tier, Tiers, VolatileTier, version_of
from memories.errors import StorageError, TierFullError, UnavailableError
from memories.foundation.clock import Clock
from memories.foundation.units import format_size
from memories.model.entry import Entry
from memories.model.events import EventBus, Failed, Moved, Removed, Stored, StoredAtRest, Written
from memories.model.record import DEFAULT_TERMS, Record, Renaming, Terms, Version
from memories.model.tiers import Cause, TierName

_COLD = TierName.COLD  # To look a member up in its class takes longer.
_new = tuple.__new__  # What a named tuple does, without its argument parsing.
MAX_SMALL = 64 << 10  # The events of larger values are not worth being delivered together.
POLL_SECONDS = 0.002
BUSY_POLLS = 2500  # How often a store looks again at victims that other threads work on.
CAUGHT_UP_AFTER = 1000  # Removals from a full disk, each of which leaves work for maintenance.
WRITE_TRIES = 4
STORE_POLLS = 10  # How often it waits for values that other threads are storing.


class _CrowdedError(TierFullError):
    """No room in a slower tier now, since other threads are evicting there; internal."""


class Nesting(threading.local):
    """How many evictions, one within the other, this thread is doing."""

    depth = 0


class Mover:
    """Moves versions between tiers and makes room for them."""

    def __init__(
        self,
        tiers: Tiers,
        catalog: Catalog,
        *,
        locks: KeyLocks,
        clock: Clock,
        expiry: Expiry,
        events: EventBus,
        drop_when_full: bool,
    ) -> None:
        self.tiers = tiers
        self.catalog = catalog
        self.archive = Archive(tiers, catalog.journal, self._archive_failed)
        self._locks, self._clock, self._expiry, self._events = locks, clock, expiry, events
        self._drop_when_full = drop_when_full
        self._nesting = Nesting()
        self.renames: dict[str, Renaming] = {}  # By the new name.
        self._ranks = Ranks(tiers, catalog, locks=locks, monotonic=clock.monotonic, events=events)
        self.batch = BatchWriter(
            tiers, catalog, locks=locks, monotonic=clock.monotonic, expiry=expiry, events=events,
            ranks=self._ranks,
        )  # fmt: skip

    def reset_nesting(self) -> None:
        """Record that this thread evicts nothing, after an interrupt."""
        self._nesting.depth = 0

    def relocate(
        self,
        found: Entry | Record,
        target: AnyTier,
        cause: Cause,
        *,
        may_evict: MayEvict | None = None,
        payload: Payload | None = None,
    ) -> Entry | Record:
        """Move a version into `target` and return its entry or record there.

        `payload` is what a read has made of it, for a tier in RAM, or the other one of its pool.

        Raises:
            TierFullError: `target` cannot make room for it; it stays where it was.
        """
        started = self._clock.monotonic()
        if isinstance(found, Entry):
            self.tiers.settle([found])
        source = found.tier
        if isinstance(target, DurableTier):
            moved: Entry | Record = self._move_to_durable(found, target)
        else:
            moved = self._move_to_volatile(found, target, may_evict, payload)
        now = self._clock.monotonic()
        event = Moved(found.key, now, source, moved.tier, moved.size, cause, now - started)
        self._events.emit_soon(event)
        return moved

    def write(
        self, payload: Payload, version: Version, target: DurableTier, *, archived: bytes = b"",
        spares: bool = False,
    ) -> Record:  # fmt: skip
        """Write a frame, journaled when this returns; what is a copy `spares` the values in RAM."""
        started = self._clock.monotonic()
        frame = target.convert(payload, version, evicted=self._nesting.depth > 0)
        tries, may_evict = (1, self.catalog.is_only_below) if spares else (WRITE_TRIES, None)
        for left in reversed(range(tries)):
            self.make_room(target, frame.size, version.key, may_evict)
            try:
                return self._write_frame(frame, version, target, started, archived)
            except TierFullError as error:
                # Copies lack room on the disk, or a merge has it: more leaves, or this waits.
                if not left or not (self.evict_bytes(target, frame.size) or self._drop_when_full):
                    full = why_full(target, frame.size, version.key, str(error))
                    raise TierFullError(full) from error
                time.sleep(POLL_SECONDS)
        raise AssertionError("the last try returns or raises")

    def write_if_room(
        self, payload: Payload, version: Version, previous: Record | None, started: float
    ) -> Record | None:
        """Store a new version in cold, if there is room, in the place of `previous`; else None.

        It does what the general way of a store that `started` then would do, and emits its events.
        That is also left the versions of which
        the archive has a copy, and those whose terms exclude cold.
        """
        if previous is not None and is_archived(previous):
            return None
        if version.terms is not DEFAULT_TERMS and not version.terms.admits(_COLD):
            return None
        writing = self._clock.monotonic()
        cold = self.tiers.durable[_COLD]
        frame = cold.convert(payload, version)
        if frame.size > MAX_SMALL:
            if not cold.budget.reserve(frame.size, payload.host_size):
                return None
            try:
                record = self._write_frame(frame, version, cold, writing)
            except TierFullError:
                return None  # The index has grown meanwhile: the general way moves a value down.
            cold.victims.record_arrival(version.key)
            now = self._clock.monotonic()
            stored = Stored(version.key, now, _COLD, record.size, now - started)
            self._events.emit(stored)
            return record
        found = cold.write_if_room(frame, version, payload.host_size)
        if found is not None:
            cold.victims.record_arrival(version.key)
            now = self._clock.monotonic()
            self._events.emit_soon(_new(StoredAtRest, (found, now, now - started, now - writing)))
        return found

    def _write_frame(
        self,
        frame: PackedFrame,
        version: Version,
        target: DurableTier,
        started: float,
        archived: bytes = b"",
    ) -> Record:
        """Write a frame whose bytes are reserved."""
        try:
            record = target.write(frame, version, archived=archived)
        except BaseException:
            target.budget.release(frame.size)
            raise
        if target.name is TierName.GLACIER:
            record = self.archive.commit_value(record)
        now = self._clock.monotonic()
        written = Written(record.key, now, target.name, record.size, record.stored, now - started)
        self._events.emit(written)
        return record

    def put(
        self,
        payload: Payload,
        version: Version,
        target: VolatileTier,
        *,
        hits: int = 0,
        backed: TierName | None = None,
        backing: DurableTier | None = None,
        accessed: bool = True,
        may_evict: MayEvict | None = None,
        roams: bool = False,
    ) -> Entry:
        """Store a payload in a volatile tier, under a new entry in the catalog.

        `backed` is the durable tier that holds this very version already; one given as `backing`
        is written to first. If it `roams`, it may lie in the other tier of a pool as well.
        """
        converted = target.convert(payload)
        self._check_quota(version.key, target.name, converted.size)
        other = other_of_pool(target, version) if roams and not self.catalog.rules else None
        found = self.make_room(target, converted.size, version.key, may_evict, other)
        if other is not None and found is other:
            target = other
        try:
            if backing is not None:
                self.write(converted, version, backing)
                backed = backing.name
            entry = target.put(converted, version, hits=hits, backed=backed)
        except BaseException:
            target.budget.release(converted.size)
            raise
        previous = self.catalog.entries.get(entry.key)
        self.catalog.put(entry)
        if previous is not None and self.tiers.volatile[previous.tier].victims is target.victims:
            target.victims.discard_newcomer(previous)
        target.victims.add(entry, accessed=accessed)
        return entry

    def replace_terms(self, entry: Entry, terms: Terms) -> Entry:
        """Give a version in RAM other terms, and return its entry, which may be another one."""
        tier = self.tiers.volatile[entry.tier]
        tier.victims.set_aside(entry)
        if entry.terms.expires_at == terms.expires_at:
            entry.terms = terms
        else:  # Entries that expire are of another class. The payload stays charged.
            old, version = entry, version_of(entry)._replace(terms=terms)
            payload = Payload.of_entry(old)
            entry = tier.put(payload, version, hits=old.hits, backed=old.backed)
            entry.stamp = old.stamp
            self.catalog.put(entry)
        tier.victims.add(entry, accessed=False)
        return entry

    def release(self, entry: Entry) -> None:
        """Release the payload of an entry that has left the catalog."""
        self.tiers.release(entry)

    def make_room(
        self, tier: Tier, size: int, key: str, may_evict: MayEvict | None = None,
        other: Tier | None = None,
    ) -> Tier:  # fmt: skip
        """Reserve `size` bytes in `tier`, and move other values down as far as that needs.

        With `may_evict`, only values for which it is true, and without waiting for other threads.
        With the `other` tier of its pool, whichever of the two has room first; returns which.

        Raises:
            TierFullError: everything that may leave has left, or no slower tier has room for it.
        """
        # 1. There is room, what was removed a moment ago leaves it, or removing expired values
        #    makes it.
        if tier.budget.reserve(size):
            return tier
        tier.victims.settle()
        if tier.budget.reserve(size) or self._reserve_expired(tier, size):
            return tier
        # 2. The disk gives back the bytes of values that were removed or replaced.
        caught_up = tier.name is TierName.COLD and self.catalog.journal.catch_up()
        if caught_up and tier.budget.reserve(size):
            return tier
        polls = 0
        while True:
            # 3. Victims leave until there is room, or lie in the other tier of a pool from then on.
            tier.prepare_decision()
            with EvictionPass(
                tier, self._evict, self._current, may_evict, self._ranks.make_room
            ) as eviction:
                found = eviction.make_room(size, other)
            if found is not None:
                return found
            # 4. The tier is full: nothing may leave, or this call has waited for long enough. Of
            #    calls that make room in several tiers, one below the other, the outermost waits.
            if may_evict is not None:
                raise TierFullError(why_full(tier, size, key))
            if self._nesting.depth and eviction.busy:
                raise _CrowdedError(why_full(tier, size, key))
            if self._nesting.depth or polls >= (BUSY_POLLS if eviction.busy else STORE_POLLS):
                raise TierFullError(why_full(tier, size, key))
            # 5. Other threads work on victims, which they will release or move down; or they have
            #    reserved bytes for values that will be victims soon. Wait, then look again.
            polls += 1
            time.sleep(POLL_SECONDS)

    def expire(self, found: Entry | Record, *, shown: bool = False) -> bool:
        """Remove `found` if it has expired and no thread works on it; return whether it was.

        With `shown`, also while a listing shows it.
        """
        with self._locks.try_lock(found.key) as free:
            current = self.catalog.lookup(found.key) if free else None
            over = current is not None and self._expiry.removable(current, shown=shown)
            if current is not None and over:
                self.drop(current, Cause.EXPIRED)
            return over

    def overdue(self, name: TierName | None = None) -> Iterator[Entry | Record]:
        """Yield expired versions that are not removed yet, of one tier or of all."""
        catalog = self.catalog
        volatile = None if name is not None and name.durable else catalog.deadlines.soonest()
        durable = catalog.journal.soonest() if name is None or name.durable else None
        if durable is None and volatile is None:
            return
        until = self._expiry.now()
        if volatile is not None and volatile <= until:
            for key in catalog.deadlines.due(until):
                entry = catalog.entries.get(key)
                if entry is not None and name in (None, entry.tier):
                    yield entry
        if durable is not None and durable <= until:
            for record in catalog.journal.expired(until):
                if name in (None, record.tier):
                    yield record

    def drain(
        self,
        tier: Tier,
        used: int,
        at_once: int = BATCH_KEYS,
        pause: Callable[[], object] = lambda: None,
    ) -> None:
        """Move victims out of `tier` until it holds at most `used` bytes, or nothing may leave.

        Out of the whole pool, if it is a part of one. `pause` is called after at most `at_once` of
        them.
        """
        with EvictionPass(tier, self._evict, self._current) as eviction:
            while (excess := tier.account.used - used) > 0:
                if tier.name.durable:
                    more = eviction.evict_next()
                else:
                    more = eviction.evict_batch(excess, at_once, self._evict_batch)
                if not more:
                    return
                pause()

    def shrink(self, tier: Tier, used: int) -> None:
        """Move values out of `tier` itself until it holds at most `used` bytes, if that can be."""
        tier.prepare_decision()
        with EvictionPass(
            tier, self._evict, self._current, None, self._ranks.make_room
        ) as eviction:
            eviction.shrink(used)

    def eviction(self, tier: Tier) -> EvictionPass:
        """Return a pass over the victims of `tier`; they leave RAM, if it is a part of a pool."""
        tier.prepare_decision()
        return EvictionPass(tier, self._evict, self._current)

    def evict_bytes(self, tier: Tier, nbytes: int) -> bool:
        """Move victims of so many bytes out of `tier`, and return whether any left."""
        held = tier.account.used
        self.drain(tier, max(0, held - nbytes))
        return tier.account.used < held

    def slower_tiers(self, found: Entry | Record) -> Iterator[AnyTier]:
        """Yield the slower tiers that the terms of `found` admit, nearest first.

        What leaves a pool of tiers leaves all of it.
        """
        pooled = isinstance(found, Entry) and self.tiers.volatile[found.tier].pool is not None
        for name, tier in self.tiers.items():
            lower = name.durable if pooled else name.rank > found.tier.rank
            if lower and found.terms.admits(name):
                yield tier

    def is_droppable(self, found: Entry | Record) -> bool:
        """Return whether `found` may be dropped for room: its caller can compute it again."""
        return self._drop_when_full or found.terms.evictable

    def gives_way(self, previous: Entry | Record, size: int) -> bool:
        """Return whether `previous` may be dropped for a new version, which fits only then."""
        leaves = not previous.terms.pinned and self.is_droppable(previous)
        record = self.catalog.record_under(previous)
        return leaves and fits_without(self.tiers, previous, record, size)

    def drop(self, found: Entry | Record, cause: Cause) -> None:
        """Remove a version from all tiers, durably if it was durable."""
        record = self.catalog.record_under(found)
        if record is not None:
            version = self.catalog.next_version()
            with self.archive.removing(record, version):
                self.catalog.journal.remove(found.key, version)
        if isinstance(found, Entry):
            self.catalog.drop(found)
            self.release(found)
        now = self._clock.monotonic()
        emit = self._events.emit_soon if cause is Cause.CAPACITY else self._events.emit
        emit(Removed(found.key, now, found.tier, found.size, cause))
        if cause is not Cause.CAPACITY:
            # A value that was dropped for room may come back, so the policies remember it. This
            # comes last: observers of the event must first count the reads before it.
            for victims in self.tiers.victims():
                victims.forget([found.key])

    def finish_rename(self, new: str) -> None:
        """End what an interrupt, or an error, left of the renaming of a key to `new`, if any."""
        renaming = self.renames.get(new)
        if renaming is None:
            return
        with self._locks.lock(renaming.old):
            made, old = self.catalog.lookup(new), self.catalog.lookup(renaming.old)
            done = made is not None and made.version > renaming.floor
            if done and old is not None and old.version <= renaming.floor:
                self.drop(old, Cause.REMOVED)
        self.renames.pop(new, None)

    def _reserve_expired(self, tier: Tier, size: int) -> bool:
        """Reserve room by removing expired values; return whether that was enough."""
        gone = 0
        for found in self.overdue(tier.name):
            removed = self.expire(found, shown=True)
            gone += removed
            if removed and tier.name is TierName.COLD and gone % CAUGHT_UP_AFTER == 0:
                self.catalog.journal.catch_up()
            if tier.budget.reserve(size):
                return True
        return False

    def relocate_batch(
        self, entries: Sequence[Entry], target: AnyTier, cause: Cause
    ) -> BatchOutcome:
        """Move versions of one tier in RAM to another tier; the caller does not hold their locks.

        Those that are left can be moved one by one.
        """
        if isinstance(target, VolatileTier):
            return self.batch.move(entries, target, cause)
        if not target.takes_batches:
            return BatchOutcome([], entries)
        return self.batch.demote(entries, target, cause)

    def _evict_batch(
        self, tier: Tier, victims: Sequence[Entry | Record]
    ) -> Sequence[Entry | Record]:
        """Move victims to the next tier together, and return those that are left."""
        entries = [victim for victim in victims if isinstance(victim, Entry)]
        if len(entries) < len(victims):
            return victims
        if tier.account is tier.budget:
            below = next(one for one in self.tiers.values() if one.name.rank > tier.name.rank)
        else:
            below = self.tiers[_COLD]
        left = list[Entry]()
        for name in self.tiers.volatile:  # The events of a batch are of one kind.
            some = [entry for entry in entries if entry.tier is name]
            if some:
                left += self.relocate_batch(some, below, Cause.CAPACITY).left
        return left

    def _evict(self, tier: Tier, victim: Entry | Record) -> EvictionOutcome:
        """Move a victim down, or drop it if that is allowed."""
        with self._locks.try_lock(victim.key) as free:
            if not free:
                # If this thread itself holds the lock, waiting would change nothing. Example: the
                # victim is the old version of the key that is being stored.
                return (
                    EvictionOutcome.STAYS
                    if self._locks.is_held_here(victim.key)
                    else EvictionOutcome.BUSY
                )
            if not self._current(victim):
                return EvictionOutcome.GONE
            self._nesting.depth += 1
            try:
                return self._demote(victim)
            except (StorageError, UnavailableError) as error:
                now = self._clock.monotonic()
                self._events.emit(Failed(victim.key, now, f"move down from {tier.name}", error))
                raise
            finally:
                self._nesting.depth -= 1

    def _demote(self, victim: Entry | Record) -> EvictionOutcome:
        outcome = EvictionOutcome.STAYS
        if self._expiry.removable(victim):
            self.drop(victim, Cause.EXPIRED)
            return EvictionOutcome.GONE
        for target in self.slower_tiers(victim):
            try:
                self.relocate(victim, target, Cause.CAPACITY)
            except _CrowdedError:
                outcome = EvictionOutcome.BUSY
            except TierFullError:
                continue
            else:
                return EvictionOutcome.GONE
        if outcome is EvictionOutcome.BUSY or not self.is_droppable(victim):
            return outcome
        # What was durable stays durable as long as it is there: the backing copy of an entry does
        # not leave alone.
        self.drop(self.catalog.entries.get(victim.key) or victim, Cause.CAPACITY)
        return EvictionOutcome.GONE

    def _current(self, found: Entry | Record) -> bool:
        if isinstance(found, Entry):
            return self.catalog.entries.get(found.key) is found
        record = self.catalog.record(found.key)
        return record is not None and record.version == found.version

    def _move_to_volatile(
        self,
        found: Entry | Record,
        target: VolatileTier,
        may_evict: MayEvict | None,
        payload: Payload | None,
    ) -> Entry:
        if isinstance(found, Entry) and self.tiers.volatile[found.tier].pool is not None:
            return self._change_rank(found, target, may_evict)
        roams = payload is not None
        payload = payload or self.tiers.load(found)
        backed = found.backed if isinstance(found, Entry) else found.tier
        hits = found.hits if isinstance(found, Entry) else 0
        rises = target.name.rank < found.tier.rank
        entry = self.put(
            payload, version_of(found), target, hits=hits, backed=backed, accessed=rises,
            may_evict=may_evict, roams=roams,
        )  # fmt: skip
        if isinstance(found, Entry):
            self.tiers.release_moved([(found, entry)])
        return entry

    def _change_rank(self, entry: Entry, target: VolatileTier, may_evict: MayEvict | None) -> Entry:
        """Let an entry lie in the other tier of its pool: nothing is copied, and it stays."""
        target.victims.settle_earlier()
        self._check_quota(entry.key, target.name, entry.size)
        if may_evict is None:
            self.make_room(target, entry.size, entry.key)
        else:
            while not target.budget.reserve(entry.size):
                if not self._ranks.make_room(target, entry):
                    raise TierFullError(why_full(target, entry.size, entry.key))
        self._ranks.change(entry, target)
        return entry

    def _move_to_durable(self, found: Entry | Record, target: DurableTier) -> Record:
        record = self.catalog.record_under(found)
        if record is None:
            payload = self.tiers.load(found)
            record = self.write(payload, version_of(found), target)
        elif record.tier is not target.name:
            record = self._move_record(record, target, found)
            self.catalog.set_backing(record)
        if isinstance(found, Entry):
            self.catalog.drop(found)
            self.release(found)
            target.victims.record_arrivals([(found.key, found.hits)])
        return record

    def _move_record(self, record: Record, target: DurableTier, found: Entry | Record) -> Record:
        """Move a record between cold and glacier; an archived copy stays in glacier.

        If `found` is an entry, the payload comes from RAM and not from the tier of the record.
        """
        if target.name is TierName.GLACIER and record.archived:
            lower = msgspec.structs.replace(
                record, tier=TierName.GLACIER, place=record.archived, archived=b""
            )
            return self.catalog.journal.write_note(lower)
        payload = self.tiers.load(found)
        archived = record.place if record.tier is TierName.GLACIER else b""
        return self.write(payload, version_of(record), target, archived=archived)

    def _check_quota(self, key: str, tier: TierName, size: int) -> None:
        """Raise TierFullError if keys like `key` may take no more in a tier.

        Two stores at once may both find the same room: a quota is approximate, and only the
        capacity of the tier is a hard limit.
        """
        room = self.catalog.rules.room(key, tier)
        if room is None:
            return
        if size > room:
            for found in self.overdue(tier):
                self.expire(found, shown=True)
            room = self.catalog.rules.room(key, tier) or 0
        previous = self.catalog.entries.get(key)
        if previous is not None and previous.tier is tier:
            room += previous.size
        if size > room:
            raise TierFullError(
                f"no room for {key[:60]!r} in {tier}: its rule has a quota there, of which "
                f"{format_size(max(room, 0))} are left, and it needs {format_size(size)}"
            )

    def _archive_failed(self, key: str, error: BaseException) -> None:
        now = self._clock.monotonic()
        self._events.emit(Failed(key, now, "bring the archive up to date", error))
