"""Counts the bytes held in a tier against what the tier may hold.

An entry may leave while a reader still holds a view of its buffer. Its bytes stay charged until
that view dies, so that a budget counts the memory that is really taken.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Iterable
from threading import RLock
from typing import Any

from memories.compiled import mypyc_attr
from memories.foundation.fork_lock import new_lock
from memories.foundation.units import MAX_BYTES

HOST_SHARE = 0.9  # Of the memory that is free; the rest is for the caller and the kernel.
ROOM_SECONDS = 0.25  # How long a measurement of free memory stays valid.
RENEWAL_SECONDS = 0.1  # After which it is renewed, so that no store finds one that is too old.


class _Held:
    """Bytes that views hold: released when the last of their owners has died."""

    __slots__ = ("left", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.left = 0  # Owners alive.


@mypyc_attr(native_class=False)  # The compiler cannot extend a weak reference.
class _Reference(weakref.ref[Any]):
    """A weak reference to an owner, with the bytes that the owner holds."""

    __slots__ = ("held",)

    held: _Held


class Budget:
    """Counts the bytes of one tier, or of a medium that several tiers share.

    `configured` is what the caller allowed. `room` measures what the medium could still give; the
    effective capacity follows from it. `parent` is the budget of a medium shared with other tiers.
    `lock` guards it; budgets of one manager share one, so that a store takes one lock only.
    """

    def __init__(
        self,
        configured: int,
        *,
        room: Callable[[], int] | None = None,
        monotonic: Callable[[], float],
        parent: Budget | None = None,
        lock: RLock | None = None,
    ) -> None:
        self.configured = configured
        self.parent = parent
        self._children: list[Budget] = []
        if parent is not None:
            parent._children.append(self)
        self._room = room
        self._monotonic = monotonic
        self._limit = MAX_BYTES
        self._measured_at = float("-inf")
        self._used = 0
        self._lock = lock or new_lock()
        # Bytes of entries that have left the catalog; those that were released since.
        self.left = self.left_released = 0
        # Filled by weakref callbacks: these run at any line, so they must not take a lock.
        self._freed: deque[int] = deque()
        # Owners that have died. `deque.append` is the callback: an interrupt that arrives in a
        # callback written in Python would be lost.
        self._died: deque[_Reference] = deque()
        self._holds: dict[_Held, list[_Reference]] = {}

    @property
    def used(self) -> int:
        """Return the bytes held now."""
        with self._lock:
            return self._apply_releases()

    @property
    def leaving(self) -> int:
        """Return the bytes of entries that have left, which are released when that is settled."""
        return self.left - self.left_released

    @property
    def effective(self) -> int:
        """Return the bytes that may be held: those configured, or fewer if the medium is tight."""
        with self._lock:
            used = self._apply_releases()
            own = min(self.configured, self._measured())
        return own if self.parent is None else min(own, used + self.parent.headroom)

    @property
    def headroom(self) -> int:
        """Return the bytes that could be charged now."""
        with self._lock:
            used = self._apply_releases()
            own = max(0, min(self.configured, self._measured()) - used)
        return own if self.parent is None else min(own, self.parent.headroom)

    def reserve(self, size: int) -> bool:
        """Charge `size` bytes if they fit, and return whether they did."""
        with self._lock:
            return self.charge(size, self._monotonic())

    def charge(self, size: int, now: float) -> bool:
        """Charge `size` bytes if they fit, and return whether they did; the caller has the lock.

        `now` is the time of the monotonic clock.
        """
        limit = self.configured
        if self._room is not None:
            if now - self._measured_at >= ROOM_SECONDS:
                self._measure(now)
            limit = min(limit, self._limit)
        # What was given back is subtracted when it matters.
        if self._used + size > limit and self._apply_releases() + size > limit:
            return False
        if self.parent is not None and not self.parent.charge(size, now):
            return False
        self._used += size
        return True

    def would_fit(self, size: int) -> bool:
        """Return whether `size` bytes would fit if what has left were released; with the lock."""
        leaving = self.leaving
        return leaving > 0 and self._apply_releases() - leaving + size <= self.configured

    def release(self, size: int) -> None:
        """Give back `size` bytes that were charged."""
        self._freed.append(size)
        if self.parent is not None:
            self.parent.release(size)

    def release_with(self, owners: Iterable[Any], size: int) -> None:
        """Give back `size` bytes once every one of `owners` has died.

        The caller must drop its own references afterwards. Owners that cannot be referred to
        weakly (`bytes`) are not waited for.
        """
        held, references = _Held(size), list[_Reference]()
        for owner in owners:
            try:
                references.append(_Reference(owner, self._died.append))
            except TypeError:
                continue
            references[-1].held = held
        held.left = len(references)
        if references:
            self._holds[held] = references
        else:
            self.release(size)

    def recount(self, entries: int) -> None:
        """Recount, with `entries` bytes in entries; no other call may be under way."""
        with self._lock:
            self._apply_releases()
            for held, references in list(self._holds.items()):
                if not any(reference() is not None for reference in references):
                    self._holds.pop(held, None)
            self._freed.clear()
            self.left_released = self.left
            self._used = entries + sum(held.size for held in self._holds)

    def apply_releases(self) -> None:
        """Subtract what was given back; an interrupt in the middle requires a recount."""
        with self._lock:
            self._apply_releases()
        if self.parent is not None:
            self.parent.apply_releases()

    def _apply_releases(self) -> int:
        for child in self._children:
            child.release_dead()
        self._count_died()
        while self._freed:
            # Two statements: a signal handler that changes `_used` must not run within the sum.
            freed = self._freed.popleft()
            self._used -= freed
        return self._used

    def release_dead(self) -> None:
        """Release the bytes of owners that have died."""
        if self._died:
            with self._lock:
                self._count_died()

    def _count_died(self) -> None:
        while self._died:
            held = self._died.popleft().held
            held.left -= 1
            if not held.left and self._holds.pop(held, None) is not None:
                self.release(held.size)

    def _measured(self) -> int:
        if self._room is None:
            return MAX_BYTES
        now = self._monotonic()
        if now - self._measured_at >= ROOM_SECONDS:
            self._measure(now)
        return self._limit

    def renew(self, now: float) -> None:
        """Measure what the medium can give, unless that was done a short time ago.

        A thread that does this often enough spares it the stores: to measure takes many calls of
        the system, and after each one a thread may wait for the interpreter. It holds no lock
        meanwhile, so the limit follows from the fewest bytes that were held.
        """
        if self.parent is not None:
            self.parent.renew(now)
        if self._room is None or now - self._measured_at < RENEWAL_SECONDS:
            return
        before, room = self.used, self._room()
        with self._lock:
            self._limit = min(before, self._apply_releases()) + int(HOST_SHARE * room)
            self._measured_at = now

    def _measure(self, now: float) -> None:
        assert self._room is not None, "only budgets that measure call this"
        self._limit = self._apply_releases() + int(HOST_SHARE * self._room())
        self._measured_at = now


class BackendBudget:
    """The budget of a durable tier, whose backend knows how many bytes it holds.

    `measure` returns the bytes held and those that may still come. `reserve` charges bytes that are
    about to be written; `release` removes the charge once the backend counts them. `taken` returns
    what really lies on the medium, where that may be less than the bytes held. `give_back` gives
    back bytes that nothing needs any more.
    """

    def __init__(
        self,
        configured: int,
        *,
        measure: Callable[[], tuple[int, int]],
        taken: Callable[[], int] | None = None,
        give_back: Callable[[], None] = lambda: None,
    ) -> None:
        self.configured = configured
        self._measure, self._taken, self._give_back = measure, taken, give_back
        self._coming = 0
        self._lock = new_lock()

    @property
    def used(self) -> int:
        """Return the bytes held, those being written included.

        A value that was just written counts twice until its charge is removed, and so does one that
        upkeep moves. Charges are granted only if all fits, so the sum is cut to what may be held,
        except for what lies on the medium.
        """
        held = self._measure()[0]
        used = held + self._coming
        if used <= self.configured:
            return used
        taken = held if self._taken is None else self._taken()
        return max(self.configured, min(used, taken))

    @property
    def effective(self) -> int:
        """Return the bytes that may be held: the configured ones, or fewer on a full medium."""
        held, room = self._measure()
        return min(self.configured, held + room)

    @property
    def headroom(self) -> int:
        """Return the bytes that could be reserved now."""
        held, room = self._measure()
        return max(0, min(self.configured - held, room) - self._coming)

    def reserve(self, size: int, most: int = 0) -> bool:
        """Charge `size` bytes if they fit, and return whether they did.

        With `most`, they fit only where so many could be charged.
        """
        if self._charge(size, most):
            return True
        # What nothing needs is charged until a thread, perhaps a late one, gives it back: nothing
        # may be evicted for that.
        self._give_back()
        return self._charge(size, most)

    def _charge(self, size: int, most: int) -> bool:
        with self._lock:
            held, room = self._measure()
            if max(size, most) > min(self.configured - held, room) - self._coming:
                return False
            self._coming += size
            return True

    def announce(self, size: int) -> int:
        """Charge `size` bytes before it is known whether they fit; return all that is coming.

        The backend then decides, with what it holds at that moment. Two threads that announce at
        once may both be refused, but never both exceed the budget.
        """
        with self._lock:
            self._coming += size
            return self._coming

    def release(self, size: int) -> None:
        """Remove the charge of `size` bytes: they were written, or never will be."""
        with self._lock:
            self._coming -= size

    def recount(self) -> None:
        """Recount; nothing may be being written."""
        with self._lock:
            self._coming = 0
