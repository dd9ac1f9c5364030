"""The short way of a store and of a removal: one function, one lock, an entry in a dict.

It serves ordinary values in RAM: without terms, rules or a backing copy, where the tier has room
and no thread works on the key. It returns False for everything else, and nothing has changed then;
the long way (`Hierarchy.put`, `Hierarchy.remove`) is the reference for what a call does.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from numpy import ndarray

from memories.codecs.plain import own_plain
from memories.engine.budget import Budget
from memories.engine.entry_table import EVERY, EntryTable
from memories.engine.front_cache import FrontCache, FrontSource
from memories.engine.hit_counter import HitCounter
from memories.engine.settlement import Settlement
from memories.foundation.fork_lock import holder_test, interrupting
from memories.foundation.host_limits import ENTRY_BYTES
from memories.model.entry import ArrayEntry, Common, Entry, PackedEntry, SharedEntry
from memories.model.record import DEFAULT_TERMS, Record, Terms
from memories.model.tiers import TierName

if TYPE_CHECKING:
    from memories.engine.catalog import Catalog
    from memories.engine.expiry import Expiry
    from memories.engine.operations import Operations
    from memories.engine.tier import Tiers, VolatileTier
    from memories.foundation.clock import Clock
    from memories.foundation.deadlines import Deadlines
    from memories.model.rules import Rules

MOMENTS: Final = 100.0  # The times of stores in a second; all stores at one have one object.
MOMENT_SECONDS: Final = 1.0 / MOMENTS
ROUNDING_SECONDS: Final = 1e-6  # More than the rounding errors of sums of two times.
# Names of this module, which compiled code finds without a look-up.
ARRAY: Final = ndarray
DEFAULT: Final[Terms] = DEFAULT_TERMS
WITH_ENTRY: Final[int] = ENTRY_BYTES
WITH_BYTES: Final[int] = ENTRY_BYTES + sys.getsizeof(b"")
TIMED_EVERY: Final = 16  # One store in so many is timed; a look at the clock takes a tenth of one.
MOST_BYTES: Final = 65_536  # A larger value is not worth it: copying it takes longer.


class Slot:
    """A tier in host RAM, as the short way sees it."""

    def __init__(self, tier: VolatileTier) -> None:
        self.budget: Budget = tier.budget
        self.counter: HitCounter = tier.counter
        self.common: Common = tier.common  # Of all entries that are stored here.
        self.until_timed = 0  # Stores until one is timed.
        self.seconds: Any = 0.0  # How long the latest store took that was timed; one object.


class Residency:
    """Stores ordinary values in the entries of hot and warm, and removes them."""

    def __init__(
        self,
        catalog: Catalog,
        settlement: Settlement,
        operations: Operations,
        expiry: Expiry,
        clock: Clock,
        tiers: Tiers,
    ) -> None:
        self.open = False  # Whether the manager may change the store.
        self.enabled = True  # Whether the options of the manager allow the short way.
        self._table: EntryTable = catalog.table
        self._is_locked_here: Callable[[], bool] = holder_test(catalog.lock)
        self._front: FrontCache = catalog.front
        self._at_front: dict[str, FrontSource] = catalog.front.sources
        self._requested: dict[str, None] = catalog.front.requested
        self._deadlines: Deadlines = catalog.deadlines
        self._listings: dict[int, Any] = expiry.listings
        self._record: Callable[[str], Record | None] = catalog.journal.lookup
        self._rules: Rules | None = catalog.rules or None
        self._settlement = settlement
        self._operations = operations
        self._monotonic: Callable[[], float] = clock.monotonic
        self._wall: Callable[[], float] = clock.wall
        self._moment = 0.0
        self._moment_from, self._moment_until = 0.0, float("-inf")  # Monotonic.
        hosts = [tier for tier in tiers.volatile.values() if tier.device is None]
        slots = [Slot(tier) for tier in hosts]
        self._slots: dict[TierName, Slot] = {slot.common.tier: slot for slot in slots}
        self._choices: dict[str, list[Slot]] = {"auto": slots}
        for slot in slots:
            self._choices[str(slot.common.tier)] = [slot]

    def moment(self, now: float) -> float:
        """Return the wall time of a store at `now` of the monotonic clock, rounded down.

        It follows from the clock alone, and not from earlier stores.
        """
        if not self._moment_from <= now < self._moment_until:
            wall = self._wall()
            moment = float(int(wall * MOMENTS)) / MOMENTS
            self._moment, self._moment_from = moment, now
            self._moment_until = now + (moment + MOMENT_SECONDS - wall) - ROUNDING_SECONDS
        return self._moment

    def store(self, key: str, value: Any, tier: Any) -> bool:
        """Store a plain value; return whether it is stored."""
        if not isinstance(tier, str) or tier not in self._choices:
            return False
        if type(value) is ARRAY and value.nbytes > MOST_BYTES:
            return False  # `own_plain` would copy it.
        if type(value) is bytes:  # As `own_plain` does, without a call.
            return self.put(key, SharedEntry, value, len(value) + WITH_BYTES, tier)
        owned = own_plain(value)
        if owned is None:
            return False
        return self.put(key, owned[0], owned[1], owned[2] + WITH_ENTRY, tier)

    def put(self, key: str, kind: type[Entry], content: Any, size: int, tier: str) -> bool:
        """Store what an entry of `kind` holds, in `size` bytes; return whether it is stored.

        Raises:
            BusyError: a signal handler or a destructor calls this in the middle of another change.
        """
        choices = self._choices.get(tier)
        if choices is None or size > MOST_BYTES or not self.open or not self.enabled:
            return False
        if self._rules is not None and self._rules.rule_for(key) is not None:
            return False
        if self._is_locked_here():
            raise interrupting()
        started = self._monotonic()
        moment = self.moment(started)
        if self._listings:
            return False
        heap = self._deadlines.heap
        if heap and heap[0][0] < moment + MOMENT_SECONDS:
            return False  # A key is about to expire.
        table = self._table
        entries = table.entries
        releases = table.releases
        if key not in entries and self._record(key) is not None:
            return False
        try:
            try:
                table.take_turn()
                previous = entries.get(key)
                if key in table.held or not self.open:
                    return False
                if previous is None:
                    # A call on this key may have ended since the look-up, and left a record.
                    if table.releases != releases:
                        return False
                elif previous.common is not choices[0].common and not self._is_ordinary(previous):
                    return False
                slot = None
                for choice in choices:
                    if choice.budget.charge(size, started):
                        slot = choice
                        break
                    if choice.budget.would_fit(size):
                        break  # The long way settles first, then looks again.
                if slot is None:
                    return False
                stamp = slot.counter.stamp()
                version = table.version + 1
                common = slot.common
                if kind is SharedEntry:  # Compiled, a known class is made without a call.
                    entry: Entry = SharedEntry(key, version, content, size, moment, common, stamp)
                elif kind is PackedEntry:
                    entry = PackedEntry(key, version, content, size, moment, common, stamp)
                elif kind is ArrayEntry:
                    entry = ArrayEntry(key, version, content, size, moment, common, stamp)
                else:
                    entry = kind(key, version, content, size, moment, common, stamp)
                if previous is not None:
                    self._leave(previous)
                changes = table.changes
                if slot.until_timed:
                    slot.until_timed -= 1
                else:
                    slot.until_timed = TIMED_EVERY - 1
                    slot.seconds = self._monotonic() - started
                # One line: an interrupt leaves all of it or nothing.
                entries[key], table.version = entry, version
                changes.append((previous, entry, stamp, started, slot.seconds))
            finally:
                table.end_turn()
        except BaseException:
            table.end_turn()  # An interrupt may have come before it ended.
            self._operations.repair(key)
            raise
        self._announce()
        return True

    def has(self, key: Any) -> bool:
        """Return whether an entry that never expires has the key; it may lie elsewhere if not."""
        try:
            entry = self._table.entries.get(key)
        except TypeError:
            return False  # An unhashable object, which `check_key` refuses.
        return entry is not None and entry.common.terms.expires_at is None

    def remove(self, key: str) -> bool:
        """Remove an entry; return whether that was possible.

        Raises:
            BusyError: a signal handler or a destructor calls this in the middle of another change.
        """
        table = self._table
        entries = table.entries
        if key not in entries or not self.enabled:
            return False
        if self._rules is not None and self._rules.rule_for(key) is not None:
            return False
        if self._is_locked_here():
            raise interrupting()
        started = self._monotonic()
        try:
            try:
                table.take_turn()
                entry = entries.get(key)
                if entry is None or key in table.held or not self.open:
                    return False
                if not self._is_ordinary(entry):
                    return False
                self._leave(entry)
                changes = table.changes
                del entries[key]
                changes.append((entry, None, 0, started, 0.0))
            finally:
                table.end_turn()
        except BaseException:
            table.end_turn()  # An interrupt may have come before it ended.
            self._operations.repair(key)
            raise
        self._announce()
        return True

    def _leave(self, entry: Entry) -> None:
        """Prepare that an entry leaves; the caller has the lock."""
        # The front goes first: after one reader saw the new value, no other may see the old one.
        key = entry.key
        if key in self._at_front or key in self._requested:
            self._front.drop(key, self._table.entries)
        self._slots[entry.common.tier].budget.left += entry.size

    def _announce(self) -> None:
        waiting = len(self._table.changes)
        if waiting == 1 or not waiting % EVERY:
            self._settlement.announce(waiting)

    def _is_ordinary(self, entry: Entry) -> bool:
        """Return whether an entry is in host RAM, without terms and without a backing copy."""
        common = entry.common
        return common.terms is DEFAULT and common.backed is None and common.tier in self._slots
