"""A time to live holds, whatever the clock does, and an expired value blocks no caller."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.promises.conftest import Make
from tests.support.passing_time import PassTime

from memories import KeyNotFoundError, MemoryManager, Rule, TierFullError
from memories.core.wiring import assemble
from memories.engine import expiry
from memories.engine.payload import Payload
from memories.model.record import Terms
from memories.model.tiers import TierName
from memories.options.migration import MigrationSettings
from memories.testing.clock import ManualClock

DAYS = 10 * 86_400.0


def test_a_clock_that_was_ahead_for_a_moment_keeps_nothing_alive(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was ten days ahead, and ttl=1 meant ten days for as long as the process lived."""
    real = time.time
    manager = make()
    manager.store("before", 1, ttl=1000)
    monkeypatch.setattr(time, "time", lambda: real() + DAYS)
    assert manager.exists("before")
    manager.store("during", 1, ttl=0.4)
    monkeypatch.undo()
    for tier in ("hot", "warm", "cold", "glacier"):
        manager.store(tier, 1, tier, ttl=0.4)
    time.sleep(0.5)
    assert ["before"] == list(manager)
    manager.cleanup()
    assert ["before"] == list(make())


def test_what_was_stored_in_the_future_lives_no_longer_than_it_was_given(
    tmp_path: Path, pass_time: PassTime
) -> None:
    """A process that ran while the clock was wrong has left values, and their times, behind."""
    code = """
        import sys, time
        real = time.time
        time.time = lambda: real() + 864000.0
        from memories import MemoryManager
        with MemoryManager("5 MB", "5 MB", "20 MB", storage_path=sys.argv[1]) as manager:
            manager.store("short", 1, "cold", ttl=500)
            manager.store("long", 1, "cold", ttl=5000)
            manager.store("ram", 1, ttl=500)
            assert manager.exists("short")
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "store")]
    subprocess.run(command, check=True, timeout=60)
    with MemoryManager("5 MB", "5 MB", "20 MB", storage_path=tmp_path / "store") as manager:
        pass_time(600)
        assert "long" in manager
        for key in ("short", "ram"):
            assert key not in manager
            with pytest.raises(KeyNotFoundError):
                manager.retrieve(key)


def test_a_clock_set_back_for_good_keeps_nothing_alive() -> None:
    """The manager was made while the clock was ten days ahead, and lives on after it was mended."""
    clock = ManualClock()
    with MemoryManager("5 MB", "5 MB", "20 MB", migration=False) as plain:
        lifecycle = assemble(plain._services.settings, False, clock)
    hierarchy = lifecycle.services.hierarchy
    terms = Terms(expires_at=clock.wall() + 5)
    for tier in (TierName.HOT, TierName.COLD):
        hierarchy.put(tier, Payload.of(1), tier=tier, terms=terms)
    clock._wall -= DAYS
    assert [1, 1] == [hierarchy.read("hot"), hierarchy.read("cold")]
    clock.advance(5)
    for key in ("hot", "cold"):
        with pytest.raises(KeyNotFoundError):
            hierarchy.read(key)
    lifecycle.close()


def named(**items: Any) -> dict[str, Any]:
    """Return what was given by name."""
    return items


def updated(items: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `dict.update` makes of it."""
    found: dict[str, Any] = {}
    found.update(items)
    return found


def moved(items: Mapping[str, Any]) -> dict[str, Any]:
    """Return what another manager takes over."""
    with MemoryManager("5 MB", "5 MB", "20 MB", migration=False) as other:
        other.update(items)
        return dict(other)


EXPIRING = 100


