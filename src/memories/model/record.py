"""What is known of a stored version: its number, its terms, and its record in a durable tier.

A `Record` is immutable: a change of its tier, place or terms makes another one. A thread may read
by a record without a lock, and finds out afterwards whether the catalog still has the same one.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import msgspec

from memories.model.tiers import TierName

# What a decoder accepts: numbers of 62 bits, and times that a calendar knows, which no NaN is.
Natural = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
Seconds = Annotated[float, msgspec.Meta(ge=-1e11, le=1e11)]
_FASTER = {tier: tuple(reversed(list(TierName)[: tier.rank])) for tier in TierName}


class Terms(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the caller asked for a key; travels with every version and survives a reopen."""

    expires_at: float | None = None  # Seconds of the wall clock.
    metadata: dict[str, Any] = {}  # The caller's own words, as `metadata` packs them.
    pinned: bool = False
    min_tier: TierName | None = None  # The fastest tier the value may lie in.
    max_tier: TierName | None = None  # The slowest tier the value may lie in.
    evictable: bool = False  # May be dropped for room: the caller can compute it again.

    @property
    def in_ram_only(self) -> bool:
        """Return whether the value is dropped rather than written anywhere."""
        return self.evictable and self.max_tier is not None and not self.max_tier.durable

    def admits(self, tier: TierName) -> bool:
        """Return whether the value may lie in `tier`."""
        if self.min_tier is not None and tier.rank < self.min_tier.rank:
            return False
        return self.max_tier is None or tier.rank <= self.max_tier.rank

    def next_faster(self, tier: TierName) -> TierName | None:
        """Return the nearest tier above `tier` that the value may lie in, if there is one."""
        for name in _FASTER[tier]:
            if self.admits(name):
                return name
        return None


DEFAULT_TERMS = Terms()


class Record(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """What a durable tier knows of a key. `place` means something to its backend only.

    Written as an array, because a store holds one per key: new fields go to the end. The garbage
    collector does not look at it: nothing in it can refer back to it.
    """

    key: str
    version: Natural  # The store-wide sequence number of the commit that stored the value.
    tier: TierName
    size: Natural  # Bytes the value takes in RAM.
    stored: Natural = 0  # Bytes its frame takes on the medium.
    stored_at: Seconds  # Of the wall clock.
    kind: str = ""  # The name of the codec that encoded it.
    terms: Terms = DEFAULT_TERMS
    place: bytes = b""
    archived: bytes = b""  # Where glacier holds a copy of this very version, if it does.


class Version(NamedTuple):
    """What makes a stored value this one and no other, wherever it lies."""

    key: str
    number: int
    stored_at: float  # Seconds of the wall clock.
    terms: Terms = DEFAULT_TERMS


class Renaming(NamedTuple):
    """A key that is being renamed: its old name, and the latest version before that."""

    old: str
    floor: int
