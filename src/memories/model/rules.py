"""Rules by prefix: in which tiers keys may lie, for how long, and how many bytes they may take.

Terms belong to one key, are stored with it and come before a rule. A rule fills in what the terms
leave open, and is given to each process anew. The longest prefix that fits applies.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from memories.errors import InvalidOptionError
from memories.foundation.units import parse_size
from memories.foundation.wrong_calls import explain_construction
from memories.model.entry import Entry
from memories.model.record import Record
from memories.model.tiers import TierChoice, TierName

_UNITS = {"s": 1, "second": 1, "min": 60, "minute": 60, "h": 3600, "hour": 3600, "day": 86_400}
_SPAN = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?)\s*([a-z]*?)s?\s*")


@explain_construction
@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """The defaults for the keys with a prefix, where `store` gives no other option.

    Attributes:
        prefix: What the keys start with.
        tier: Where they are stored instead of `"auto"`.
        min_tier: The fastest tier they may lie in.
        max_tier: The slowest tier they may lie in.
        pin: Whether they are pinned where they are stored.
        ttl: How long they live: seconds, or text like `"12 hours"`.
        move_to: The tier they go down to when they are old enough.
        after: How old that is, counted from when they were stored; reads do not make them younger.
        quota: The most that they may take in hot and in warm; what exceeds it goes further down.
    """

    prefix: str
    tier: TierChoice | None = None
    min_tier: TierChoice | None = None
    max_tier: TierChoice | None = None
    pin: bool = False
    ttl: float | str | None = None
    move_to: TierChoice | None = None
    after: float | str | None = None
    quota: Mapping[Literal["hot", "warm"], float | str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse invalid values."""
        if not isinstance(self.prefix, str):
            raise InvalidOptionError(f"the prefix of a rule must be a str, not {self.prefix!r:.60}")
        for name in (self.tier, self.min_tier, self.max_tier, self.move_to):
            if name is not None:
                _tier(self.prefix, name)
        if (self.move_to is None) != (self.after is None):
            raise InvalidOptionError(f"the rule for {self.prefix!r} needs both move_to and after")
        if self.after is not None:
            parse_seconds(self.after)
        if self.ttl is not None:
            parse_seconds(self.ttl)
        for name, size in self.quota.items():
            if _tier(self.prefix, name).durable:
                raise InvalidOptionError(
                    f"the rule for {self.prefix!r} has a quota in {name}, but quotas are for hot "
                    "and warm"
                )
            parse_size(size, name=f"quota of {self.prefix!r}")


def _tier(prefix: str, name: str) -> TierName:
    try:
        return TierName(name)
    except ValueError:
        raise InvalidOptionError(f"the rule for {prefix!r} names no tier with {name!r}") from None


def parse_seconds(span: float | str) -> float:
    """Return a span of time in seconds: a number of them, or text like `"30 days"`.

    Raises:
        InvalidOptionError: it is not a span above 0.
    """
    match = _SPAN.fullmatch(span) if isinstance(span, str) else None
    unit = _UNITS.get(match[2] or "s") if match else None
    seconds = float(match[1]) * unit if match and unit else span
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not seconds > 0:
        raise InvalidOptionError(
            f"{span!r} is not a span of time: give seconds, or text like '12 hours' or '30 days'"
        )
    return float(seconds)


class Rules:
    """Finds the rule of a key, and counts the bytes of keys with quotas.

    `count` is called under the catalog's lock; everything else takes none.
    """

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        self._rules = sorted(rules, key=lambda rule: -len(rule.prefix))
        prefixes = [rule.prefix for rule in self._rules]
        double = [prefix for prefix, count in Counter(prefixes).items() if count > 1]
        if double:
            raise InvalidOptionError(f"there are two rules for {double[0]!r}; make them one")
        self._quotas = {
            (rule.prefix, TierName(name)): parse_size(size)
            for rule in self._rules
            for name, size in rule.quota.items()
        }
        self._ages = {
            rule.prefix: (TierName(rule.move_to), parse_seconds(rule.after))
            for rule in self._rules
            if rule.move_to is not None and rule.after is not None
        }
        self._held: Counter[tuple[str, TierName]] = Counter()

    def __len__(self) -> int:
        return len(self._rules)

    @property
    def aging(self) -> list[Rule]:
        """Return the rules that move old keys down."""
        return [rule for rule in self._rules if rule.move_to is not None]

    @property
    def soonest_seconds(self) -> float:
        """Return the least age at which a rule moves a key down."""
        return min(parse_seconds(rule.after) for rule in self.aging if rule.after is not None)

    def names_tier(self, tier: str) -> bool:
        """Return whether some rule says that keys are stored in `tier`."""
        return any(rule.tier == tier for rule in self._rules)

    def rule_for(self, key: str) -> Rule | None:
        """Return the rule for `key`, None if there is none."""
        for rule in self._rules:
            if key.startswith(rule.prefix):
                return rule
        return None

    def due(self, found: Entry | Record, wall: float) -> TierName | None:
        """Return the tier that `found` is old enough for, None if it is not old or has no rule."""
        rule = self.rule_for(found.key)
        age = None if rule is None else self._ages.get(rule.prefix)
        return age[0] if age is not None and wall - found.stored_at >= age[1] else None

    def count_entry(self, entry: Entry, change: int) -> None:
        """Count an entry that came into its tier (1) or left it (-1)."""
        rule = self.rule_for(entry.key) if self._quotas else None
        if rule is not None:
            self._held[rule.prefix, entry.tier] += change * entry.size

    def clear(self) -> None:
        """Count no entries."""
        self._held.clear()

    def room(self, key: str, tier: TierName) -> int | None:
        """Return the bytes that keys like `key` may still take in `tier`; None without a quota."""
        rule = self.rule_for(key) if self._quotas else None
        quota = None if rule is None else self._quotas.get((rule.prefix, tier))
        if rule is None or quota is None:
            return None
        return quota - self._held[rule.prefix, tier]


def check_rules(value: Any) -> tuple[Rule, ...]:
    """Return `rules=` of a manager as rules; a mapping, as files have it, is one rule.

    Raises:
        InvalidOptionError: something in it is not a rule.
    """
    try:
        made = (one if isinstance(one, Rule) else Rule(**one) for one in value)
        return tuple(made)
    except TypeError as error:
        raise InvalidOptionError(f"rules must be Rule(...) objects: {error}") from error