@pytest.mark.parametrize("tier", ["auto", "cold"])
@pytest.mark.parametrize(
    "whole",
    [
        dict,
        lambda m: {**m},
        lambda m: named(**m),
        updated,
        moved,
        lambda m: dict(m.items()),
        lambda m: list(m.values()),
        lambda m: 5 in m.values(),
    ],
    ids=["dict", "stars", "named", "updated", "moved", "items", "values", "in values"],
)
def test_all_values_are_read_while_keys_expire(
    make: Make, tier: str, whole: Callable[[Any], Any]
) -> None:
    """64 of 100 calls of `dict(manager)` raised KeyError for a key that it was about to read."""
    manager = make(migration=MigrationSettings(interval_seconds=0.002))
    manager.store("stays", 5)
    for turn in range(4):
        for number in range(EXPIRING):
            manager.store(f"k{number}", number, tier, ttl=0.02)
        time.sleep(0.004 * turn)
        found = whole(manager)
        if isinstance(found, dict):
            assert 5 == found["stays"]
            assert all(f"k{value}" == key for key, value in found.items() if key != "stays")
    time.sleep(0.03)
    assert {"stays": 5} == dict(manager)


def test_only_one_breath_shows_what_has_expired(make: Make, pass_time: PassTime) -> None:
    """A caller that keeps a list of keys and reads one later must not get an expired value."""
    manager = make()
    manager.store("k", 1, ttl=500)
    keys = list(manager.keys())
    pass_time(600)
    assert ["k"] == keys
    with pytest.raises(KeyNotFoundError):
        manager["k"]
    manager.store("k", 1, ttl=500)
    with pytest.raises(KeyNotFoundError):
        for key in manager.keys():  # noqa: SIM118 - it is about this method.
            pass_time(600)
            manager[key]
    assert {} == dict(manager)


class Slow:
    """An object that is put together once that may go on."""

    begun, go_on = threading.Event(), threading.Event()

    def __init__(self) -> None:
        self.word = "slow"

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.begun.set()
        assert self.go_on.wait(60)
        self.__dict__ = state


