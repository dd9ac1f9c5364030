"""Carries out what the planner decides, on a thread of its own.

A move that fails leaves the value where it was; observers get an event, and the next attempt waits.
The thread holds the hierarchy weakly, so that it ends when the manager is garbage-collected.
"""

from __future__ import annotations

import math
import time
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice

from memories.engine import front_cache
from memories.engine.access_sampler import AccessSampler
from memories.engine.batch_write import MAX_VALUE
from memories.engine.budget import Budget
from memories.engine.catalog import Catalog
from memories.engine.hierarchy import Hierarchy
from memories.engine.hit_clock import SampledTick, unwrap_unwanted
from memories.engine.lifecycle_state import LifecycleState
from memories.engine.payload import Payload
from memories.engine.recency import RecencyTracker
from memories.engine.settlement import AT_ONCE
from memories.engine.tier import VolatileTier
from memories.errors import MemoriesError, TierFullError
from memories.foundation.periodic import STOP_SECONDS, Periodic, idle_poll_seconds
from memories.migration.filling import Filling
from memories.migration.key_cursor import KeyCursor
from memories.migration.planner import Planner, TierState
from memories.migration.read_promotion import ReadPromotion
from memories.model.entry import Entry
from memories.model.events import (
    Event,
    Failed,
    ReadBatch,
    Removed,
    Retrieved,
    Stored,
    ValueEvent,
)
from memories.model.record import Record
from memories.model.tiers import Cause, TierName
from memories.options.migration import MigrationSettings

MAX_PROMOTIONS = 1024  # Durable keys waiting to be promoted; more are dropped, not queued.
PROMOTIONS_PER_TICK = 64
DURABLE_BAND = 0.01  # At most, between the watermarks of the cold tier.
EXPIRED_AT_ONCE = 64
MOVED_AT_ONCE = 32  # Values, between two pauses ...
LOOKED_AT_ONCE = 256  # ... and keys: half a millisecond or one.
PAUSE_SECONDS = 1e-4  # In which a thread that waits for the interpreter runs.
EXPIRING_SECONDS = 0.05  # For removals in each turn; the next turn continues.
BACKOFF_SECONDS = 5.0
AGE_SECONDS = 60.0  # At most, between two rounds over the keys that have a rule by age.
AGED_AT_ONCE = 256
AGING_SECONDS = 0.05  # For keys with a rule by age in each turn; the next turn continues.
QUIET_SECONDS = 0.5  # Without activity, before it sleeps; longer than a measurement is valid.
SLEEP_SECONDS = 60.0  # Between two turns with nothing in RAM and no activity.
PRESSED_BYTES = 1 << 20  # With so much in RAM, it checks whether the host runs out of memory ...
PRESSURE_SECONDS = 1.0  # ... so often, even when it sleeps.
PLENTY = 2  # A tier of which one part in so many is free has plenty of room.
EXCHANGE_SHARE = 16  # One part in so many of a tier may be exchanged per turn, against thrashing.


