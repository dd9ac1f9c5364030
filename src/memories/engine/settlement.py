"""Reports changes that the short way made to policies, counters and observers, many at once.

A store or a removal by the short way (`residency`) only appends a `Change`. The changes are settled
by the migrator, before any decision that needs them, and before any question whose answer would
show the difference. The bytes of an entry that has left stay charged until then, since the change
refers to it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from time import sleep
from typing import TYPE_CHECKING, Any, Final

from memories.engine.entry_table import EVERY, TRIES, Change
from memories.engine.newcomers import Arrived
from memories.foundation.fork_lock import holder_test, new_lock
from memories.model.entry import Entry
from memories.model.events import EventBatch, Missed, Removed, Stored
from memories.model.tiers import Cause, TierName

if TYPE_CHECKING:
    from memories.engine.catalog import Catalog
    from memories.engine.operations import Operations
    from memories.engine.tier import Tiers
    from memories.engine.victims import Victims
    from memories.model.events import EventBus

AT_ONCE: Final = 256  # Changes that are reported together, in one or two milliseconds.

# So many changes wait until the migrator is woken to settle them ...
WAKING_CHANGES: Final = 16_384
# ... until one in `EVERY` settles twice as many in the thread that makes it ...
MANY_CHANGES: Final = 32_768
# ... and until that waits for another thread that settles at this moment.
MOST_CHANGES: Final = 65_536
MOST_LEFT_BYTES: Final = 64 << 20  # What has left may take so much until it is settled.


def _nothing(many: bool) -> None:
    """Do nothing."""
    del many


class Waiting:
    """What is about to be reported to the policies."""

    def __init__(self, names: Sequence[TierName]) -> None:
        self.came: dict[TierName, list[Arrived]] = {name: [] for name in names}
        self.left: dict[TierName, list[Entry]] = {name: [] for name in names}
        self.gone: dict[str, None] = {}  # Keys that were removed.
        self.counts: Counter[TierName] = Counter()  # Of those that came, less those that left.


class Settlement:
    """The changes that are not reported yet. Safe to use from any number of threads."""

    def __init__(
        self, tiers: Tiers, catalog: Catalog, operations: Operations, events: EventBus
    ) -> None:
        # Called with False at the first change that waits, with True when many do.
        self.wake: Callable[[bool], None] = _nothing
        self.changes = catalog.table.changes
        # As many as there are among the changes, or more for a moment.
        self._misses: list[Missed] = []
        self._tiers = tiers
        self._catalog = catalog
        self._operations = operations
        self._events = events
        # Being reported; what an interrupt left is reported again, ...
        self._taken: list[Change | Missed] = []
        # ... without the events that were delivered; each list is delivered at once. None until
        # they are made.
        self._events_left: list[list[Any]] | None = None
        catalog.order.unreported = self.unreported_keys
        self._lock = new_lock()
        self.is_held_here = holder_test(self._lock)  # Whether this thread reports at this moment.

    def settle(self) -> None:
        """Report every change that was made before this call."""
        if self.changes or self._taken:
            self._settle(len(self.changes))

    def settle_earlier(self) -> None:
        """Report every change that was made before the present call of this thread began.

        A call that moves thousands of values, one batch after another, would otherwise report in
        each batch what other threads store meanwhile, and wait for the thread that does so too.
        """
        if self._operations.begins_to_settle():
            self.settle()

    def settle_before(self, entries: Sequence[Entry], keys: Sequence[str] = ()) -> None:
        """Report how `entries` came, and what left from `keys`, before these keys change.

        With keys, every change is reported if the bytes of what has left are still charged, or if a
        miss waits, which came before what the caller will report. Otherwise only arrivals wait,
        which are in the order of their policy before it decides. The caller has locked the keys, or
        looks again when it has.
        """
        if (
            (entries and any(entry.link is None for entry in entries))
            or (keys and (self._misses or self._departures_wait()))
            or (self._taken and self._is_reporting([*[entry.key for entry in entries], *keys]))
        ):
            self.settle()

    def _departures_wait(self) -> bool:
        for tier in self._tiers.volatile.values():
            budget = tier.budget
            if budget.leaving:
                return True
        return False

    def _is_reporting(self, keys: Sequence[str]) -> bool:
        """Return whether a thread reports a change of one of `keys`, and perhaps has not ended."""
        # Thread 1 shows the policy what came, then calls the observers. Thread 2 finds the entry
        # in the policy in between.
        return not {_key(change) for change in self._taken}.isdisjoint(keys)

    def record_miss(self, miss: Missed) -> None:
        """Report a miss after what happened before; it does not have to be settled for that."""
        if not (self.changes or self._taken or self._operations.holds_lock()):
            self._events.emit_apart(miss)
            return
        self._misses.append(miss)
        self.changes.append(miss)
        if not len(self.changes) % EVERY:
            self.announce(len(self.changes))

    def announce(self, waiting: int) -> None:
        """Wake the migrator, or settle some of the waiting changes in this thread."""
        if waiting == 1 or waiting == WAKING_CHANGES:
            self.wake(waiting > 1)
            return
        budgets = [tier.budget for tier in self._tiers.volatile.values()]
        left = max([budget.leaving for budget in budgets])
        if waiting >= MANY_CHANGES or left > MOST_LEFT_BYTES:
            if self._operations.holds_lock():
                self.wake(True)  # A signal handler stores in the middle of something.
                return
            self.settle_some(2 * EVERY, wait=waiting >= MOST_CHANGES)

    def settle_some(self, most: int, *, wait: bool) -> None:
        """Report some changes, the oldest first; without `wait`, not if another thread does it."""
        for _ in range(TRIES if wait else 0):
            if not self._taken:
                break
            sleep(0)  # As `EntryTable.take_turn` does: no queue forms.
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
        self._operations.require_free()
        with self._lock:
            try:
                self._events.flush()
                if self._taken:  # The bytes are recounted after an interrupt.
                    self._report(self._taken)
                while self.changes and count > 0:
                    self._settle_first(min(count, AT_ONCE))
                    count -= AT_ONCE
            except BaseException:
                self._operations.require_recount()
                raise

    def _settle_first(self, count: int) -> None:
        changes, misses = self.changes, self._misses
        taken = changes[:count]
        missed = sum([type(change) is Missed for change in taken]) if misses else 0
        # One line: an interrupt leaves all of it or nothing. Other threads append meanwhile.
        self._taken, self._events_left, changes[:count], misses[:missed] = taken, None, [], []
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

    def _report(self, changes: Sequence[Change | Missed]) -> None:
        orders = self._orders()
        waiting = Waiting(list(orders))
        # Events in their order, those together that follow each other and are of one kind.
        groups: list[list[Any]] = []
        group = EventBatch()
        latest: TierName | None = None  # The tier of all in the group.
        are_stores = False
        volatile = self._tiers.volatile
        in_order = {name for name, tier in volatile.items() if not tier.victims.is_patient}
        for change in changes:
            if not isinstance(change, tuple):
                groups.append([change])
                latest = None
                continue
            previous, entry, stamp, at, seconds = change
            if entry is not None:
                name = entry.common.tier
                order = orders[name]
                if entry.key in waiting.gone or (waiting.left[order] and name in in_order):
                    self._tell(waiting)  # What left comes before it.
                waiting.came[order].append((entry, stamp))
                waiting.counts[name] += 1
                if name is not latest or not are_stores:
                    group, latest, are_stores = EventBatch(), name, True
                    groups.append(group)
                group.append(Stored(entry.key, at + seconds, name, entry.size, seconds))
            if previous is not None:
                name = previous.common.tier
                waiting.left[orders[name]].append(previous)
                waiting.counts[name] -= 1
                if entry is None:
                    key, size = previous.key, previous.size
                    waiting.gone[key] = None
                    if name is not latest or are_stores:
                        group, latest, are_stores = EventBatch(), name, False
                        groups.append(group)
                    group.append(Removed(key, at + seconds, name, size, Cause.REMOVED))
        self._tell(waiting)
        if self._events_left is None:
            self._events_left = groups
        self._emit(self._events_left)
        self._taken = []

    def _orders(self) -> dict[TierName, TierName]:
        """Return for each tier the first one that has the same order of eviction."""
        first: dict[Victims[Any], TierName] = {}
        for name, tier in self._tiers.volatile.items():
            first.setdefault(tier.victims, name)
        return {name: first[tier.victims] for name, tier in self._tiers.volatile.items()}

    def _emit(self, left: list[list[Any]]) -> None:
        """Emit events in their order, and remove them from `left`.

        After an interrupt, observers may get the first of them again: the same object.
        """
        while left:
            group = left[0]
            if isinstance(group[0], Missed):
                self._events.emit(group[0])
            else:
                self._events.emit_batch(group)
            del left[0]

    def _tell(self, waiting: Waiting) -> None:
        """Report entries to the policies and the catalog."""
        arrivals = 0
        keys: list[str] = list(waiting.gone) if self._catalog.order.in_use else []
        for name, tier in self._tiers.volatile.items():
            came, left = waiting.came[name], waiting.left[name]
            if came or left:
                tier.settle(came, left)
            arrivals += len(came)
            if self._catalog.order.in_use:
                keys += [entry.key for entry, _ in came]
            waiting.came[name], waiting.left[name] = [], []
        if waiting.gone:
            gone = list(waiting.gone)
            for victims in self._tiers.victims():
                victims.forget(gone)
            waiting.gone.clear()
        counts, waiting.counts = waiting.counts, Counter()
        self._catalog.count_changes(counts, arrivals, keys)

    def unreported_keys(self) -> list[str]:
        """Return the keys of which a change has not been reported."""
        return [_key(change) for change in [*self._taken, *self.changes]]

    def departed(self) -> list[Entry]:
        """Return the entries that have left, and of which this has not been reported."""
        return _departed([*self._taken, *self.changes])


def _key(change: Change | Missed) -> str:
    """Return the key of a change."""
    if not isinstance(change, tuple):
        return change.key
    entry = change[1] or change[0]
    assert entry is not None, "an entry came, or one left"
    return entry.key


def _departed(changes: list[Change | Missed]) -> list[Entry]:
    """Return the entries that left by these changes."""
    return [change[0] for change in changes if isinstance(change, tuple) and change[0] is not None]
