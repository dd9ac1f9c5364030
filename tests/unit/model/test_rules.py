"""Rules by prefix: what was asked for holds, whatever moves."""

from __future__ import annotations

import inspect
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memories import InvalidOptionError, MemoryManager, MigrationSettings, Rule
from memories.core.wiring import assemble
from memories.model.rules import Rules, parse_seconds
from memories.model.tiers import Cause, TierName
from memories.options.settings import make_settings
from memories.testing.clock import ManualClock

SOON = MigrationSettings(interval_seconds=0.01)


def test_archive_goes_to_glacier_after_thirty_days(tmp_path: Path) -> None:
    """The most common example: what is a month old need not lie on the disk."""
    clock = ManualClock()
    parameters = inspect.signature(MemoryManager).parameters.values()
    options = {one.name: one.default for one in parameters if one.kind is one.KEYWORD_ONLY}
    del options["migration"]
    rule = Rule(prefix="archive/", move_to="glacier", after="30 days")
    given_options = options | {"storage_path": tmp_path, "rules": [rule]}
    lifecycle = assemble(
        make_settings("1 MB", "1 MB", "10 MB", True, **given_options),
        MigrationSettings(interval_seconds=3600),
        clock,
    )
    manager = MemoryManager.__new__(MemoryManager)
    manager._attach(lifecycle)
    migrator = lifecycle.services.migrator
    assert migrator is not None
    try:
        manager.store("archive/old", np.arange(10), "cold")
        manager.store("other/old", np.arange(10), "cold")
        clock.advance(29 * 86_400)
        manager.store("archive/new", np.arange(10), "warm")
        migrator.tick()
        assert "cold" == manager.get_tier("archive/old")
        clock.advance(86_400)
        migrator.tick()
        migrator.tick()
        assert "glacier" == manager.get_tier("archive/old")
        assert "warm" == manager.get_tier("archive/new")
        assert "cold" == manager.get_tier("other/old")
        for _ in range(3):
            assert 9 == manager["archive/old"][9]
            migrator.tick()
        assert "glacier" == manager.get_tier("archive/old"), "a read must not bring it to and fro"
        moves = manager.stats().moves
        assert 1 == moves[TierName.COLD, TierName.GLACIER, Cause.RULE]
    finally:
        lifecycle.close()


def test_models_never_leave_hot() -> None:
    """Neither when it is idle nor when room is needed."""
    rule = Rule(prefix="model/", tier="hot", max_tier="hot")
    with MemoryManager("100 kB", "1 MB", "10 MB", rules=[rule], migration=SOON) as manager:
        manager.store("model/a", np.zeros(5000))
        for number in range(50):
            manager.store(f"other/{number}", np.zeros(2000), "hot")
        assert "hot" == manager.get_tier("model/a")
        with pytest.raises(InvalidOptionError):
            manager.migrate("model/a", "warm")


def test_a_quota_bounds_what_a_prefix_takes() -> None:
    """One part of a program must not push out all others."""
    rule = Rule(prefix="log/", quota={"hot": "20 kB", "warm": "30 kB"})
    with MemoryManager(
        "200 kB", "200 kB", "10 MB", rules=[rule], migration=False, prefetch="off"
    ) as manager:
        for number in range(40):
            manager.store(f"log/{number}", bytes(2000))
            manager.store(f"other/{number}", bytes(2000))
        tiers = [manager.get_tier(f"log/{number}") for number in range(40)]
        held = {
            name: sum(
                e.size
                for e in manager._hierarchy.catalog.entries.values()
                if e.tier == name and "log" in e.key
            )
            for name in ("hot", "warm")
        }
        assert 15_000 < held["hot"] <= 20_000
        assert 15_000 < held["warm"] <= 30_000
        assert "cold" in tiers
        assert {"hot"} == {manager.get_tier(f"other/{number}") for number in range(40)}
        manager.store("log/0", bytes(1000))
        assert tiers[0] == manager.get_tier("log/0"), "an overwrite may keep its own room"
        manager.clear()
        assert 20_000 == manager._hierarchy.catalog.rules.room("log/0", TierName.HOT)