@pytest.mark.parametrize("tier", ["hot", "cold", "glacier"])
def test_what_is_shown_is_not_removed_meanwhile(
    make: Make, tier: str, pass_time: PassTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The background removes what has expired, and so does a reader that finds an expired value."""
    monkeypatch.setattr(expiry, "READ_ON_SECONDS", 2000.0)
    monkeypatch.setattr(expiry, "LONGEST_SECONDS", 2000.0)
    manager = make(migration=MigrationSettings(interval_seconds=0.002))
    Slow.go_on.set()
    manager.store("a", Slow(), tier)
    manager.store("b", 7, tier, ttl=500)
    found = {}
    Slow.begun.clear()
    Slow.go_on.clear()
    reader = threading.Thread(target=lambda: found.update(manager))
    reader.start()
    assert Slow.begun.wait(60)
    pass_time(600)
    assert manager.retrieve("b", None) is None
    Slow.go_on.set()
    reader.join()
    assert ["a", "b"] == list(found)
    assert ["a"] == list(manager)


def test_the_first_item_is_popped_while_keys_expire(make: Make) -> None:
    """An iteration that lost its key in between said that it was absent."""
    manager = make(migration=MigrationSettings(interval_seconds=0.002))
    for turn in range(10):
        for number in range(50):
            manager.store(f"k{number:02}", number, ttl=0.01)
        manager.store("last", "stays")
        time.sleep(0.001 * turn)
        while (item := manager.popitem()) != ("last", "stays"):
            assert f"k{item[1]:02}" == item[0]
    with pytest.raises(KeyError):
        manager.popitem()


@pytest.mark.parametrize("tier", ["hot", "warm", "cold"])
@pytest.mark.parametrize("migration", [False, None])
def test_an_expired_value_blocks_no_caller(make: Make, tier: str, migration: Any) -> None:
    """88,000 keys that had expired took the room for which others were refused."""
    size = {"hot": "300 kB", "warm": "300 kB", "cold": "8 MB"}
    manager = make(*size.values(), migration=migration, glacier_memory_enabled=False)
    value, count = bytes(1000) + b"1", 200
    if tier == "cold":
        value, count = np.random.default_rng(1).bytes(20_000), 200
    for _ in range(3):
        for number in range(count):
            manager.store(f"k{number}", value, tier, ttl=0.3, min_tier=tier, max_tier=tier)
        time.sleep(0.35)
        assert 0 == len(manager)
        assert {} == dict(manager)
    with pytest.raises(TierFullError):
        for number in range(10 * count):
            manager.store(f"k{number}", value, tier, ttl=1000, min_tier=tier, max_tier=tier)


def test_more_keys_expire_than_are_looked_for(make: Make) -> None:
    """Stored to the disk as fast as they can be, with 10 ms to live, they were never removed."""
    manager = make(cold="20 MB", migration=None, glacier_memory_enabled=False)
    for number in range(2500):
        manager.store(f"k{number}", b"x" * 2000, "cold", ttl=0.01)
    catalog = manager._hierarchy.catalog
    deadline = time.monotonic() + 60
    while len(catalog):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert 0 == len(manager)


def test_a_quota_counts_what_lives(make: Make) -> None:
    """A quota full of what has expired refused what could have taken its place."""
    rule = Rule(prefix="q/", quota={"hot": "10 kB", "warm": "10 kB"}, max_tier="warm")
    manager = make(rules=[rule])
    for _ in range(3):
        for number in range(14):
            manager.store(f"q/{number}", b"x" * 1000, ttl=0.2)
        time.sleep(0.25)
    with pytest.raises(TierFullError):
        for number in range(20):
            manager.store(f"q/{number}", b"x" * 1000, ttl=100)


def test_a_large_value_takes_the_room_of_all_that_has_expired(
    make: Make, pass_time: PassTime
) -> None:
    """Each store removes a few of them; one that needs more room removes as many as it takes."""
    manager = make(hot="0 B", warm="100 kB", cold="20 MB", glacier_memory_enabled=False)
    for number in range(60):
        manager.store(f"k{number}", b"x" * 1000, "warm", ttl=500)
    manager.store("stays", b"x" * 1000, "warm")
    pass_time(600)
    manager.store("large", b"x" * 70_000, "warm")
    assert {"stays": "warm", "large": "warm"} == {key: manager.get_tier(key) for key in manager}


def test_a_large_value_takes_the_quota_of_all_that_has_expired(
    make: Make, pass_time: PassTime
) -> None:
    """A prefix is no different."""
    rule = Rule(prefix="q/", quota={"warm": "20 kB"}, min_tier="warm", max_tier="warm")
    manager = make(rules=[rule])
    for number in range(12):
        manager.store(f"q/{number}", b"x" * 1000, ttl=500)
    pass_time(600)
    manager.store("q/large", b"x" * 15_000)
    assert ["q/large"] == list(manager)


def test_many_listings_that_have_ended_are_forgotten(make: Make) -> None:
    """Each thread that listed keys has left one."""
    manager = make()
    expiry_of = manager._hierarchy.expiry
    ended = expiry.Listing(expiry.CallSite.of(sys._getframe()), 0.0, 1.0)
    expiry_of.listings.update({-number: ended for number in range(1, expiry.MANY_LISTINGS + 1)})
    expiry_of.record_listing(sys._getframe())
    assert [threading.get_ident()] == list(expiry_of.listings)


def test_what_has_expired_is_not_written_down(make: Make) -> None:
    """At the end of a manager it would be written to cold, or found too large for it."""
    manager = make()
    for number in range(50):
        manager.store(f"k{number}", number, ttl=0.05)
    manager.store("stays", 1)
    time.sleep(0.06)
    manager.flush()
    records = manager._hierarchy.catalog.journal.scan()
    assert ["stays"] == [record.key for record in records]


def test_the_number_of_keys_is_that_of_the_listing(make: Make, pass_time: PassTime) -> None:
    """`len` counted what no listing showed."""
    manager = make()
    for number in range(20):
        manager.store(
            f"k{number}", number, ["hot", "cold"][number % 2], ttl=500 if number % 3 else 5000
        )
    assert 20 == len(manager) == len(list(manager))
    pass_time(600)
    assert 7 == len(manager) == len(list(manager))
    for number in range(0, 20, 3):
        manager.store(f"k{number}", 0, ttl=0.01)
    time.sleep(0.02)
    assert 0 == len(manager)
