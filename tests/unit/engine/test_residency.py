"""The short way of stores and removals in RAM: what takes it, and what is settled when."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memories import BusyError, InvalidOptionError, MemoryManager, Rule
from memories.engine.residency import MOST_BYTES
from memories.engine.settlement import MANY_CHANGES, MOST_LEFT_BYTES
from memories.model.events import Event, Moved, Removed, Stored, ValueEvent
from memories.model.tiers import TierName


@pytest.fixture
def manager() -> Iterator[MemoryManager]:
    # Without a directory of its own: nothing asks for its figures each second, and settles.
    with MemoryManager("1 MB", "1 MB", "10 MB", migration=False, prefetch="off") as made:
        yield made


def waiting(manager: MemoryManager) -> int:
    """Return how many changes the short way made that are not settled."""
    return len(manager._hierarchy.settlement.changes)


@pytest.mark.parametrize(
    "value", [b"bytes", "text", 7, None, [1, "two"], {"a": [1.5]}, np.arange(10), {1, 2}]
)
def test_ordinary_values_take_the_short_way(manager: MemoryManager, value: Any) -> None:
    """Stored, replaced and removed; every change waits to be settled."""
    manager.store("key", value)
    manager.store("key", value, "warm")
    assert 2 == waiting(manager)
    assert "warm" == manager.get_tier("key")
    np.testing.assert_equal(manager["key"], value)
    manager.delete("key")
    assert 3 == waiting(manager)
    assert not manager.exists("key")


@pytest.mark.parametrize(
    "options",
    [
        {"ttl": 100}, {"metadata": {"a": 1}}, {"pin": True}, {"min_tier": "warm"},
        {"max_tier": "warm"}, {"if_version": 0}, {"tier": "cold"}, {"volatile": True},
    ],
)  # fmt: skip
def test_a_store_with_options_takes_the_long_way(
    manager: MemoryManager, options: dict[str, Any]
) -> None:
    """What left before it is settled, so that its bytes are free and events keep their order."""
    manager.store("other", b"value")
    manager.delete("other")
    manager.store("key", b"value", **options)
    assert 0 == waiting(manager)


@pytest.mark.parametrize("tier", ["attic", "", None, 3, []])
def test_an_unknown_tier_is_named(manager: MemoryManager, tier: Any) -> None:
    """Whatever its type: the short way looks it up in a table."""
    with pytest.raises(
        InvalidOptionError, match=f"tier={tier!r} must be one of".replace("[", r"\[")
    ):
        manager.store("key", b"value", tier)


def test_large_values_and_keys_with_rules_take_the_long_way(tmp_path: Path) -> None:
    """A quota is counted at each store; copying a large value takes longer than the rest."""
    rules = [Rule(prefix="a/", quota={"hot": "10 KB"})]
    with MemoryManager("1 MB", "1 MB", "10 MB", storage_path=tmp_path, rules=rules) as manager:
        manager.store("large", bytes(MOST_BYTES))
        manager.store("a/key", b"value")
        manager.delete("a/key")
        assert 0 == waiting(manager)


def test_a_durable_key_takes_the_long_way(manager: MemoryManager) -> None:
    """Its old version must be made absent durably, or replaced durably."""
    manager.store("key", b"old", "cold")
    manager.store("key", b"new")
    assert 0 == waiting(manager)
    assert TierName.COLD is manager._hierarchy.catalog.entries["key"].backed
    manager.store("key", b"newer")
    manager.delete("key")
    assert 0 == waiting(manager)
    assert manager._hierarchy.catalog.record("key") is None


def test_write_through_takes_the_long_way(tmp_path: Path) -> None:
    """Every store writes a durable copy before it returns."""
    with MemoryManager(
        "1 MB", "1 MB", "1 MB", storage_path=tmp_path, write_through=True
    ) as manager:
        manager.store("key", b"value")
        assert manager._hierarchy.catalog.record("key") is not None


def test_a_store_waits_for_a_thread_that_works_on_the_key(manager: MemoryManager) -> None:
    """`modify` reads and writes in one step, whatever other threads store."""
    manager.store("key", 1)
    inside, go_on = threading.Event(), threading.Event()

    def double(value: int) -> int:
        inside.set()
        assert go_on.wait(60)
        return 2 * value

    modifying = threading.Thread(target=manager.modify, args=("key", double))
    storing = threading.Thread(target=manager.store, args=("key", 10))
    modifying.start()
    assert inside.wait(60)
    storing.start()
    storing.join(0.05)
    assert storing.is_alive()
    go_on.set()
    modifying.join()
    storing.join()
    assert 10 == manager["key"]


def test_a_miss_does_not_settle_the_store_before_it(manager: MemoryManager) -> None:
    """Looking a key up before it is stored is how a cache is used."""
    seen: list[str] = []
    manager._hierarchy.events.subscribe(lambda event: seen.append(type(event).__name__))
    for at in range(3):
        assert manager.retrieve(f"k{at}", None) is None
        manager.store(f"k{at}", at)
    assert ["Missed"] == seen
    assert (3, 3) == (manager.stats().misses, manager.stats().stored)
    assert ["Missed", "Stored"] * 3 == seen


def store_one(manager: MemoryManager) -> None:
    manager.store("b", 1, "cold")


def store_some(manager: MemoryManager) -> None:
    manager.store_many({"b": 1}, "cold")


def events_of(
    manager: MemoryManager,
    change: Callable[[], object],
    store_b: Callable[[MemoryManager], None] = store_one,
) -> list[str]:
    """Settle, store `b`, return all events; an observer of the first calls `change` in a thread.

    It waits for a moment, and the event is noted when it has ended, or must wait itself.
    """
    seen: list[str] = []
    threads: list[threading.Thread] = []

    def note(event: Event) -> None:
        if not threads and isinstance(event, Stored | Removed):
            threads.append(threading.Thread(target=change))
            threads[0].start()
            threads[0].join(0.2)
        seen.append(type(event).__name__)

    manager._hierarchy.events.subscribe(note)
    manager.stats()
    store_b(manager)
    threads[0].join()
    return seen


def test_a_change_waits_until_the_one_before_it_is_reported(manager: MemoryManager) -> None:
    """A thread that settles shows the policy what came before it calls the observers."""
    manager.store("a", 1)
    seen = events_of(manager, lambda: manager.store("a", 2, "cold"))
    assert ["Stored", "Written", "Stored"] == seen[:3]


def test_a_change_waits_until_a_removal_is_reported(manager: MemoryManager) -> None:
    """The same, where no entry is left."""
    manager.store("a", 1)
    manager.stats()
    manager.delete("a")
    seen = events_of(manager, lambda: manager.store("a", 2, "cold"))
    assert ["Removed", "Written", "Stored"] == seen[:3]


@pytest.mark.parametrize("store_b", [store_one, store_some])
def test_a_long_store_is_reported_before_the_next_change(
    manager: MemoryManager, store_b: Callable[[MemoryManager], None]
) -> None:
    """The key stays locked until the observers were called, of one value and of many."""
    seen = events_of(manager, lambda: manager.delete("b"), store_b)
    assert ["Written", "Stored", "Removed"] == seen


def test_a_long_call_settles_what_came_before_it(manager: MemoryManager, tmp_path: Path) -> None:
    """Beside a thread that stores without a pause, each batch of a restore would settle thousands.

    The restore would take ten times as long, most of it behind the thread that settles anyway.
    """
    manager.store_many({f"k{at}": at for at in range(2500)}, "hot")
    manager.create_snapshot(tmp_path / "snapshot")
    found: list[int] = []  # How many changes wait after each batch: those made since the first.

    def store_other(events: Sequence[ValueEvent]) -> None:
        if isinstance(events[0], Moved) and len(events) > 1:
            found.append(waiting(manager))
            other = threading.Thread(target=manager.store, args=(f"other{len(found)}", 1))
            other.start()
            other.join()

    manager._hierarchy.events.subscribe(lambda event: None, store_other)
    manager.restore_snapshot(tmp_path / "snapshot", mode="merge", wait=True)
    assert len(found) > 2
    assert any(found)  # A store may take the long way, which settles, while room is measured.
    manager.migrate("k0", "warm")
    assert 0 == waiting(manager)


def test_a_long_call_settles_what_its_function_stores(manager: MemoryManager) -> None:
    """The function of `modify` may store other keys; those come before the modified one."""
    manager.store("key", 1)

    def change(value: int) -> int:
        manager.store("other", value)
        return value + 1

    assert 2 == manager.modify("key", change)
    names = [key for key in ("key", "other") if manager.exists(key)]
    assert ["key", "other"] == names
    assert 0 == waiting(manager)


def test_questions_are_answered_after_settling(manager: MemoryManager) -> None:
    """Nothing that can be asked shows that the counters get changes later."""
    for at in range(10):
        manager.store(f"k{at}", bytes(100))
    manager.store("k0", bytes(50))
    manager.delete("k1")
    stats = manager.stats()
    assert 0 == waiting(manager)
    assert (11, 9) == (stats.stored, stats.tiers[TierName.HOT].keys)
    assert 1 == sum(stats.removed.values())
    assert 11 == stats.latencies["store", TierName.HOT].samples
    held = sum(entry.size for entry in manager._hierarchy.catalog.entries.values())
    assert held == stats.tiers[TierName.HOT].used_bytes


def test_bytes_that_left_stay_charged_until_they_are_settled(manager: MemoryManager) -> None:
    """The changes refer to the values, so their memory is still taken."""
    manager.store("key", bytes(1000))
    budget = manager._hierarchy.tiers[TierName.HOT].budget
    before = budget.used
    manager.delete("key")
    assert before == budget.used
    manager._hierarchy.settlement.settle()
    assert 0 == budget.used


def test_a_full_tier_is_filled_again_once_its_changes_are_settled(tmp_path: Path) -> None:
    """A store that finds room only in what has left settles first, and stays in its tier."""
    with MemoryManager(
        "10 KB", "1 MB", "1 MB", storage_path=tmp_path, migration=False, prefetch="off"
    ) as manager:
        for at in range(100):
            manager.store("key", bytes(4000 + at))
            assert "hot" == manager.get_tier("key")


def test_many_changes_are_settled_by_the_store_that_makes_them(manager: MemoryManager) -> None:
    """Without a migrator the queue stays short."""
    for at in range(2 * MANY_CHANGES):
        manager.store("key", at)
    assert waiting(manager) <= MANY_CHANGES


def test_large_values_that_left_are_settled_sooner(manager: MemoryManager) -> None:
    """Their memory is given back with them."""
    with MemoryManager("1 GB", "1 B", "1 MB", migration=False, prefetch="off") as large:
        for _ in range(2 * MOST_LEFT_BYTES // 50_000):
            large.store("key", bytes(50_000))
        assert large._hierarchy.tiers[TierName.HOT].budget.used < 2 * MOST_LEFT_BYTES


def test_a_hit_before_the_settlement_counts_for_the_policy() -> None:
    """LRU evicts the value that was read least recently, whether or not it knew of it then."""
    with MemoryManager(
        "2500 B", "1 B", "1 MB", migration=False, prefetch="off", eviction_policy="lru"
    ) as manager:
        for key in ("a", "b", "c"):
            manager.store(key, bytes(500), "hot")
        assert 3 == waiting(manager)
        manager["a"]
        manager.store("d", bytes(500), "hot")
        assert {"a": "hot", "b": "cold"} == {key: manager.get_tier(key) for key in ("a", "b")}


def test_a_handler_in_the_middle_of_a_short_store_gets_an_error(manager: MemoryManager) -> None:
    """It would change the entries between a check and the change that rests on it."""
    found: list[BaseException] = []
    lock = manager._hierarchy.catalog.lock

    def handle(*_: object) -> None:
        try:
            manager.store("other", b"value")
        except BusyError as error:
            found.append(error)

    former = signal.signal(signal.SIGUSR1, handle)
    try:
        with lock:
            signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, former)
    assert 1 == len(found)
    assert not manager.exists("other")


def test_a_closed_manager_stores_nothing_by_the_short_way(tmp_path: Path) -> None:
    """The values of a closed manager would be nowhere."""
    manager = MemoryManager("1 MB", "1 MB", "1 MB", storage_path=tmp_path)
    manager.store("key", b"value")
    residency = manager._hierarchy.residency
    manager.cleanup()
    assert not residency.store("key", b"value", "auto")
    assert not residency.remove("key")
