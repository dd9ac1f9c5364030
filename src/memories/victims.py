"""Who leaves a tier next, when it must make room.

A volatile tier asks its eviction policy, a durable one sweeps its journal. Whatever must stay
(pinned, or bound to this tier by its terms) is never offered.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

from memories.backends.disk import DiskBackend
from memories.entry import Entry, Record, TierName
from memories.locks import new_lock
from memories.policies.base import Policy


class Victims(ABC):
    """Offers what may leave, one at a time."""

    @abstractmethod
    def add(self, found: Any) -> None:
        """Learn that `found` has entered the tier, or is offered no longer because it stays."""

    @abstractmethod
    def discard(self, found: Any) -> None:
        """Learn that `found` has left the tier."""

    @abstractmethod
    def offer(self) -> Any | None:
        """Take out what should leave next; None if nothing may."""

    def resize(self, capacity: int) -> None:
        """Learn that the tier holds `capacity` bytes from now on."""
        del capacity


class PolicyVictims(Victims):
    """The entries of a volatile tier, ordered by an eviction policy."""

    def __init__(self, policy: Policy, may_leave: Callable[[Entry], bool]) -> None:
        self.policy = policy
        self._may_leave = may_leave
        self._lock = new_lock()
        self._inside: set[int] = set()

    def add(self, found: Entry) -> None:
        """Hand the entry to the policy, unless it must stay."""
        if self._may_leave(found):
            with self._lock:
                self._inside.add(id(found))
                self.policy.insert(found)

    def discard(self, found: Entry) -> None:
        """Take the entry out of the policy, if it is there."""
        with self._lock:
            if id(found) in self._inside:
                self._inside.discard(id(found))
                self.policy.remove(found)

    def offer(self) -> Entry | None:
        """Take out the policy's next victim."""
        with self._lock:
            node = self.policy.evict()
            if node is None:
                return None
            self._inside.discard(id(node))
            assert isinstance(node, Entry)
            return node

    def resize(self, capacity: int) -> None:
        """Tell the policy."""
        with self._lock:
            self.policy.resize(capacity)


class JournalVictims(Victims):
    """The records of the cold tier, swept in key order by a hand that passes over the warm ones.

    A key that was read lately gets a second chance (CLOCK: Corbato, 1968), so that a key at rest
    costs no RAM: all that is remembered is the hand.
    """

    def __init__(
        self,
        journal: DiskBackend,
        tier: TierName,
        may_leave: Callable[[Record], bool],
        touched: Callable[[str], bool],
    ) -> None:
        self._journal = journal
        self._tier = tier
        self._may_leave = may_leave
        self._touched = touched
        self._hand = ""
        self._lock = new_lock()

    def add(self, found: Record) -> None:
        """Nothing to remember: the journal knows it."""

    def discard(self, found: Record) -> None:
        """Nothing to forget: the journal knows it."""

    def offer(self) -> Record | None:
        """Advance the hand to the next record that may leave, round the clock at most once."""
        with self._lock:
            spared: Record | None = None
            for record in self._sweep():
                if record.tier is not self._tier or not self._may_leave(record):
                    continue
                self._hand = record.key
                if not self._touched(record.key):
                    return record
                spared = spared or record
            return spared

    def _sweep(self) -> Iterator[Record]:
        start = self._hand
        yield from self._journal.scan(after=start)
        for record in self._journal.scan():
            if record.key > start:
                return
            yield record


class NoVictims(Victims):
    """The last tier: nothing leaves it for room."""

    def add(self, found: Any) -> None:
        """Nothing to remember."""

    def discard(self, found: Any) -> None:
        """Nothing to forget."""

    def offer(self) -> None:
        """Offer nothing."""
