"""The ordered tiers and the catalog over them: put, read, remove, move.

A call that changes a key holds that key's lock. A read takes none, and looks again when a change
overtook it. The state of the manager (open, read-only, forked, closed) is checked before each
change, and by reads that are not hits.

Longer than 600 lines because every operation on a key takes its lock here; `mover`, `catalog`,
`tier` and `operations` do the work.
"""

from __future__ import annotations

import gc
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import chain, islice
from operator import attrgetter
from typing import Any

import msgspec

from memories.engine.archive import is_archived
from memories.engine.batch_write import (
    BATCH_KEYS,
    BatchOutcome,
    NewValue,
    batched,
    not_written,
    split,
)
from memories.engine.budget import Budget
from memories.engine.catalog import Catalog
from memories.engine.cold_reader import ColdReader
from memories.engine.eviction_pass import MayEvict
from memories.engine.expiry import Expiry
from memories.engine.lifecycle_state import LifecycleState, require_readable, require_writable
from memories.engine.mover import Mover
from memories.engine.operations import Operations, operation
from memories.engine.payload import Payload
from memories.engine.placement import Order, candidates
from memories.engine.residency import Residency
from memories.engine.settlement import Settlement
from memories.engine.small_frames import open_small
from memories.engine.tier import AnyTier, DurableTier, Tiers, version_of
from memories.engine.verified_frames import VerifiedFrames
from memories.errors import (
    UNREADABLE,
    ConflictError,
    CorruptDataError,
    InvalidOptionError,
    KeyNotFoundError,
    MemoriesError,
    StorageError,
    TierFullError,
    about_key,
)
from memories.foundation.clock import Clock
from memories.foundation.keys import INTERNAL
from memories.frames.fast_path import MAX_BYTES
from memories.frames.signing import Keyring
from memories.model.entry import Entry
from memories.model.events import EventBus, Missed, Removed, Retrieved, Stored
from memories.model.record import Record, Terms, Version
from memories.model.tiers import Cause, TierName
from memories.policies.idle_limits import IdleOutcome

_COLD = TierName.COLD  # To look a member up in its class takes longer.
_new = tuple.__new__  # What a named tuple does, without its argument parsing.
OVERDUE_PER_STORE = 4  # Expired entries that each store removes.
READ_ATTEMPTS = 8  # After so many reads that a change overtook, the error is raised.


