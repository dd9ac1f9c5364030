"""Reports changes that the short way made to policies, counters and observers, many at once.

A store or a removal by the short way (`residency`) only appends a `Change`. The changes are settled
by the migrator, before any decision that needs them, and before any question whose answer would
show the difference. The bytes of an entry that has left stay charged until then, since the change
refers to it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from itertools import groupby

from memories.engine.catalog import Catalog
from memories.engine.entry_table import EVERY, Change
from memories.engine.operations import Operations
from memories.engine.tier import Tiers
from memories.engine.victims import Step
from memories.foundation.fork_lock import holder_test, new_lock
from memories.model.entry import Entry
from memories.model.events import Event, EventBus, Missed, Removed, Stored
from memories.model.tiers import Cause, TierName
from memories.policies.hashing import remember_digests

AT_ONCE = 256  # Changes that are reported together, in one or two milliseconds.

# So many changes wait until the migrator is woken to settle them ...
WAKING_CHANGES = 16_384
# ... until one in `EVERY` settles twice as many in the thread that makes it ...
MANY_CHANGES = 32_768
# ... and until that waits for another thread that settles at this moment.
MOST_CHANGES = 65_536
MOST_LEFT_BYTES = 64 << 20  # What has left may take so much until it is settled.


def _nothing(many: bool) -> None:
    """Do nothing."""
    del many


class Settlement:
    """The changes that are not reported yet. Safe to use from any number of threads."""

    def __init__(
        self, tiers: Tiers, catalog: Catalog, operations: Operations, events: EventBus
    ) -> None:
        # Called with False at the first change that waits, with True when many do.
        self.wake: Callable[[bool], None] = _nothing
        self.changes = catalog.table.changes
        self._tiers = tiers
        self._catalog = catalog
        self._operations = operations
        self._events = events
        # Being reported; what an interrupt left is reported again.
        self._taken: list[Change | Missed] = []
        self._lock = new_lock()
        self.is_held_here = holder_test(self._lock)  # Whether this thread reports at this moment.

    def settle(self) -> None:
        """Report every change that was made before this call."""
        if self.changes or self._taken:
            self._settle(len(self.changes))

    def settle_before(self, entries: Sequence[Entry], keys: Sequence[str] = ()) -> None:
        """Report how `entries` came, and what left from `keys`, before these keys change.

        With keys, every change is reported if the bytes of what has left are still charged.
        Otherwise only arrivals wait, which are in the order of their policy before it decides. The
        caller has locked the keys, or looks again when it has.
        """
        if (
            any(entry.link is None for entry in entries)
            or (keys and self._departures_wait())
            or (self._taken and self._is_reporting([*[entry.key for entry in entries], *keys]))
        ):
            self.settle()

    def _departures_wait(self) -> bool:
        budgets = [tier.budget for tier in self._tiers.volatile.values()]
        return any(budget.left != budget.left_released for budget in budgets)

    def _is_reporting(self, keys: Sequence[str]) -> bool:
        """Return whether a thread reports a change of one of `keys`, and perhaps has not ended."""
        # Thread 1 shows the policy what came, then calls the observers. Thread 2 finds the entry
        # in the policy in between.
        return not {_key(change) for change in self._taken}.isdisjoint(keys)

    def record_miss(self, miss: Missed) -> None:
        """Report a miss after what happened before; it does not have to be settled for that."""
        if not self.changes and not self._taken:
            self._events.emit(miss)
            return
        self.changes.append(miss)
        if not len(self.changes) % EVERY:
            self.announce(len(self.changes))

    def announce(self, waiting: int) -> None:
        """Wake the migrator, or settle some of the waiting changes in this thread."""
        if waiting == 1 or waiting == WAKING_CHANGES:
            self.wake(waiting > 1)
            return
        budgets = [tier.budget for tier in self._tiers.volatile.values()]
        left = max([budget.left - budget.left_released for budget in budgets])
        if waiting >= MANY_CHANGES or left > MOST_LEFT_BYTES:
            self.settle_some(2 * EVERY, wait=waiting >= MOST_CHANGES)

    def settle_some(self, most: int, *, wait: bool) -> None:
        """Report some changes, the oldest first; without `wait`, not if another thread does it."""
        if wait or not self._taken:
            self._settle(most)

    def recount(self, recount: Callable[[], None]) -> None:
        """Report everything and call `recount` before anything else changes; no call is under way.

        What `recount` derives from the entries then holds for every entry.
        """
        while True:
            self.settle()
            with self._catalog.lock:
                if not self.changes and not self._taken:
                    recount()
                    return

    def _settle(self, count: int) -> None:
        if self.is_held_here():
            return  # An observer asks, or a signal handler.
        with self._lock:
            try:
                self._events.flush_reads()
                if self._taken:  # The bytes are recounted after an interrupt.
                    self._report(self._taken)
                while self.changes and count > 0:
                    self._settle_first(min(count, AT_ONCE))
                    count -= AT_ONCE
            except BaseException:
                self._operations.require_recount()
                raise

    def _settle_first(self, count: int) -> None:
        # One line: an interrupt leaves all of it or nothing. Other threads append meanwhile.
        self._taken, self.changes[:count] = self.changes[:count], []
        self._release(self._taken)
        self._report(self._taken)

    def _release(self, changes: list[Change | Missed]) -> None:
        left: defaultdict[TierName, list[Entry]] = defaultdict(list)
        for entry in _departed(changes):
            left[entry.common.tier].append(entry)
        for name, entries in left.items():
            tier = self._tiers.volatile[name]
            tier.release_batch(entries)
            tier.budget.left_released += sum([entry.size for entry in entries])
            # Here, where an interrupt leads to a recount, and not in the question that comes next.
            tier.budget.apply_releases()

    def _report(self, changes: list[Change | Missed]) -> None:
        volatile = self._tiers.volatile
        steps: dict[TierName, list[Step]] = {name: [] for name in volatile}
        counts: Counter[TierName] = Counter()
        happened: list[Stored | Removed | Missed] = []
        gone: list[str] = []
        came: list[Entry] = []
        for change in changes:
            if isinstance(change, Missed):
                happened.append(change)
                continue
            previous, entry, stamp, at, seconds = change
            if entry is not None:
                came.append(entry)
                name = entry.common.tier
                counts[name] += 1
                steps[name].append((entry, stamp))
                happened.append(Stored(entry.key, at + seconds, name, entry.size, seconds))
            if previous is not None:
                name = previous.common.tier
                counts[name] -= 1
                steps[name].append((previous, None))
                if entry is None:
                    key, size = previous.key, previous.size
                    happened.append(Removed(key, at + seconds, name, size, Cause.REMOVED))
                    for forgetting in steps.values():
                        forgetting.append(key)
                    gone.append(key)
        remember_digests([entry.key for entry in came])
        for name, tier in volatile.items():
            if steps[name]:
                tier.settle(steps[name])
        for durable in self._tiers.durable.values():
            durable.victims.forget(gone)
        self._catalog.count_changes(counts, len(came))
        self._emit(happened)
        remember_digests(())
        self._taken = []

    def _emit(self, happened: list[Stored | Removed | Missed]) -> None:
        """Emit events in their order, those together that follow each other in one tier."""
        for (kind, _), group in groupby(happened, key=_kind):
            if kind is Missed:
                for miss in group:
                    self._events.emit(miss)
            else:
                self._events.emit_batch([one for one in group if not isinstance(one, Missed)])

    def departed(self) -> list[Entry]:
        """Return the entries that have left, and of which this has not been reported."""
        return _departed([*self._taken, *self.changes])


def _key(change: Change | Missed) -> str:
    """Return the key of a change."""
    if isinstance(change, Missed):
        return change.key
    entry = change[1] or change[0]
    assert entry is not None, "an entry came, or one left"
    return entry.key


def _departed(changes: list[Change | Missed]) -> list[Entry]:
    """Return the entries that left by these changes."""
    return [
        change[0] for change in changes if not isinstance(change, Missed) and change[0] is not None
    ]


def _kind(event: Stored | Removed | Missed) -> tuple[type[Event], TierName | None]:
    return type(event), None if isinstance(event, Missed) else event.tier
