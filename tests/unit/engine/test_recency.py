"""Arrivals are recorded together, and always before anything that is asked or recorded later."""

from __future__ import annotations

import math
import threading

import pytest

from memories.engine.recency import AT_ONCE, RecencyTracker
from memories.model.record import Record
from memories.model.tiers import TierName


def record(key: str) -> Record:
    return Record(key=key, version=1, tier=TierName.COLD, size=1, stored_at=0.0)


def test_an_arrival_counts_when_it_is_asked_for() -> None:
    """The value that was stored last would be the first to leave otherwise."""
    tracker = RecencyTracker()
    for key in "abc":
        tracker.record_arrival(key)
    assert [2.0, 1.0, 0.0, math.inf] == [tracker.coldness(key) for key in "abcd"]
    tracker.record_arrival("a")
    tracker.forget(["a"])
    assert math.inf == tracker.coldness("a")
    tracker.record_arrival("b")
    tracker.record_demotions([("c", 1)])
    assert 0.0 == tracker.coldness("c")
    assert 1.0 == tracker.coldness("b")


@pytest.mark.parametrize("count", [1, AT_ONCE - 1, AT_ONCE, 3 * AT_ONCE])
def test_it_is_the_same_as_one_by_one(count: int) -> None:
    """Whenever they are recorded."""
    together, singly = RecencyTracker(), RecencyTracker()
    for number in range(count):
        key = f"k{number % 100}"
        together.record_arrival(key)
        singly.record_demotions([(key, 0)])
        if number % 7 == 0:
            read = [record(f"k{number % 50}")]
            assert singly.record_reads(read, room=0) == together.record_reads(read, room=0)
    for number in range(100):
        assert singly.coldness(f"k{number}") == together.coldness(f"k{number}")
        assert singly.reads(f"k{number}") == together.reads(f"k{number}")


def test_no_arrival_is_lost_among_threads() -> None:
    """Each is recorded once, whichever thread does it."""
    tracker = RecencyTracker()

    def arrive(thread: int) -> None:
        for number in range(2_000):
            tracker.record_arrival(f"{thread}/{number}")

    threads = [threading.Thread(target=arrive, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    coldness = {
        tracker.coldness(f"{thread}/{number}") for thread in range(4) for number in range(2_000)
    }
    assert set(map(float, range(8_000))) == coldness