class Hierarchy:
    """Stores values in tiers, reads them, and moves them."""

    def __init__(
        self,
        tiers: Tiers,
        catalog: Catalog,
        *,
        clock: Clock,
        expiry: Expiry,
        events: EventBus,
        trust: Keyring,
        drop_when_full: bool = False,
        write_through: bool = False,
        read_only: bool = False,
    ) -> None:
        self.tiers = tiers
        self.catalog = catalog
        self.clock = clock
        self.expiry = expiry
        self.events = events
        self.trust = trust
        self.operations = Operations(
            reconcile_key=self._reconcile_key,
            recount=self._recount,
            reset_nesting=lambda: self.mover.reset_nesting(),
            monotonic=clock.monotonic,
            table=catalog.table,
        )
        self.locks = self.operations.locks
        self.settlement = Settlement(tiers, catalog, self.operations, events)
        tiers.settle = self.settlement.settle_before
        for tier in tiers.volatile.values():
            tier.victims.settle = self.settlement.settle
            tier.victims.settle_earlier = self.settlement.settle_earlier
            tier.victims.departed = self.settlement.departed
        self.residency = Residency(catalog, self.settlement, self.operations, expiry, clock, tiers)
        self.residency.enabled = not write_through
        self.cold_reader = ColdReader(catalog.journal, events, trust, clock.monotonic)
        # Raises if a key that is in no tier may be in an archive that could not be read.
        self.doubt: Callable[[str], None] = lambda key: None
        self.mover = Mover(
            tiers, catalog, locks=self.locks, clock=clock, expiry=expiry, events=events,
            drop_when_full=drop_when_full,
        )  # fmt: skip
        self.write_through = write_through
        self.idle_outcome: Callable[[], IdleOutcome] = IdleOutcome  # Of demotions; by the migrator.
        self.verified = VerifiedFrames()
        events.subscribe(self.verified.observe, self.verified.observe_batch, kinds=(Removed,))
        self.state = LifecycleState.READ_ONLY if read_only else LifecycleState.OPEN

    @property
    def state(self) -> LifecycleState:
        """What the manager may do."""
        return self._state

    @state.setter
    def state(self, state: LifecycleState) -> None:
        """Set what the manager may do."""
        self._state = state
        self.residency.open = state is LifecycleState.OPEN
        self.cold_reader.is_open = state is not LifecycleState.CLOSED

    @operation
    def put(
        self,
        key: str,
        payload: Payload,
        *,
        tier: TierName | None = None,
        terms: Terms,
        volatile: bool = False,
        if_version: int | None = None,
    ) -> Entry | Record:
        """Store a new version of `key`, in `tier` or (None) in the fastest with room for it.

        A key that was durable is durable again before this returns, unless `volatile`: then the
        old version is durably removed, and the new one is not durable yet.

        Raises:
            TierFullError: no tier that may hold it has room; the old version stays.
        """
        started = self.clock.monotonic()
        with self.locks.lock(key):
            if self._state is not LifecycleState.OPEN:
                self.require_writable()
            self.expiry.end_listing()
            self._expire_some()
            previous = self.catalog.lookup(key)
            self.tiers.settle([previous] if isinstance(previous, Entry) else [], [key])
            if if_version is not None:
                self._compare(key, previous, if_version)
            if tier is _COLD and not isinstance(previous, Entry):
                number = self.catalog.next_version()
                version: Version = _new(Version, (key, number, self._moment(), terms))
                record = self.mover.write_if_room(payload, version, previous, started)
                if record is not None:
                    return record
            found = self.put_locked(key, payload, tier, terms, previous, volatile=volatile)
            # Before the key is unlocked: the event of its next change comes after this one.
            now = self.clock.monotonic()
            # What never leaves RAM makes no work for the migrator, which an event wakes.
            emit = self.events.emit_soon if terms.in_ram_only else self.events.emit
            emit(Stored(key, now, found.tier, found.size, now - started))
        return found

    def put_locked(
        self,
        key: str,
        payload: Payload,
        tier: TierName | None,
        terms: Terms,
        previous: Entry | Record | None,
        *,
        volatile: bool = False,
        durable: bool = False,
    ) -> Entry | Record:
        """Store into the first of the tiers that may hold the value and can make room for it.

        The caller has locked the key. A `durable` version is durable when this returns.
        """
        # A value that replaces one in RAM takes its place.
        sift = not volatile and not isinstance(previous, Entry)
        targets = candidates(self.tiers, key, tier, payload, terms, sift=sift)
        old_record = self.catalog.record_under(previous)
        # The removal has a version of its own, below that of the new value. With the same one
        # it would remove the new value as well.
        gone = 0 if old_record is None else self.catalog.next_version()
        version = Version(key, self.catalog.next_version(), self._moment(), terms)
        order = Order(payload, version, previous, old_record, gone, volatile, durable, tier is None)
        # In the archive a new version replaces the old one without a removal.
        leaves = None if tier is TierName.GLACIER else old_record
        try:
            with self.mover.archive.removing(leaves, gone):
                found = self._put_first(order, targets)
        except TierFullError:
            if previous is None or not self.mover.gives_way(previous, payload.host_size):
                raise
            self.mover.drop(previous, Cause.CAPACITY)  # Both do not fit at once.
            same = {"volatile": volatile, "durable": durable}
            return self.put_locked(key, payload, tier, terms, None, **same)
        if isinstance(previous, Entry) and isinstance(found, Record):
            self.catalog.drop(previous)
        if isinstance(previous, Entry):
            self.mover.release(previous)
        return found

    @operation
    def put_batch(self, values: Sequence[NewValue]) -> int:
        """Store new versions of different keys in cold; return how many of the first are stored.

        The others must be stored one by one, the next one first.
        """
        self.require_writable()
        self.expiry.end_listing()
        self._expire_some(OVERDUE_PER_STORE * len(values))
        return self.mover.batch.store(values, self.durable(TierName.COLD), self._moment())

    def read(
        self,
        key: str,
        use: Callable[[Payload, bool], Any] | None = None,
        *,
        whole: bool = True,
        private: bool = False,
        moment: float | None = None,
    ) -> Any:
        """Return the value of `key`, or what `use(payload, verify)` makes of its payload.

        `whole` says that `use` verifies all of the payload when `verify` is true, and not just a
        region; `private` that it makes a copy, which may lie in a frame that is read for it alone.
        With a `moment` of the wall clock, a value that has expired since then is read too.

        Raises:
            KeyNotFoundError: it is in no tier.
            CorruptDataError: its bytes are damaged.
            UntrustedDataError: it would run code, and no trusted key has signed it.
        """
        catalog, journal = self.catalog, self.catalog.journal
        started = self.clock.monotonic()
        try:
            for attempt in range(READ_ATTEMPTS):
                if self._state is LifecycleState.CLOSED:
                    self.require_readable()
                found = catalog.entries.get(key) or journal.lookup(key)
                if found is None:
                    found = catalog.lookup(key)  # It may have been promoted in between.
                if found is None or (
                    found.terms.expires_at is not None and self._expired(found, moment)
                ):
                    raise self._miss(key, found)
                # There are three cases.
                # 1. The value is in RAM or on a device: its entry has the payload.
                if isinstance(found, Entry):
                    found.mark()
                    payload = Payload.of_entry(found)
                    return payload.open(self.trust) if use is None else use(payload, False)
                try:
                    if use is None and found.tier is _COLD and found.stored <= MAX_BYTES:
                        # 2. A small frame on the disk: verified in one pass over its bytes.
                        value = open_small(journal.read(found), key, self.trust)
                    else:
                        # 3. Any other frame: verified at its first use if it is large.
                        tier = self.durable(found.tier)
                        self.operations.require_free()
                        if whole:
                            payload = tier.read(found, private=private)
                        else:
                            payload = tier.read_part(found)
                            if not tier.remote:
                                payload.frame.verified = self.verified.chunks_of(found)
                        verify = not self.verified.knows(found)
                        if use is None:
                            value = payload.open(self.trust, verify=verify)
                        else:
                            value = use(payload, verify)
                        if whole:
                            self.verified.add(found)
                except (CorruptDataError, StorageError, KeyNotFoundError):
                    # Thread 1 has looked up this record. Thread 2 moves or replaces the value, and
                    # its bytes are given back. Thread 1 cannot read them: it looks up the new one.
                    if attempt + 1 == READ_ATTEMPTS or catalog.lookup(key) == found:
                        raise
                    continue
                now = self.clock.monotonic()
                decides = use is None and self.cold_reader.decides(found, value)
                read = (key, now, found.tier, found.size, now - started, found, decides)
                self.events.emit_soon(_new(Retrieved, read))
                if decides:
                    self.cold_reader.promote(found, value)
                return value
        except UNREADABLE as error:
            raise about_key(error, key) from error.__cause__
        raise AssertionError("the last attempt returns or raises")

    def lookup(self, key: str) -> Entry | Record:
        """Return the entry or the record of `key`, without counting a read.

        Raises:
            KeyNotFoundError: it is in no tier.
        """
        self.require_readable()
        found = self.catalog.lookup(key)
        if found is None or self._expired(found):
            raise self._absent(key, found)
        return found

    @operation
    def remove(self, key: str, cause: Cause = Cause.REMOVED) -> None:
        """Make `key` absent from every tier, durably if it was durable.

        Raises:
            KeyNotFoundError: it is in no tier.
        """
        with self.locks.lock(key):
            self.require_writable()
            self.mover.drop(self.lookup(key), cause)

    @operation
    def move(self, key: str, target: TierName, cause: Cause) -> Entry | Record:
        """Move `key` to `target` and return its entry or record there."""
        with self.locks.lock(key):
            self.require_writable()
            found = self.lookup(key)
            if found.tier is target:
                return found
            self._check_terms(found, target)
            return self.mover.relocate(found, self.tier(target), cause)

    @operation
    def try_move(
        self,
        found: Entry | Record,
        target: TierName,
        cause: Cause,
        *,
        may_evict: MayEvict | None = None,
        payload: Payload | None = None,
    ) -> bool:
        """Move `found` if it is still current and no thread works on its key.

        With `may_evict`, only victims for which it is true make room, and no thread is waited for.
        `payload` is what a read has made of it, for a tier in RAM.
        """
        with self.locks.try_lock(found.key) as free:
            if not free or self.state is not LifecycleState.OPEN:
                return False
            current = self.catalog.lookup(found.key)
            if current is None or current.version != found.version or current.tier != found.tier:
                return False
            if current.tier is target:
                return False  # Another thread has moved it within its pool.
            if current.terms.pinned or not current.terms.admits(target):
                return False
            self.mover.relocate(
                current, self.tier(target), cause, may_evict=may_evict, payload=payload
            )
            return True

    @operation
    def try_move_batch(
        self, entries: Sequence[Entry], target: TierName, cause: Cause
    ) -> BatchOutcome:
        """Move `entries` of one tier in RAM to another one together, as far as that is possible.

        Those that are left can be moved by `try_move`.
        """
        if self.state is not LifecycleState.OPEN:
            return BatchOutcome([], entries)
        return self.mover.relocate_batch(entries, self.tier(target), cause)

    @operation
    def drain(
        self,
        name: TierName,
        used: int,
        at_once: int = BATCH_KEYS,
        pause: Callable[[], object] = lambda: None,
    ) -> None:
        """Move victims out of a tier until it holds at most `used` bytes, or nothing may leave.

        `pause` is called after at most `at_once` of them, while no key is locked.
        """
        self.settlement.settle()  # What was removed a moment ago is still charged.
        self.mover.drain(self.tier(name), used, at_once, pause)

    @operation
    def evict_bytes(self, name: TierName, nbytes: int) -> bool:
        """Move victims of so many bytes out of a tier, and return whether any left."""
        self.settlement.settle()
        return self.mover.evict_bytes(self.tier(name), nbytes)

    @operation
    def expire(self, found: Entry | Record) -> None:
        """Remove `found` if it has expired and is still current."""
        self.mover.expire(found)

    def expire_overdue(self, count: int | None = None) -> int:
        """Remove up to `count` expired keys, or all of them; return how many were removed."""
        return sum(self.mover.expire(found) for found in islice(self.mover.overdue(), count))

    def __len__(self) -> int:
        """Return the number of keys, without those that have expired and are there still."""
        for _ in range(READ_ATTEMPTS):
            before = len(self.catalog)
            overdue = {found.key for found in self.mover.overdue()}
            if len(self.catalog) == before:
                break  # Otherwise some of them may have been removed since.
        return max(0, before - len(overdue))

    @operation
    def flush(self, until: float = math.inf) -> None:
        """Give every volatile version a durable copy, until this second of the monotonic clock.

        It goes on after those that cannot have one.

        Raises:
            TierFullError: not all of them fit; those written are durable, the others stay.
            MemoriesError: some could not be written; it names them.
        """
        self.require_writable()
        self.settlement.settle()  # A store is reported before the value is written.
        failed: dict[str, Exception] = {}
        full, too_large = None, math.inf  # Nothing of this size or more fits; and the error.
        for batch in split(list(self.catalog.entries.values()), attrgetter("size")):
            if self.clock.monotonic() >= until:
                break
            for entry in self.mover.batch.write_back(batch, self.tiers.durable[TierName.COLD]):
                if full is not None and entry.size >= too_large and self._should_stay(entry):
                    failed[entry.key] = full
                    continue
                try:
                    self.write_back(entry.key)
                except TierFullError as error:
                    full, too_large = error, min(too_large, entry.size)
                    failed[entry.key] = error
                except Exception as error:
                    failed[entry.key] = error
        try:
            if failed:
                raise not_written(failed)
        finally:
            failed, full = {}, None  # A cycle of errors and this frame would keep the values.

    def write_back(self, key: str) -> None:
        """Give the volatile version of `key`, if there is one, a durable copy.

        Raises:
            TierFullError: it does not fit, and may not be dropped for that.
        """
        with self.locks.lock(key):
            # Looked up again under the lock: a move may have replaced the entry.
            entry = self.catalog.entries.get(key)
            if entry is None or entry.backed or key[0] == INTERNAL or entry.terms.in_ram_only:
                return
            self.tiers.settle([entry])
            if self.expiry.removable(entry):
                self.mover.drop(entry, Cause.EXPIRED)
            else:
                self._write_back(entry)

    def unwritten_keys(self) -> list[str]:
        """Return the keys whose versions are only in RAM and may not be dropped."""
        return [e.key for e in list(self.catalog.entries.values()) if self._should_stay(e)]

    def is_in_archive(self, record: Record) -> bool:
        """Return whether the archive holds the version of `record`, or the key has another record.

        It looks under the key's lock: a move journals first, and commits to the archive afterwards.
        """
        with self.locks.lock(record.key):
            if self.catalog.record(record.key) != record:
                return True
            return self.mover.archive.holds(record)

    @operation
    def forget_archived(self, key: str) -> bool:
        """Forget the archived copy of `key`, which is lost; return whether another one exists.

        The other one is in RAM and is written to a durable tier again, or in cold, or archived
        since.
        """
        with self.locks.lock(key):
            self.require_writable()
            record = self.catalog.record(key)
            if record is None:
                return key in self.catalog.entries
            if is_archived(record) and self.mover.archive.holds(record):
                return True
            if record.tier is not TierName.GLACIER:
                self.catalog.journal.amend(msgspec.structs.replace(record, archived=b""))
                return True
            entry = self.catalog.entries.get(key)
            if entry is None:
                self.mover.drop(record, Cause.REMOVED)
                return False
            self._write_back(entry)
            return True

    @operation
    def clear(self) -> int:
        """Remove every key stored so far and return the latest version that was removed.

        A store under way gets a higher version. The room on the disk is free afterwards; archived
        objects are deleted after their grace time.
        """
        self.require_writable()
        limit = self.catalog.next_version()
        # A store under way has a version but no entry or record yet; it holds its key's lock.
        for key in self.locks.held_keys():
            self._clear_key(key, limit)
        older = partial(_is_older, limit)
        durable = (record.key for record in self.catalog.journal.scan())
        for keys in batched(chain(list(self.catalog.entries), durable)):
            _, left = self.mover.batch.remove(keys, Cause.REMOVED, older)
            for key in left:
                self._clear_key(key, limit)
        self.catalog.journal.remove_hidden()
        self.catalog.journal.shrink()
        return limit

    def remove_prefix(self, prefix: str) -> int:
        """Remove every key that starts with `prefix`, and return how many there were."""
        return self.remove_many(list(self.catalog.keys(prefix)))

    def remove_many(self, keys: Iterable[str]) -> int:
        """Remove those of `keys` that are in a tier, and return how many there were."""
        self.require_writable()
        count, dead = 0, self.catalog.journal.dead()
        for batch in batched(keys):
            removed, left = self._remove_batch(batch)
            count += removed
            for key in left:
                try:
                    self.remove(key)
                except KeyNotFoundError:
                    continue  # It has expired, or another thread removed it.
                count += 1
        self.catalog.journal.shrink(dead)
        return count

    @operation
    def _remove_batch(self, keys: Sequence[str]) -> tuple[int, Sequence[str]]:
        """Remove those of `keys` that have not expired; return how many, and which are left."""
        self.require_writable()
        return self.mover.batch.remove(keys, Cause.REMOVED, lambda found: not self._expired(found))

    def activity(self) -> tuple[float, ...]:
        """Return counts that differ once anything was read, stored, moved or removed; cheap."""
        hits = [tier.counter.hits for tier in self.tiers.volatile.values()]
        changes = self.events.emitted + len(self.catalog.table.changes)
        return (changes, self.catalog.table.version, self.catalog.front.hits, *hits)

    def next_expiry(self) -> float | None:
        """Return a wall clock time before which nothing expires; None if nothing will."""
        known = (self.catalog.deadlines.soonest(), self.catalog.journal.soonest())
        return min((ends for ends in known if ends is not None), default=None)

    def after_fork(self) -> None:
        """Allow no changes in a forked child, and forget the threads of the parent."""
        self.state = LifecycleState.FORKED
        self.operations.reset()

    def tier(self, name: TierName) -> AnyTier:
        """Return the tier of that name.

        Raises:
            InvalidOptionError: it is disabled.
        """
        try:
            return self.tiers[name]
        except KeyError:
            raise InvalidOptionError(
                f"the {name} tier is disabled; pass {name}_memory_enabled=True to use it"
            ) from None

    def durable(self, name: TierName) -> DurableTier:
        """Return the durable tier of that name.

        Raises:
            InvalidOptionError: it is disabled.
        """
        tier = self.tier(name)
        assert isinstance(tier, DurableTier)
        return tier

    def require_readable(self) -> None:
        """Raise ClosedError unless something can be read, and BusyError in a handler."""
        self.operations.require_free()
        require_readable(self.state)

    def require_writable(self) -> None:
        """Raise unless this manager may change the store."""
        require_writable(self.state)

    def _expire_some(self, count: int = OVERDUE_PER_STORE) -> None:
        """Remove some expired entries without I/O: stores may be faster than the background."""
        deadlines = self.catalog.deadlines
        soonest = deadlines.soonest()
        if soonest is None or (horizon := self.expiry.horizon()) < soonest:
            return
        for key in islice(deadlines.due(horizon), count):
            entry = self.catalog.entries.get(key)
            if entry is not None and entry.backed is None:
                self.mover.expire(entry)

    def _reconcile_key(self, key: str) -> None:
        """Make entry, record and archive agree on `key`, after an interrupted call.

        The bytes that an entry held are released later, by `_recount`.
        """
        catalog = self.catalog
        with self.locks.lock(key):
            if TierName.GLACIER in self.tiers:
                self.mover.archive.resolve(key)
            record, entry = catalog.record(key), catalog.entries.get(key)
            if entry is None:
                pass
            elif record is None:
                catalog.clear_backing(entry)
            elif record.version == entry.version:
                catalog.set_backing(record)
                if record.terms != entry.terms:  # Those of the record were written first.
                    self.mover.replace_terms(entry, record.terms)
            else:
                # A newer record was to replace the entry. An older one was to be replaced by the
                # entry, which was not durable yet: that store has not happened.
                catalog.drop(entry)
            self.mover.finish_rename(key)

    def _recount(self) -> None:
        """Recount what follows from the entries, while no call is under way."""
        self.settlement.recount(self._recount_settled)

    def _recount_settled(self) -> None:
        self.catalog.recount()
        held: Counter[TierName] = Counter()
        for entry in list(self.catalog.entries.values()):
            held[entry.tier] += entry.size
        hosts: Counter[Budget] = Counter()
        for tier in self.tiers.values():
            tier.eviction_threads.reset()
        for victims in self.tiers.victims():
            victims.rebuild()
        # The former orders are reference cycles, which would keep entries that have left.
        gc.collect()
        for durable in self.tiers.durable.values():
            durable.budget.recount()
        for name, volatile in self.tiers.volatile.items():
            volatile.budget.recount(held[name])
            if volatile.budget.parent is not None:
                hosts[volatile.budget.parent] += volatile.budget.used
        for host, used in hosts.items():
            host.recount(used)
        self.catalog.journal.release_ended(self._after_import)

    def _after_import(self, error: BaseException | None) -> None:
        """End the archive changes of interrupted calls, once the pending files are durable."""
        if error is None and TierName.GLACIER in self.tiers:
            self.operations.run(self._resolve_archive)

    def _resolve_archive(self) -> None:
        for key in {one.key for one in self.mover.archive.bucket.prepared()}:
            with self.locks.lock(key):
                self.mover.archive.resolve(key)

    def _moment(self) -> float:
        return self.residency.moment(self.clock.monotonic())

    def _clear_key(self, key: str, limit: int) -> None:
        """Remove `key` unless it was stored anew; its lock keeps entry and record in step."""
        with self.locks.lock(key):
            found = self.catalog.lookup(key)
            if found is not None and found.version < limit:
                self.mover.drop(found, Cause.REMOVED)

    def _put_first(self, order: Order, targets: Iterable[AnyTier]) -> Entry | Record:
        """Store into the first tier of `targets` that can make room."""
        full = None
        try:
            for target in targets:
                try:
                    return self._put_into(order, target)
                except TierFullError as error:
                    full = error
            assert full is not None, "there is a target, or `candidates` has raised"
            raise full
        finally:
            full = None  # An error and this frame refer to each other, and would keep the value.

    def _put_into(self, order: Order, target: AnyTier) -> Entry | Record:
        if isinstance(target, DurableTier):
            target.victims.record_arrivals([(order.version.key, 0)])
            return self.mover.write(order.payload, order.version, target)
        overwrites = order.old_record is not None and not order.volatile
        durable = self.write_through or order.durable or overwrites
        backing = self.backing_tier(order.version) if durable else None
        entry = self.mover.put(
            order.payload, order.version, target, backing=backing, roams=order.roams
        )
        if order.old_record is not None and backing is None:
            self._bury(entry, order)
        return entry

    def _bury(self, entry: Entry, order: Order) -> None:
        """Make the durable version under a volatile one absent, for after a crash.

        The new version is in the catalog already, so that no reader finds the key absent in
        between. If the tombstone cannot be written, the old version is put back.
        """
        try:
            self.catalog.journal.remove(entry.key, order.gone)
        except MemoriesError:
            if isinstance(order.previous, Entry):
                self.catalog.put(order.previous)
            else:
                self.catalog.drop(entry)
            self.mover.release(entry)
            raise

    def backing_tier(self, version: Version) -> DurableTier:
        """Return where the durable copy of a version in RAM is written."""
        for name, tier in self.tiers.durable.items():
            if version.terms.admits(name):
                return tier
        return self.tiers.durable[TierName.COLD]

    def _should_stay(self, entry: Entry) -> bool:
        """Return whether a caller's version is only in RAM and may not be dropped."""
        passing = entry.key[0] == INTERNAL or self.mover.is_droppable(entry)
        return not (entry.backed or passing or self.expiry.has_expired(entry))

    def _write_back(self, entry: Entry) -> None:
        version, passing = version_of(entry), self.mover.is_droppable(entry)
        payload, target = Payload.of_entry(entry), self.backing_tier(version)
        try:
            self.catalog.set_backing(self.mover.write(payload, version, target, spares=passing))
        except TierFullError:
            if not passing:
                raise

    def _miss(self, key: str, found: Entry | Record | None) -> KeyNotFoundError:
        if found is not None and self.state is LifecycleState.OPEN:
            self.expire(found)
        self.settlement.record_miss(Missed(key, self.clock.monotonic()))
        return self._absent(key, found)

    def _absent(self, key: str, found: Entry | Record | None) -> KeyNotFoundError:
        if found is None and key[0] != INTERNAL:
            self.doubt(key)
        return KeyNotFoundError(f"{key[:200]!r} is in no tier")

    def _expired(self, found: Entry | Record, moment: float | None = None) -> bool:
        if moment is None:
            return self.expiry.has_expired(found)
        ends = found.terms.expires_at
        return ends is not None and ends <= moment

    def _compare(self, key: str, found: Entry | Record | None, if_version: int) -> None:
        if found is None:
            self.doubt(key)
        current = 0 if found is None or self._expired(found) else found.version
        if current != if_version:
            present = f"at version {current}, not" if current else "absent, not at version"
            raise ConflictError(f"{key[:200]!r} is {present} {if_version}; read it again and retry")

    def _check_terms(self, found: Entry | Record, target: TierName) -> None:
        if found.terms.pinned:
            raise InvalidOptionError(
                f"{found.key[:200]!r} is pinned to {found.tier}; unpin it first"
            )
        if not found.terms.admits(target):
            raise InvalidOptionError(
                f"{found.key[:200]!r} may not lie in {target}: its min_tier is "
                f"{found.terms.min_tier or 'hot'}, its max_tier {found.terms.max_tier or 'glacier'}"
            )


def _is_older(limit: int, found: Entry | Record) -> bool:
    return found.version < limit
