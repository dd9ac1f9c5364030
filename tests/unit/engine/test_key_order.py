"""The order of the keys in RAM is that of `sorted`, whatever came and went since it was made."""

from __future__ import annotations

import random
import threading
from typing import Any, cast

import pytest

from memories.engine import key_order
from memories.engine.entry_table import EntryTable
from memories.engine.key_order import KeyOrder


def put(table: EntryTable, *keys: str) -> None:
    """Give keys an entry."""
    table.entries.update(dict.fromkeys(keys, cast(Any, None)))


@pytest.mark.parametrize("seed", range(5))
def test_the_order_is_that_of_sorted(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys come and go; snapshots that were taken before do not change."""
    monkeypatch.setattr(key_order, "CHUNK_KEYS", 4)
    chance, table = random.Random(seed), EntryTable()
    names = [f"{chance.choice('aéz𝄞')}/{number}" for number in range(120)]
    put(table, *chance.sample(names, 60 * seed // 4), "\0internal")
    order = KeyOrder(table)
    taken: list[tuple[key_order.Snapshot, list[str]]] = []
    for _ in range(400):
        some = chance.sample(names, chance.randint(1, 6))
        for key in some:
            if key in table.entries and chance.random() < 0.5:
                del table.entries[key]
            else:
                put(table, key)
        with table.lock:
            order.update(some)
        if chance.random() < 0.3:
            expected = sorted(set(table.entries) - {"\0internal"})
            taken.append((order.snapshot(), expected))
    for snapshot, expected in taken:
        assert expected == list(snapshot.keys())
        after, prefix = chance.choice(names), chance.choice("aéz𝄞")
        assert [key for key in expected if key > after] == list(snapshot.keys(after=after))
        below = [key for key in expected if key.startswith(prefix)]
        assert below == list(snapshot.keys(prefix))
        assert [key for key in below if key > after] == list(snapshot.keys(prefix, after))


def test_what_changes_while_the_order_is_made_is_in_it() -> None:
    """Stores of other threads must not wait until a million keys are sorted, nor get lost."""
    table, stop = EntryTable(), threading.Event()
    put(table, *(f"{number:06}" for number in range(50_000)))
    order = KeyOrder(table)
    stored = 0

    def store() -> None:
        nonlocal stored
        while not stop.is_set():
            with table.lock:
                put(table, f"new/{stored}")
                if order.in_use:
                    order.update([f"new/{stored}"])
            stored += 1

    thread = threading.Thread(target=store)
    thread.start()
    try:
        order.snapshot()
    finally:
        stop.set()
        thread.join()
    assert sorted(table.entries) == list(order.snapshot().keys())


def test_an_order_that_is_not_asked_for_is_given_up() -> None:
    """A program that has listed its keys once must not pay for their order for ever."""
    table = EntryTable()
    order = KeyOrder(table)
    assert not order.in_use
    order.snapshot()
    assert order.in_use
    for number in range(key_order.UNASKED + 2):
        order.update([f"{number}"])
    assert not order.in_use


def test_an_unreported_change_is_in_the_order() -> None:
    """A store by the short way is reported later, and listed at once."""
    table = EntryTable()
    order = KeyOrder(table)
    order.snapshot()
    put(table, "a")
    order.unreported = lambda: ["a"]
    assert ["a"] == list(order.snapshot().keys())


def test_an_order_that_may_be_wrong_is_made_anew() -> None:
    """After an interrupt nothing but the entries is certain."""
    table = EntryTable()
    order = KeyOrder(table)
    order.snapshot()
    put(table, "a")
    order.reset()
    assert ["a"] == list(order.snapshot().keys())