class Migrator:
    """Moves values between the tiers of one hierarchy in the background."""

    def __init__(
        self,
        hierarchy: Hierarchy,
        settings: MigrationSettings,
        recency: RecencyTracker,
        sampler: AccessSampler,
    ) -> None:
        self.settings = settings
        self.planner = Planner(promote=settings.promote, demote_idle=settings.demote_idle)
        self.failures = 0
        self._recency = recency
        self._sampler = sampler
        self._hierarchy = weakref.ref(hierarchy)
        self._clock = hierarchy.clock
        now = self._clock.monotonic()
        entries = hierarchy.catalog.entries
        self._cursor = KeyCursor(lambda: tuple(entries), now)
        self._filling = Filling(now)
        # Records that were read, by key; and whether cold takes one of glacier that RAM refuses.
        self._promotions: OrderedDict[str, tuple[Record, bool]] = OrderedDict()
        self._paused_until = self._flushed_front_at = now
        self._aging: Iterator[str] | None = None  # The rest of the present round.
        self._age_at = now
        self._thread = Periodic(self._turn, "migrator", seconds=settings.interval_seconds)
        self._activity: tuple[float, ...] = ()
        self._quiet_from = 0  # The round of the cursor in which the latest activity was seen.
        self._quiet_at = now
        self._dozing = False
        hierarchy.events.subscribe(self._observe, self._observe_batch)
        hierarchy.settlement.wake = self._wake_to_settle
        hierarchy.idle_outcome = self.planner.outcome
        if settings.promote:
            by_reads = ReadPromotion(hierarchy, recency)
            hierarchy.events.subscribe_reads(self._observe_reads)
            hierarchy.cold_reader.decides = by_reads.decides
            hierarchy.cold_reader.promote = by_reads.promote

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout: float = STOP_SECONDS) -> None:
        """End the thread after its present move."""
        self._thread.stop(timeout)

    def tick(self) -> None:
        """Do one turn: move what should move."""
        hierarchy = self._hierarchy()
        if hierarchy is None or self._clock.monotonic() < self._paused_until:
            return
        # Other threads may settle in between, and may make changes faster than this.
        for _ in range(0, len(hierarchy.settlement.changes), AT_ONCE):
            hierarchy.settlement.settle_some(AT_ONCE, wait=True)
            self._pause(hierarchy)
        hierarchy.events.flush()
        self._sampler.process_notes()
        try:
            self._look(hierarchy)
            self._drain(hierarchy)
            self._promote(hierarchy)
            self._expire(hierarchy)
            self._age(hierarchy)
        except (MemoriesError, OSError) as error:
            self._fail(hierarchy, error)

    def _turn(self) -> None:
        hierarchy = self._hierarchy()
        if hierarchy is None:
            self._thread.stop()
            return
        try:
            if not self._dozing:
                self.tick()
            elif self._wakes(hierarchy):
                self._quiet_from = self._cursor.rounds
                self.tick()
            self._thread.seconds = self._pause_seconds(hierarchy)
        except BaseException as error:
            # A bug must not end migration silently: observers get an event, and it goes on.
            self._dozing = False
            self._fail(hierarchy, error)
            raise

    def _wakes(self, hierarchy: Hierarchy) -> bool:
        """Return whether there may be work; it reads some counters only."""
        now = self._clock.monotonic()
        if hierarchy.activity() != self._activity or now >= self.planner.next_idle_at:
            return True
        if self._holds_much(hierarchy) and self._pressed(hierarchy):
            return True
        ends = hierarchy.next_expiry()
        aging = hierarchy.catalog.rules.aging and now >= self._age_at
        return bool(aging) or (ends is not None and self._clock.wall() >= ends)

    def _holds_much(self, hierarchy: Hierarchy) -> bool:
        """Return whether the tiers in RAM hold enough to matter to other processes."""
        held = sum(hierarchy.tiers[name].budget.used for name in (TierName.HOT, TierName.WARM))
        return held >= PRESSED_BYTES

    def _pressed(self, hierarchy: Hierarchy) -> bool:
        """Return whether a tier in RAM holds more than it may now; measuring is expensive."""
        budgets = [hierarchy.tiers[name].budget for name in (TierName.HOT, TierName.WARM)]
        return any(one.used > self.settings.high_watermark * one.effective for one in budgets)

    def _pause_seconds(self, hierarchy: Hierarchy) -> float:
        """Return the seconds to sleep: without activity, until the next deadline.

        Events wake the thread. A hit in RAM does not, since that would cost more than the hit; so
        it looks for hits while there are entries.
        """
        now, interval = self._clock.monotonic(), self.settings.interval_seconds
        looked_round = self._cursor.rounds >= self._quiet_from + 2  # All keys were seen since then.
        quiet = looked_round and now - self._quiet_at >= QUIET_SECONDS
        self._dozing = quiet and not (self._promotions or self._aging)
        # Read after that: any later event wakes it.
        activity = hierarchy.activity()
        if activity != self._activity:
            self._activity, self._quiet_from, self._quiet_at = activity, self._cursor.rounds, now
            self._dozing = False
        if not self._dozing:
            return interval
        self._cursor.reset()
        entries = hierarchy.catalog.entries
        due = [
            now + (idle_poll_seconds(now - self._quiet_at) if entries else SLEEP_SECONDS),
            self.planner.next_idle_at,
        ]
        if hierarchy.catalog.rules.aging:
            due.append(self._age_at)
        if self._holds_much(hierarchy):
            due.append(now + PRESSURE_SECONDS)
        ends = hierarchy.next_expiry()
        if ends is not None:
            due.append(now + ends - self._clock.wall())
        return max(interval, min(due) - now)

    def _look(self, hierarchy: Hierarchy) -> None:
        now = self._clock.monotonic()
        if now - self._flushed_front_at >= front_cache.SECONDS:
            self._flushed_front_at = now
            hierarchy.catalog.flush_front()
        states = {}
        for victims in hierarchy.tiers.victims():
            victims.drain_notes()
        hot = hierarchy.tiers.volatile[TierName.HOT]
        if hot.pool is not None:
            hot.pool.align()
        for name in (TierName.HOT, TierName.WARM):
            tier = hierarchy.tiers.volatile[name]
            tier.hit_clock.record(now)
            used, effective = tier.budget.used, tier.budget.effective
            headroom = int(self.settings.low_watermark * effective) - used
            exchange = effective // EXCHANGE_SHARE
            states[name] = TierState(
                effective, headroom, exchange, tier.hit_clock.time_of, partial(_suits, tier)
            )
            if name is TierName.HOT and PLENTY * used <= effective:
                hits = tier.counter.hits + hierarchy.catalog.front.hits
                states[name].filled_until = self._filling.until(hits)
                states[name].filled_at = self._filling.arrived_at
        rounds = self._cursor.rounds
        keys, looked_at = self._cursor.next_slice(now)
        if self._cursor.rounds != rounds:
            self.planner.next_idle_at = math.inf
        idle, read = list[Entry](), list[Entry]()
        paused = 0.0
        for start in range(0, len(keys), LOOKED_AT_ONCE):
            entries = self._unexpired(hierarchy, keys[start : start + LOOKED_AT_ONCE])
            for move in self.planner.plan(entries, states, now=now, looked_at=looked_at):
                (read if move.cause is Cause.HIT else idle).append(move.entry)
                if len(idle) + len(read) == MOVED_AT_ONCE:
                    self._move_planned(hierarchy, idle, read, states[TierName.HOT])
                    # Entries that are referred to here stay charged when they leave.
                    idle.clear()
                    read.clear()
                    paused += self._pause(hierarchy)
            # Beside a thread that never waits pauses take long: at most half of the time.
            if self._clock.monotonic() - now >= 2 * paused:
                paused += self._pause(hierarchy)
        self._move_planned(hierarchy, idle, read, states[TierName.HOT])

    def _move_planned(
        self, hierarchy: Hierarchy, idle: Sequence[Entry], read: Sequence[Entry], hot: TierState
    ) -> None:
        if idle:
            self._demote_idle(hierarchy, idle, hot)
        if read:
            self._promote_entries(hierarchy, read)

    def _promote_entries(self, hierarchy: Hierarchy, entries: Sequence[Entry]) -> None:
        """Move entries of warm to hot, together as far as that is possible."""
        hot, may_evict = hierarchy.tiers.volatile[TierName.HOT], None
        if hot.pool is None:
            entries = [one for one in entries if hot.admits(one.key, one.size, hits=one.hits)]
        else:
            may_evict = _none  # For a rank in the pool nothing leaves it.
        for entry in hierarchy.try_move_batch(entries, TierName.HOT, Cause.HIT).left:
            try:
                hierarchy.try_move(entry, TierName.HOT, Cause.HIT, may_evict=may_evict)
            except TierFullError:
                continue  # Another value took the room; this one stays until there is more.

    def _demote_idle(
        self, hierarchy: Hierarchy, entries: Sequence[Entry], source: TierState
    ) -> None:
        """Move entries of hot to warm, together as far as that is possible."""
        accessed = {entry.key: source.time_of(entry.stamp) for entry in entries}
        outcome = hierarchy.try_move_batch(entries, TierName.WARM, Cause.IDLE)
        for entry in outcome.done:
            self.planner.record_demotion(entry, accessed[entry.key])
        pooled = hierarchy.tiers.volatile[TierName.HOT].pool is not None
        for entry in outcome.left:
            try:
                may_evict = _none if pooled else None
                if hierarchy.try_move(entry, TierName.WARM, Cause.IDLE, may_evict=may_evict):
                    self.planner.record_demotion(entry, accessed[entry.key])
            except TierFullError:
                continue  # Another value took the room; this one stays until there is more.

    def _pause(self, hierarchy: Hierarchy) -> float:
        """Let other threads run: one that waits for the interpreter waits for a batch at most.

        Returns the seconds until this thread had the interpreter again.
        """
        started = self._clock.monotonic()
        time.sleep(PAUSE_SECONDS)
        now = self._clock.monotonic()
        for tier in hierarchy.tiers.volatile.values():
            tier.budget.renew(now)  # No store has to.
        return self._clock.monotonic() - started

    def _drain(self, hierarchy: Hierarchy) -> None:
        pause = partial(self._pause, hierarchy)
        for name, tier in hierarchy.tiers.items():
            if name is TierName.GLACIER:
                continue
            if isinstance(tier, VolatileTier) and tier.pool and name is TierName.HOT:
                continue  # Warm stands for the pool.
            account = tier.account
            effective = account.effective
            high, low = self.settings.high_watermark, self.settings.low_watermark
            if name.durable:
                # Values that leave cold are slow to read afterwards, so only a few leave at a time.
                low = max(low, high - DURABLE_BAND)
            if account.used > high * effective:
                hierarchy.drain(name, int(low * effective), MOVED_AT_ONCE, pause)

    def _promote(self, hierarchy: Hierarchy) -> None:
        """Promote durable keys that were read: to RAM, or from glacier to cold."""
        warm = hierarchy.tiers.volatile[TierName.WARM].budget
        exchange = warm.effective // EXCHANGE_SHARE
        alone = list[tuple[Record, TierName]]()
        small = list[Record]()
        room = int(self.settings.high_watermark * warm.effective) - warm.used
        while self._promotions and len(alone) < PROMOTIONS_PER_TICK and exchange > 0:
            record, returns = self._promotions.popitem(last=False)[1]
            if record.key in hierarchy.catalog.entries:
                continue
            target = self._target(hierarchy, record, returns)
            if target is None:
                continue
            if target is TierName.WARM and record.size <= min(room, MAX_VALUE):
                room -= record.size  # Nothing is exchanged.
                small.append(record)
            else:
                exchange -= record.size
                alone.append((record, target))
        for start in range(0, len(small), MOVED_AT_ONCE):
            together = small[start : start + MOVED_AT_ONCE]
            left = hierarchy.operations.run(_load, hierarchy, together)
            alone += [(record, TierName.WARM) for record in left]
            self._pause(hierarchy)
        for record, target in alone[:PROMOTIONS_PER_TICK]:  # The others come after another read.
            try:
                hierarchy.try_move(record, target, Cause.HIT)
            except TierFullError:
                # The tier has filled since the read. A hot value is read again.
                continue

    def _target(self, hierarchy: Hierarchy, record: Record, returns: bool) -> TierName | None:
        """Return the tier that takes a value that was read: RAM, or cold if that refuses it.

        A read is an arrival: the policy of the tier decides, which knows the keys that left it.
        """
        terms = record.terms
        name = TierName.WARM if terms.admits(TierName.WARM) else TierName.HOT
        hits = max(self._recency.reads(record.key) - 1, 0)
        if terms.admits(name) and hierarchy.tiers[name].admits(record.key, record.size, hits=hits):
            return name
        is_archived = record.tier is TierName.GLACIER
        return TierName.COLD if is_archived and returns and terms.admits(TierName.COLD) else None

    def _expire(self, hierarchy: Hierarchy) -> None:
        # Each removal of a key at rest writes a tombstone, so a few may take long.
        until = self._clock.monotonic() + EXPIRING_SECONDS
        while hierarchy.expire_overdue(EXPIRED_AT_ONCE) and self._clock.monotonic() < until:
            pass

    def _age(self, hierarchy: Hierarchy) -> None:
        """Demote keys that are old enough by their rule, for a while in each turn."""
        rules, now = hierarchy.catalog.rules, self._clock.monotonic()
        if not rules.aging or (not self._aging and now < self._age_at):
            return
        if not self._aging:
            self._age_at = now + min(AGE_SECONDS, rules.soonest_seconds / 10)
            prefixes = [rule.prefix for rule in rules.aging]
            self._aging = _keys_in_no_order(hierarchy.catalog, prefixes)
        until = now + AGING_SECONDS
        while keys := list(islice(self._aging, AGED_AT_ONCE)):
            self._age_keys(hierarchy, keys)
            if self._clock.monotonic() >= until:
                return
            self._pause(hierarchy)
        self._aging = None

    def _age_keys(self, hierarchy: Hierarchy, keys: Sequence[str]) -> None:
        """Demote those of some keys that are old enough."""
        rules = hierarchy.catalog.rules
        due: dict[tuple[TierName, TierName], list[Entry]] = {}
        for key in dict.fromkeys(keys):  # One that moves meanwhile may come twice.
            found = hierarchy.catalog.lookup(key)
            target = None if found is None else rules.due(found, self._clock.wall())
            if found is None or target is None or found.tier.rank >= target.rank:
                continue
            if isinstance(found, Entry):
                due.setdefault((found.tier, target), []).append(found)
            else:
                self._age_one(hierarchy, found, target)
        for (_, target), entries in due.items():
            for start in range(0, len(entries), MOVED_AT_ONCE):
                batch = entries[start : start + MOVED_AT_ONCE]
                for entry in hierarchy.try_move_batch(batch, target, Cause.RULE).left:
                    self._age_one(hierarchy, entry, target)
                self._pause(hierarchy)

    def _age_one(self, hierarchy: Hierarchy, found: Entry | Record, target: TierName) -> None:
        try:
            hierarchy.try_move(found, target, Cause.RULE)
        except TierFullError:
            return  # It stays until there is room in the slower tier.

    def _unexpired(self, hierarchy: Hierarchy, keys: Sequence[str]) -> Iterator[Entry]:
        """Yield the entries of `keys`, and remove those that have expired."""
        for key in keys:
            entry = hierarchy.catalog.entries.get(key)
            if entry is None:
                continue
            common = entry.common
            if common.terms.expires_at is not None and hierarchy.expiry.has_expired(entry):
                hierarchy.expire(entry)
                continue
            if isinstance(common.tick, SampledTick):
                tick = unwrap_unwanted(common.tick)
                if tick is not common.tick and entry.common is common:
                    entry.tick = tick
            yield entry

    def _observe_reads(self, reads: Sequence[Retrieved]) -> None:
        """Show reads that do not decide themselves to the promotion gate; queue what passes."""
        hierarchy = self._hierarchy()
        if hierarchy is None:
            return
        self._wake()
        rules, wall = hierarchy.catalog.rules, self._clock.wall()
        aging, entries = bool(rules.aging), hierarchy.catalog.entries
        shown: dict[TierName, list[Record]] = {}
        terms, tier, above = None, None, None  # Of most records they are the same.
        for record in _undecided(reads):
            if record.terms is not terms or record.tier is not tier:
                terms, tier = record.terms, record.tier
                above = None if terms.pinned else terms.next_faster(tier)
            if above is None or record.key in entries:
                continue  # It may not come up, or the value is in RAM already.
            due = rules.due(record, wall) if aging else None
            if due is None or above.rank >= due.rank:
                shown.setdefault(above, []).append(record)
        for above, records in shown.items():
            budget = hierarchy.tiers[above].budget
            room = int(self.settings.high_watermark * budget.effective) - budget.used
            if isinstance(budget, Budget):
                room += budget.leaving  # Settling it here would delay the reader.
            returns = self._recency.record_reads(records, room=room)
            self._queue(hierarchy, zip(records, returns, strict=True))

    def _observe(self, event: Event) -> None:
        """Wake up; forget a key that is in no tier any more."""
        if isinstance(event, Removed):
            self._forget(event.key)
        elif isinstance(event, Stored) and event.tier is TierName.HOT:
            self._filling.record_arrival(event.at)
        self._wake()

    def _wake_to_settle(self, many: bool) -> None:
        if many:
            self._thread.wake()
        else:
            self._wake()

    def _wake(self) -> None:
        if self._dozing:
            self._dozing = False
            self._thread.wake()

    def _observe_batch(self, events: Sequence[ValueEvent]) -> None:
        """Wake up; forget keys that are in no tier any more."""
        if isinstance(events[0], Removed):
            for event in events:
                self._forget(event.key)
        elif isinstance(events[-1], Stored) and events[-1].tier is TierName.HOT:
            self._filling.record_arrival(events[-1].at)
        self._wake()

    def _forget(self, key: str) -> None:
        self.planner.forget(key)

    def _queue(self, hierarchy: Hierarchy, read: Iterable[tuple[Record, bool]]) -> None:
        """Queue records that were read; tell the policy of warm of the others."""
        warm = hierarchy.tiers[TierName.WARM].victims
        for record, returns in read:
            if len(self._promotions) < MAX_PROMOTIONS:
                self._promotions[record.key] = record, returns
            else:
                warm.record_read(record.key, record.size)

    def _fail(self, hierarchy: Hierarchy, error: BaseException) -> None:
        self.failures += 1
        now = self._clock.monotonic()
        self._paused_until = now + BACKOFF_SECONDS
        hierarchy.events.emit(Failed("", now, "migration", error))


