"""Orders the tiers in which a new value may be stored. It decides only and changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from memories.engine.payload import Payload
from memories.engine.tier import AnyTier, Tier, Tiers, VolatileTier
from memories.errors import InvalidOptionError, TierFullError
from memories.foundation.units import format_size
from memories.model.entry import Entry
from memories.model.record import Record, Terms, Version
from memories.model.tiers import TierName

NOTHING_LEAVES = (
    "nothing more may leave it; everything stored before is still there: delete or unpin keys, "
    "make a tier larger, or use on_full='evict' to drop the least useful values"
)


class Order(NamedTuple):
    """A version to be stored, and what it replaces."""

    payload: Payload
    version: Version
    previous: Entry | Record | None
    old_record: Record | None  # The record that `previous` is, or that it shadows.
    gone: int  # The version of the removal of `old_record`, if no record replaces it.
    volatile: bool
    durable: bool
    roams: bool  # Whether no tier was named.


def candidates(
    tiers: Tiers,
    key: str,
    wanted: TierName | None,
    payload: Payload,
    terms: Terms,
    *,
    sift: bool = False,
) -> Iterator[AnyTier]:
    """Yield the tiers to try for a new value, the best one first.

    1. A tier that was named comes first. Without one, the first is the fastest volatile tier that
       suits the value and has free room, or warm, which makes room, if none has.
    2. The slower tiers follow, for a value that is larger than a tier or for which nothing may
       leave it.
    3. With `sift`, a value for which others would have to leave RAM is admitted only if the policy
       prefers it to them. A tier that refused it comes last.

    Each tier is measured when its turn comes: nearly every store ends with the first.

    Raises:
        InvalidOptionError: the terms forbid the tier that was named.
        TierFullError: no tier that the terms admit is large enough.
    """
    if wanted is not None and not terms.admits(wanted):
        raise InvalidOptionError(f"tier={wanted.value!r} contradicts min_tier or max_tier")
    size = payload.host_size
    rank, roomy = (wanted.rank, True) if wanted else _first_rank(tiers, payload, terms)
    found, refused = False, None
    for name, tier in tiers.items():
        if name.rank < rank or not terms.admits(name) or not tier.holds(size):
            continue
        found = True
        if sift and not roomy and not name.durable and not tier.admits(key, size, hits=0):
            refused = tier
        else:
            yield tier
    if refused is not None:
        yield refused
    if not found:
        raise TierFullError(_too_large(tiers, key, size))


def _first_rank(tiers: Tiers, payload: Payload, terms: Terms) -> tuple[int, bool]:
    """Return the rank of the first tier to try, and whether it is a fast one with free room."""
    size = payload.host_size
    for name, tier in tiers.volatile.items():
        if not terms.admits(name) or tier.budget.headroom < size:
            continue
        if tier.suits(payload):
            return name.rank, True
    lower = (
        name.rank
        for name, tier in tiers.items()
        if name is not TierName.HOT and terms.admits(name) and tier.holds(size)
    )
    return next(lower, TierName.HOT.rank), False


def other_of_pool(tier: VolatileTier, version: Version) -> VolatileTier | None:
    """Return the other tier of the pool that `tier` is a part of, if a version may lie there."""
    if tier.pool is None:
        return None
    other = tier.pool.other(tier)
    return other if version.terms.admits(other.name) else None


def fits_without(tiers: Tiers, previous: Entry | Record, record: Record | None, size: int) -> bool:
    """Return whether `size` bytes fit where `previous` lies, or its `record`, once that is gone."""
    held = {} if record is None else {record.tier: record.stored}
    if isinstance(previous, Entry):
        held[previous.tier] = previous.size
    return any(tiers[name].budget.headroom + held[name] >= size for name in held)


def _too_large(tiers: Tiers, key: str, size: int) -> str:
    sizes = ", ".join(
        f"{name} {format_size(tier.budget.effective)}" for name, tier in tiers.items()
    )
    return (
        f"{key[:60]!r} needs {format_size(size)}, more than any tier it may lie in can hold "
        f"({sizes}); everything stored before is still there: make a tier larger, or split the "
        "value"
    )


def usable(tier: Tier) -> str:
    """Return the capacity of a tier in words: the usable part too, where it is smaller."""
    effective, whole = format_size(tier.budget.effective), format_size(tier.budget.configured)
    return effective if effective == whole else f"{effective} usable of {whole}"


def why_full(tier: Tier, size: int, key: str, reason: str = NOTHING_LEAVES) -> str:
    """Say that a tier cannot make room for a value, with the sizes and what can be done."""
    return (
        f"no room for {key[:60]!r} in {tier.name}: it needs {format_size(size)}, "
        f"{tier.name} holds {format_size(tier.budget.used)} of {usable(tier)}, and {reason}"
    )
