"""Entries: small, and independent of each other although they share what they have in common."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from typing import Any

import pytest

from memories.compiled import core
from memories.model.entry import SharedEntry, common_of
from memories.model.record import Terms
from memories.model.tiers import TierName


def entry(key: str, tick: Callable[[], int], **changes: Any) -> SharedEntry:
    """Return an entry as a medium makes it."""
    about: dict[str, Any] = {"version": 1, "payload": b"x", "size": 300, "stored_at": 0.0}
    common = common_of(TierName.WARM, tick)
    return SharedEntry(key=key, common=common, stamp=1, **(about | changes))


def test_an_entry_takes_112_bytes_and_128_with_its_numbers() -> None:
    """There may be a million. A compiled one holds its three large numbers, others refer to."""
    most = 128 if core().compiled else 112
    assert sys.getsizeof(entry("a", itertools.count().__next__)) <= most


@pytest.mark.parametrize(
    ("name", "value"),
    [("backed", TierName.COLD), ("terms", Terms(pinned=True)), ("tick", lambda: 7)],
)
def test_what_changes_for_one_entry_stays_for_the_others(name: str, value: Any) -> None:
    """They hold it in one object: writing into that would pin or back the whole tier."""
    tick = itertools.count().__next__
    one, two = entry("one", tick), entry("two", tick)
    before = getattr(two, name)
    setattr(one, name, value)
    assert value == getattr(one, name)
    assert before is getattr(two, name)
    assert before is getattr(entry("three", tick), name)


def test_entries_of_two_managers_keep_their_own_counters() -> None:
    """A hit of one must not count for the other."""
    ticks = itertools.count(1).__next__, itertools.count(1000).__next__
    entries = [entry(str(index), ticks[index % 2]) for index in range(6)]
    assert [ticks[index % 2] for index in range(6)] == [one.tick for one in entries]
    entries[1].read()
    assert 1000 == entries[1].stamp
