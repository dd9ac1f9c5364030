"""The options of one `store` become terms; a rule gives the defaults."""

from __future__ import annotations

from typing import Any

import pytest

from memories import InvalidOptionError, Rule
from memories.model.record import DEFAULT_TERMS, Terms
from memories.model.tiers import TierName
from memories.options.store_terms import make_terms


def terms(rule: Rule | None = None, **options: Any) -> Terms:
    """Return the terms of `options` at the time 100."""
    names = {"ttl": None, "metadata": None, "pin": False, "min_tier": None, "max_tier": None}
    return make_terms(**{**names, **options}, now=lambda: 100.0, rule=rule)


def test_without_options_all_keys_share_one_object() -> None:
    """Most keys have no terms; an object for each of them would cost more than their entries."""
    assert terms() is DEFAULT_TERMS
    assert terms(Rule(prefix="a/")) is DEFAULT_TERMS


def test_options_of_the_call_take_precedence_over_the_rule() -> None:
    """A rule is a default, and a caller who names a value must get it."""
    rule = Rule(prefix="a/", ttl="1 minute", min_tier="warm")
    assert Terms(expires_at=160.0, min_tier=TierName.WARM) == terms(rule)
    assert Terms(expires_at=105.0, min_tier=TierName.COLD) == terms(rule, ttl=5, min_tier="cold")


@pytest.mark.parametrize("ttl", [0, -1, float("nan"), float("inf"), True, "an hour"])
def test_an_invalid_time_to_live_is_refused(ttl: Any) -> None:
    """A value that expires at once, or never by accident, is noticed too late."""
    with pytest.raises(InvalidOptionError, match="ttl"):
        terms(ttl=ttl)


def test_bounds_in_the_wrong_order_are_refused() -> None:
    """No tier would satisfy them."""
    with pytest.raises(InvalidOptionError, match="slower"):
        terms(min_tier="cold", max_tier="hot")
