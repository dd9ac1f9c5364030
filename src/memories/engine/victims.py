"""Chooses which value leaves a tier next, when the tier must make room.

A volatile tier asks its eviction policy; `cold_victims` serves the cold tier. A value that must
stay (pinned, or bound to this tier by its terms) is never offered.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from memories.engine.hit_clock import SampledTick
from memories.engine.newcomers import Arrived, Newcomers
from memories.foundation.fork_lock import new_lock
from memories.model.entry import Entry
from memories.model.record import Record
from memories.policies.base import Policy, PolicyNode
from memories.policies.hashing import digests

MOST_NEWCOMERS = 65_536  # Showing so many to a policy takes about a quarter of a second.
SHOWN_FOR_EACH = 2  # Newcomers that are shown for each that comes, where they may not wait longer.
T = TypeVar("T")
# Is called with entries that came, the digests of their keys, and those that the policy samples.
Sample = Callable[[Sequence[Entry], Sequence[int], Sequence[Any]], None]
F = TypeVar("F", Entry, Record)
MAX_NOTES = 1024  # Hits that wait for the policy; it reads them about ten times a second.


class Arrival:
    """A value that is not in the tier yet, as a policy sees it."""

    __slots__ = ("hits", "key", "link", "size", "stamp")

    def __init__(self, key: str, size: int, *, hits: int, stamp: int) -> None:
        self.key = key
        self.size = size
        self.hits = hits
        self.stamp = stamp
        self.link: Any = None


def _nothing(keys: Sequence[str] = ()) -> None:
    """Do nothing."""
    del keys


class Victims(ABC, Generic[F]):
    """Offers values that may leave, one at a time."""

    # Called before each decision: it reports what came and left by the short way, and gives back
    # the bytes of what has left.
    settle: Callable[[], None] = staticmethod(_nothing)
    # Called before each change: it reports what came and left before the present call.
    settle_earlier: Callable[[], None] = staticmethod(_nothing)

    @abstractmethod
    def add(self, found: F, *, accessed: bool = True) -> None:
        """Add a value of the tier; `accessed` is false if it was demoted here, or stays."""

    @abstractmethod
    def discard(self, found: F) -> None:
        """Remove a value that has left the tier."""

    @abstractmethod
    def offer(self) -> F | None:
        """Remove the value that should leave next, and return it; None if none may."""

    @abstractmethod
    def offer_next(self, found: F) -> None:
        """Add a value that was offered, so that it is the next one that is offered."""

    def admits(self, arrival: Arrival) -> bool:
        """Return whether a new value is worth more than those that would have to leave."""
        del arrival
        return True

    def record_read(self, key: str, size: int) -> None:
        """Record a read that a slower tier answered."""
        del key, size

    def record_arrival(self, key: str) -> None:
        """Record a value that was stored here."""
        self.record_arrivals([(key, 0)])

    def record_arrivals(self, arrivals: Sequence[tuple[str, int]]) -> None:
        """Record many values that were stored here, or demoted after so many reads above."""
        del arrivals

    def forget(self, keys: Sequence[str]) -> None:
        """Forget keys that are in no tier any more."""
        del keys

    def drain_notes(self) -> None:
        """Apply recorded reads, in the background."""

    def rebuild(self) -> None:
        """Rebuild the order from the entries, after an interrupt ended a change of it."""


class _NotingTick(SampledTick):
    """Records a hit, then counts it."""

    __slots__ = ("_victims",)

    def __init__(
        self, key: str, size: int, inner: Callable[[], int], victims: PolicyVictims
    ) -> None:
        super().__init__(key, size, inner)
        self._victims = victims

    def __call__(self) -> int:
        self._victims.record_read(self.key, self.size)
        return self.inner()

    def wanted(self) -> bool:
        return self._victims.samples(self.key)


class PolicyVictims(Victims[Entry]):
    """The entries of a volatile tier, ordered by an eviction policy.

    A policy that learns from hits (`auto`) gets those of a sample of the keys: the entries of these
    have a tick that also appends a note. The notes are read in the background and before each
    eviction; when too many wait, the oldest are lost.
    """

    def __init__(
        self,
        make: Callable[[], Policy],
        may_leave: Callable[[Entry], bool],
        entries: Callable[[], list[Entry]],
        find: Callable[[str], Entry | None],
    ) -> None:
        """`make` returns an empty policy, `entries` those of the tier, `find` the one of a key."""
        self.departed: Callable[[], list[Entry]] = list  # Entries of which `apply` does not know.
        self.on_forget: Callable[[Sequence[str]], None] = _nothing
        self._policy = make()
        self._make = make
        self._newcomers = Newcomers(find)
        self.is_patient = bool(vars(type(self._policy)).get("patient"))
        self.is_roomy: Callable[[], bool] = bool  # Whether nothing has to leave soon.
        self._entries = entries
        self._may_leave = may_leave
        self._notes: deque[tuple[str, int]] = deque(maxlen=MAX_NOTES)
        self._next: tuple[Entry, int] | None = None  # To be offered next, with its hits by then.
        self._torn = False  # Whether an exception ended a change of the policy.
        self._lock = new_lock()

    def tick(self, key: str, size: int, tick: Callable[[], int]) -> Callable[[], int]:
        """Return what an entry of `key` calls at each hit instead of `tick`."""
        return self.noting(key, size, tick) if self.samples(key) else tick

    def noting(self, key: str, size: int, tick: Callable[[], int]) -> Callable[[], int]:
        """Return the same for a key that is in the sample."""
        return _NotingTick(key, size, tick, self)

    @property
    def policy(self) -> Policy:
        """The policy, which knows every entry of the tier that may leave."""

        def whole(policy: Policy) -> Policy:
            if self._next is not None:
                policy.insert_without_access(self._take_next()[0])
            return policy

        return self._changing(whole, whole=True)

    def samples(self, key: str) -> bool:
        """Return whether the policy samples the hits of `key`."""
        with self._lock:
            return self._policy.samples(key)

    def admits(self, arrival: Arrival) -> bool:
        """Ask the policy, once it has every recorded hit."""
        self.settle()
        return self._changing(lambda policy: policy.admit(arrival), after_notes=True, whole=True)

    def record_read(self, key: str, size: int) -> None:
        """Record a read that a slower tier answered."""
        self._notes.append((key, size))

    def forget(self, keys: Sequence[str]) -> None:
        """Make the policy forget the keys, after the hits recorded of them."""

        def forget_each(policy: Policy) -> None:
            for key in keys:
                policy.forget(key)

        self.settle_earlier()
        self._changing(forget_each, after_notes=True)
        self.on_forget(keys)

    def drain_notes(self) -> None:
        """Apply recorded reads to the policy, and release the lock now and then."""
        more = self._changing(lambda policy: True, after_notes=True)
        with self._lock:
            self._newcomers.tidy()
        while more:
            more = self._changing(lambda policy: policy.process_observed())

    def add(self, found: Entry, *, accessed: bool = True) -> None:
        """Insert the entry into the policy, unless it must stay."""
        self.add_batch([found], accessed=accessed)

    def add_batch(self, found: Sequence[Entry], *, accessed: bool = True) -> None:
        """Insert those of the entries into the policy that may leave."""
        self.settle_earlier()
        free = [entry for entry in found if self._may_leave(entry)]

        def insert_each(policy: Policy) -> None:
            for entry in linkable:
                if entry.link is not None:
                    continue  # Another thread changed its terms while it was offered, and added it.
                if accessed:
                    policy.insert(entry)
                else:
                    policy.insert_without_access(entry)

        with self._lock:
            linkable = [entry for entry in free if not self._unlinked(entry)]
            if linkable:
                self._change(insert_each, after_notes=accessed, whole=True)

    def discard(self, found: Entry) -> None:
        """Remove the entry from the policy, if it is there."""
        self.discard_batch([found])

    def set_aside(self, found: Entry) -> None:
        """Remove an entry that stays in the tier, once the policy has been shown that it came."""
        self.discard_batch([found], whole=True)

    def discard_batch(self, found: Sequence[Entry], *, whole: bool = False) -> None:
        """Remove those of the entries that the policy has; `whole`: show it the newcomers first."""
        if any(entry.link is None for entry in found):
            self.settle()  # The policy may not know yet that it has come.
        else:
            self.settle_earlier()

        def remove_each(policy: Policy) -> None:
            self._remove_all(policy, linked)

        with self._lock:
            linked = [
                entry for entry in found if not self._unlinked(entry) and entry.link is not None
            ]
            if linked:
                self._change(remove_each, after_notes=False, whole=whole)

    def discard_newcomer(self, found: Entry) -> None:
        """Remove an entry that the policy was not shown, before the one that replaces it is added.

        Its arrival took the ghost of the key, which the new one must not find.
        """
        with self._lock:
            if not self._unlinked(found) and found.link is self._newcomers:
                self._change(lambda policy: self._remove_all(policy, [found]), after_notes=False)

    def offer(self) -> Entry | None:
        """Remove the policy's next victim and return it."""
        self.settle()
        node = self._changing(self._offer, after_notes=True, whole=True)
        assert node is None or isinstance(node, Entry)
        return node

    def _offer(self, policy: Policy) -> PolicyNode | None:
        if self._next is not None:
            entry, hits = self._take_next()
            if entry.hits == hits:
                return entry
            policy.insert_without_access(entry)  # It was read since: others may have to leave.
        return policy.evict()

    def offer_next(self, found: Entry) -> None:
        """Keep an entry out of the policy, which might offer another one, until the next offer."""

        def keep(policy: Policy) -> None:
            if found.link is not None:
                return  # Another thread changed its terms while it was offered, and added it.
            if self._next is not None:
                policy.insert_without_access(self._take_next()[0])
            found.link = self
            self._next = found, found.hits

        with self._lock:
            if not self._unlinked(found) and self._may_leave(found):
                self._change(keep, after_notes=False)

    def _take_next(self) -> tuple[Entry, int]:
        """Forget the entry that was to be offered next, and return it."""
        assert self._next is not None
        taken, self._next = self._next, None
        taken[0].link = None
        return taken

    def apply(self, came: Sequence[Arrived], left: Sequence[Entry], sample: Sample) -> None:
        """Show the policy what came, and then what left.

        `sample` is called with the entries that came. The policy is shown them when it needs them.
        All of this may be called again with the same entries, after an interrupt.
        """
        roomy = self.is_roomy()  # It takes a lock, of which holders may wait for this one.
        self._changing(
            lambda policy: self._apply(policy, came, left, sample, roomy), after_notes=True
        )

    def _apply(
        self,
        policy: Policy,
        came: Sequence[Arrived],
        left: Sequence[Entry],
        sample: Sample,
        roomy: bool,
    ) -> None:
        newcomers = self._newcomers
        added = newcomers.add_batch(came, self._may_leave)
        if added:
            bits = digests([entry.key for entry in added])
            sampled = policy.expect(added, bits, len(policy) + newcomers.count)
            sample(added, bits, sampled)
        if not self.is_patient:
            newcomers.clear()
            stamps = dict(came)
            for entry in added:
                entry.link = None
                _insert_as_of(policy.insert_expected, entry, stamps[entry])
        self._remove_all(policy, left)
        if came and (newcomers.count > MOST_NEWCOMERS or not roomy):
            self._show(policy, SHOWN_FOR_EACH * len(came))

    def _show(self, policy: Policy, most: int) -> None:
        """Show the policy so many of the newcomers, the oldest first."""
        for entry, stamp in self._newcomers.take(most):
            _insert_as_of(policy.insert_expected, entry, stamp)

    def _remove_all(self, policy: Policy, left: Sequence[Entry]) -> None:
        """Remove entries, each wherever it is."""
        if policy.remembers():
            for entry in left:
                if entry.link is self._newcomers:
                    policy.skip(entry.key)
        for entry in self._newcomers.discard_batch(left):
            if entry.link is self:
                self._take_next()
            else:
                policy.remove(entry)

    def resize(self, capacity: int) -> None:
        """Have the policy decide for a tier of so many bytes."""
        self._changing(lambda policy: policy.resize(capacity))

    def rebuild(self) -> None:
        """Insert all entries of the tier into a new policy, the latest read last."""
        with self._lock:
            self._rebuild()

    def _changing(
        self, step: Callable[[Policy], T], *, after_notes: bool = False, whole: bool = False
    ) -> T:
        """Return `step(policy)`; a policy in which an exception ended a change is replaced.

        With `whole`, the policy is shown the newcomers first.
        """
        with self._lock:
            return self._change(step, after_notes, whole)

    def _change(self, step: Callable[[Policy], T], after_notes: bool, whole: bool = False) -> T:
        if self._torn:
            self._rebuild()
        try:
            if after_notes:
                self._read_notes()
            if whole and self._newcomers.count:
                self._show(self._policy, self._newcomers.count)
            return step(self._policy)
        except BaseException:
            self._torn = True
            raise

    def _unlinked(self, found: Entry) -> bool:
        """Return whether the policy is torn; then `found` loses the link into it.

        The policy is replaced when it is next asked for a decision. If the catalog no longer
        names the entry by then, `_rebuild` does not find it, and its old link must be gone.
        """
        if self._torn:
            found.link = None
        return self._torn

    def _rebuild(self) -> None:
        policy, entries = self._make(), self._entries()
        for entry in self.departed():
            entry.link = None
        for entry in sorted(entries, key=lambda entry: entry.stamp):
            entry.link = None
            if self._may_leave(entry):
                policy.insert_without_access(entry)
        self._newcomers.clear()
        self._next = None
        self._policy, self._torn = policy, False

    def _read_notes(self) -> None:
        notes = self._notes
        read = [notes.popleft() for _ in range(len(notes))]
        if read:
            self._policy.observe(read)


def _insert_as_of(insert: Callable[[Entry], None], entry: Entry, stamp: int) -> None:
    """Insert an entry as it was when it came, at `stamp`: it may have been hit since."""
    hits, latest = entry.hits, entry.stamp
    if latest == stamp:
        insert(entry)
        return
    entry.hits, entry.stamp = entry.arrived_hits, stamp
    insert(entry)
    # Another thread may have hit it meanwhile: its hit counts too, and its stamp is later.
    entry.hits += hits - entry.arrived_hits
    if entry.stamp == stamp:
        entry.stamp = latest


class NoVictims(Victims[Record]):
    """The victims of the last tier: nothing leaves it for room."""

    def add(self, found: F, *, accessed: bool = True) -> None:
        """Do nothing."""

    def discard(self, found: F) -> None:
        """Do nothing."""

    def offer(self) -> None:
        """Return None."""

    def offer_next(self, found: F) -> None:
        """Do nothing."""