def _undecided(reads: Sequence[Retrieved]) -> Sequence[Record]:
    """Return the records of those reads that do not decide themselves."""
    if isinstance(reads, ReadBatch):
        return reads.records  # None of them does.
    return [read.record for read in reads if not read.decides]


def _none(victim: Entry | Record) -> bool:
    del victim
    return False


def _keys_in_no_order(catalog: Catalog, prefixes: Sequence[str]) -> Iterator[str]:
    """Yield the keys below some prefixes, some of them twice.

    Their order is not needed, and to make that of a million would stop all threads.
    """
    starts = tuple(prefixes)
    yield from (key for key in tuple(catalog.entries) if key.startswith(starts))
    for prefix in prefixes:
        yield from (record.key for record in catalog.journal.scan(prefix))


def _load(hierarchy: Hierarchy, records: Sequence[Record]) -> list[Record]:
    """Bring small values of cold into warm together, as far as there is room; return what is left.

    What is left can be moved by `try_move`.
    """
    warm, wanted = hierarchy.tiers.volatile[TierName.WARM], {one.key: one for one in records}
    if hierarchy.state is not LifecycleState.OPEN:
        return list(records)

    def may_come(found: Record) -> bool:
        is_same = found.version == wanted[found.key].version
        return is_same and not found.terms.pinned and found.terms.admits(TierName.WARM)

    left = hierarchy.mover.batch.load(list(wanted), warm, Cause.HIT, may_come)
    return [wanted[key] for key in left]


def _suits(tier: VolatileTier, entry: Entry) -> bool:
    return tier.suits(Payload.of_entry(entry))
