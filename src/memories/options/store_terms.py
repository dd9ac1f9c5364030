"""Checks the options of `store` and `set_terms`, and returns them as the terms of a key."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from memories.errors import InvalidOptionError
from memories.model.record import DEFAULT_TERMS, Terms
from memories.model.rules import Rule, parse_seconds
from memories.model.tiers import TierName
from memories.options.metadata import pack
from memories.options.settings import check_tier


def make_terms(
    *,
    ttl: float | str | None,
    metadata: Mapping[str, Any] | None,
    pin: bool,
    min_tier: str | None,
    max_tier: str | None,
    now: Callable[[], float],
    rule: Rule | None = None,
    evictable: bool = False,
) -> Terms:
    """Return the terms of these options; `rule` sets those that are left out.

    Raises:
        InvalidOptionError: an option is invalid.
    """
    if pin and evictable:
        raise InvalidOptionError("pin=True forbids what evictable=True allows: give one of them")
    if rule is not None:
        ttl = rule.ttl if ttl is None else ttl
        ttl = parse_seconds(ttl) if isinstance(ttl, str) else ttl
        pin = pin or rule.pin
        min_tier, max_tier = min_tier or rule.min_tier, max_tier or rule.max_tier
    if (
        ttl is None
        and metadata is None
        and min_tier is None
        and max_tier is None
        and not (pin or evictable)
    ):
        return DEFAULT_TERMS
    fastest = None if min_tier is None else check_tier(min_tier, "min_tier")
    slowest = None if max_tier is None else check_tier(max_tier, "max_tier")
    _check_order(fastest, slowest)
    return Terms(
        expires_at=None if ttl is None else now() + _check_ttl(ttl),
        metadata={} if metadata is None else pack(metadata),
        pinned=bool(pin),
        min_tier=fastest,
        max_tier=slowest,
        evictable=bool(evictable),
    )


def change_terms(terms: Terms, given: Mapping[str, Any], now: Callable[[], float]) -> Terms:
    """Return `terms` with those replaced that `given` names; None is as if it was not given.

    Raises:
        InvalidOptionError: an option is invalid, or contradicts another one.
    """
    changes: dict[str, Any] = {}
    if "ttl" in given:
        ttl = given["ttl"]
        changes["expires_at"] = None if ttl is None else now() + _check_ttl(ttl)
    if "metadata" in given:
        metadata = given["metadata"]
        changes["metadata"] = {} if metadata is None else pack(metadata)
    for name, field in (("pin", "pinned"), ("evictable", "evictable")):
        if name in given:
            changes[field] = bool(given[name])
    for name in ("min_tier", "max_tier"):
        if name in given:
            tier = given[name]
            changes[name] = None if tier is None else check_tier(tier, name)
    changed = msgspec.structs.replace(terms, **changes)
    _check_order(changed.min_tier, changed.max_tier)
    if changed.pinned and changed.evictable:
        raise InvalidOptionError("pin=True forbids what evictable=True allows: give one of them")
    return changed


def _check_order(fastest: TierName | None, slowest: TierName | None) -> None:
    if fastest is not None and slowest is not None and fastest.rank > slowest.rank:
        raise InvalidOptionError(f"min_tier={fastest} is slower than max_tier={slowest}")


def _check_ttl(ttl: Any) -> float:
    if isinstance(ttl, bool) or not isinstance(ttl, (int, float)):
        raise InvalidOptionError(f"ttl={ttl!r} must be a number of seconds")
    if not math.isfinite(ttl) or ttl <= 0:
        raise InvalidOptionError(f"ttl={ttl!r} must be a number of seconds above 0")
    return float(ttl)