def test_the_longest_prefix_wins_and_what_was_said_comes_first() -> None:
    """A rule is a default: `store` may say otherwise."""
    rules = [Rule(prefix="a/", ttl=1000), Rule(prefix="a/b/", tier="cold", ttl="2 hours")]
    with MemoryManager(
        "1 MB", "1 MB", "10 MB", rules=rules, migration=False, prefetch="off"
    ) as manager:
        manager["a/x"] = 1
        manager["a/b/x"] = 1
        manager.store("a/b/y", 1, "warm", ttl=5)
        found = {key: manager._hierarchy.lookup(key) for key in manager}
        assert "cold" == found["a/b/x"].tier
        assert "warm" == found["a/b/y"].tier
        ends = {key: one.terms.expires_at or 0 for key, one in found.items()}
        now = time.time()
        assert ends["a/b/y"] < now + 6 < ends["a/x"] < now + 1001 < ends["a/b/x"]


@pytest.mark.parametrize(
    "options",
    [
        {"tier": "lukewarm"},
        {"move_to": "cold"},
        {"after": "3 days"},
        {"move_to": "cold", "after": "soon"},
        {"ttl": -1},
        {"quota": {"cold": "1 GB"}},
        {"quota": {"hot": "much"}},
    ],
)
def test_a_rule_that_means_nothing_is_refused(options: dict[str, object]) -> None:
    """It would be broken in silence for a month, and then be found."""
    with pytest.raises(InvalidOptionError):
        Rule(prefix="p/", **options)  # type: ignore[arg-type]


def test_rules_for_a_disabled_glacier_are_refused() -> None:
    """The first of them would be asked for in thirty days."""
    with pytest.raises(InvalidOptionError, match="glacier"):
        MemoryManager(rules=[Rule(prefix="a", move_to="glacier", after=1)])
    with pytest.raises(InvalidOptionError, match="two rules"):
        MemoryManager(rules=[Rule(prefix="a"), Rule(prefix="a")])
    with pytest.raises(InvalidOptionError):
        MemoryManager(rules=["a"])  # type: ignore[list-item]


def test_a_file_may_say_rules_as_tables() -> None:
    """That is what TOML has."""
    table = {"prefix": "model/", "tier": "hot", "max_tier": "hot"}
    with MemoryManager(rules=[table]) as manager:  # type: ignore[list-item]
        manager["model/a"] = b"x"
        assert "hot" == manager.get_tier("model/a")


def test_spans_of_time_are_read_as_people_write_them() -> None:
    """Thirty days are 2,592,000 seconds, a number that no user wants to write."""
    spans = {"30 days": 2_592_000, "1 day": 86_400, "12h": 43_200, "5 min": 300, "7": 7, 2.5: 2.5}
    assert spans == {span: parse_seconds(span) for span in spans}


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from("ab"), st.integers(0, 9), st.sampled_from(["put", "get", "up", "rm"])
        ),
        max_size=60,
    )
)
def test_rules_hold_whatever_happens(steps: list[tuple[str, int, str]]) -> None:
    """Quotas, bounds and the count of what they rest on, after every history."""
    rules = [
        Rule(prefix="a", quota={"hot": "4 kB", "warm": "4 kB"}),
        Rule(prefix="b", min_tier="warm"),
    ]
    with MemoryManager(
        "10 kB", "10 kB", "1 MB", rules=rules, migration=False, prefetch="off"
    ) as manager:
        for prefix, number, act in steps:
            key = f"{prefix}{number}"
            if act == "put":
                manager.store(key, bytes(700))
            elif key not in manager:
                continue
            elif act == "get":
                manager[key]
            elif act == "up" and prefix == "a":
                manager._hierarchy.try_move(
                    manager._hierarchy.lookup(key), TierName.COLD, Cause.IDLE
                )
            elif act == "rm":
                del manager[key]
            entries = list(manager._hierarchy.catalog.entries.values())
            for name in (TierName.HOT, TierName.WARM):
                held = sum(e.size for e in entries if e.key < "b" and e.tier is name)
                assert held <= 4000
                assert 4000 - held == manager._hierarchy.catalog.rules.room("a", name)
            assert all(e.tier is TierName.WARM for e in entries if e.key >= "b")


def test_no_rules_cost_nothing() -> None:
    """Most managers have none."""
    rules = Rules()
    assert rules.rule_for("key") is None
    assert rules.room("key", TierName.HOT) is None
    assert [] == rules.aging
