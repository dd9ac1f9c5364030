"""A version in a volatile tier: the payload and what each read of it marks.

The payload, the version and the tier of an `Entry` never change: a move puts another entry into the
catalog, and notices that it lost a race when the catalog no longer has the entry that it started
from. Its hits, terms, backing copy and tick are written in place.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MethodWrapperType
from typing import Any, Final

import msgspec

from memories.compiled import core, mypyc_attr
from memories.model.record import DEFAULT_TERMS, Terms
from memories.model.tiers import TierName


class Common:
    """What most entries of a tier have in common, held by each in one word."""

    __slots__ = ("arrived_hits", "backed", "terms", "tick", "tier")

    def __init__(
        self,
        tier: TierName,
        backed: TierName | None,
        tick: Callable[[], int],
        terms: Terms,
        arrived_hits: int = 0,
    ) -> None:
        self.tier = tier
        self.backed = backed  # The durable tier that holds this very version too, or None.
        self.tick = tick  # Counts the hits of the tier it lies in.
        self.terms = terms
        self.arrived_hits = arrived_hits  # Reads it had when it entered this tier.


unpack = msgspec.msgpack.Decoder().decode
_LATEST: dict[tuple[TierName, TierName | None, int], Common] = {}
_MAX_SHARED_HITS: Final = 255
_SIZES: dict[int, int] = {}
_MAX_SHARED_SIZE: Final = 8192
_HOLDS_NUMBERS: Final = core().compiled  # In place, and not as objects.


def common_of(
    tier: TierName,
    tick: Callable[[], int],
    terms: Terms = DEFAULT_TERMS,
    backed: TierName | None = None,
    arrived_hits: int = 0,
) -> Common:
    """Return what stands for these five: the latest made for another entry, if it is the same.

    Only of ticks that are a plain counter, without terms, and of few hits: all others belong to one
    entry.
    """
    if (
        terms is not DEFAULT_TERMS
        or type(tick) is not MethodWrapperType
        or arrived_hits > _MAX_SHARED_HITS
    ):
        return Common(tier, backed, tick, terms, arrived_hits)
    name = (tier, backed, arrived_hits)
    latest = _LATEST.get(name)
    if latest is None or latest.tick is not tick:
        latest = _LATEST[name] = Common(tier, backed, tick, terms, arrived_hits)
    return latest


@mypyc_attr(acyclic=True)
class Entry:
    """A version in a volatile tier: its payload, its marks, and its eviction policy's link.

    `read` is the whole cost of a hit: two marks and the payload, without a lock or a clock.
    `tick` counts the hits of a tier exactly, whatever the number of threads, and its result orders
    the accesses; `HitClock` maps it to seconds. The subclasses differ in what a reader is given.
    """

    # Nine words: compiled 96 bytes, a step of the allocator. Compiled ones are not visited by the
    # garbage collector (`acyclic`), which would take half a second for a million. So a policy must
    # clear the link of what leaves it, and the end of a manager those of all entries.
    __slots__ = (
        "common",  # Replaced, never written into: other entries hold it too.
        "hits",  # Reads answered by this entry.
        "key",
        "link",  # Belongs to the tier's eviction policy.
        "payload",
        "size",
        "stamp",  # The tick of the latest access.
        "stored_at",  # Seconds of the wall clock when the version was committed.
        "version",
    )

    def __init__(
        self,
        key: str,
        version: int,
        payload: Any,
        size: int,
        stored_at: float,
        common: Common,
        stamp: int,
    ) -> None:
        self.key = key
        self.version = version
        self.payload = payload
        if _HOLDS_NUMBERS or size > _MAX_SHARED_SIZE:
            self.size = size
        else:
            self.size = _SIZES.setdefault(size, size)  # One of its own takes another 32 bytes.
        self.stored_at = stored_at
        self.common = common
        self.stamp = stamp
        self.hits = common.arrived_hits
        self.link: Any = None

    @property
    def tier(self) -> TierName:
        """Where it lies."""
        return self.common.tier

    @property
    def backed(self) -> TierName | None:
        """The durable tier that holds this very version too, or None."""
        return self.common.backed

    @backed.setter
    def backed(self, tier: TierName | None) -> None:
        """Set where the backing copy lies, of this entry only."""
        old = self.common
        self.common = common_of(old.tier, old.tick, old.terms, tier, old.arrived_hits)

    @property
    def terms(self) -> Terms:
        """What the caller asked for."""
        return self.common.terms

    @terms.setter
    def terms(self, terms: Terms) -> None:
        """Set the terms, of this entry only."""
        old = self.common
        self.common = common_of(old.tier, old.tick, terms, old.backed, old.arrived_hits)

    @property
    def tick(self) -> Callable[[], int]:
        """What counts the hits of the tier it lies in."""
        return self.common.tick

    @tick.setter
    def tick(self, tick: Callable[[], int]) -> None:
        """Set what counts the hits, of this entry only."""
        old = self.common
        self.common = common_of(old.tier, tick, old.terms, old.backed, old.arrived_hits)

    @property
    def arrived_hits(self) -> int:
        """Reads it had when it entered the tier it lies in."""
        return self.common.arrived_hits

    def read(self) -> Any:
        """Mark a hit and return what a reader gets; KeyError if the entry has expired."""
        raise NotImplementedError

    def mark(self) -> None:
        """Mark a hit of a reader that gets something else than `read` returns."""
        self.hits += 1
        self.stamp = self.common.tick()

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} {self.key!r} v{self.version} {self.tier} "
            f"{self.size} B, {self.hits} hits>"
        )


@mypyc_attr(acyclic=True)
class SharedEntry(Entry):
    """An immutable object: every reader gets the object itself."""

    __slots__ = ()

    def read(self) -> Any:
        """Return the stored object."""
        self.hits += 1
        self.stamp = self.common.tick()
        return self.payload


@mypyc_attr(acyclic=True)
class ArrayEntry(Entry):
    """A NumPy array: every reader gets a new read-only view."""

    __slots__ = ()

    def read(self) -> Any:
        """Return a new read-only view."""
        self.hits += 1
        self.stamp = self.common.tick()
        return self.payload.view()


@mypyc_attr(acyclic=True)
class PartsEntry(Entry):
    """A mutable object, held as encoded parts: every reader gets a freshly decoded one."""

    __slots__ = ()

    def read(self) -> Any:
        """Return a newly decoded object."""
        self.hits += 1
        self.stamp = self.common.tick()
        return self.payload.open()


@mypyc_attr(acyclic=True)
class PackedEntry(Entry):
    """A list or dict of plain values, held as MessagePack: every reader gets a newly built one."""

    __slots__ = ()

    def read(self) -> Any:
        """Return a newly built object."""
        self.hits += 1
        self.stamp = self.common.tick()
        return unpack(self.payload)


class ExpiringEntry(Entry):
    """Any of the others with a time to live, so that only those that have one look at a clock."""

    __slots__ = ("has_expired", "inner")

    inner: Entry
    has_expired: Callable[[Entry], bool]

    def read(self) -> Any:
        """Return what the inner entry gives; KeyError once the time has come."""
        if self.has_expired(self):
            raise KeyError(self.key)
        value = self.inner.read()
        self.hits = self.inner.hits
        self.stamp = self.inner.stamp
        return value
