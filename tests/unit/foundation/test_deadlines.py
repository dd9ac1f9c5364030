"""Keys ordered by their expiry time."""

from __future__ import annotations

import random

from memories.foundation.deadlines import SPARE, Deadlines


def test_expired_keys_are_yielded_soonest_first() -> None:
    """Finding them does not visit the other keys."""
    ends = {f"k{number}": float(number) for number in range(100)}
    deadlines = Deadlines(ends.get)
    for key in random.Random(1).sample(sorted(ends), 100):
        deadlines.add(key, ends[key])
    assert 0.0 == deadlines.soonest()
    assert [f"k{number}" for number in range(10)] == list(deadlines.due(9.5))
    for key in deadlines.due(4.0):
        del ends[key]
        deadlines.mark_stale()
    assert [f"k{number}" for number in range(5, 10)] == list(deadlines.due(9.5))
    assert ["k5"] == [next(deadlines.due(9.5))]
    assert 5.0 == deadlines.soonest()


def test_keys_that_come_and_go_leave_nothing() -> None:
    """A key with an hour to live that is deleted at once was kept for that hour."""
    ends: dict[str, float] = {}
    deadlines = Deadlines(ends.get)
    for number in range(10_000):
        ends[f"k{number}"] = 1e9
        deadlines.add(f"k{number}", 1e9)
        if number >= 50:
            del ends[f"k{number - 50}"]
            deadlines.mark_stale()
        assert len(deadlines) <= 2 * len(ends) + SPARE + 1
    assert set(ends) == set(deadlines.due(2e9))


def test_a_key_with_another_expiry_time_is_yielded_once() -> None:
    """It was stored again, or moved, and has several items in the heap."""
    ends = {"k": 5.0}
    deadlines = Deadlines(ends.get)
    for until in (3.0, 5.0, 5.0):
        deadlines.add("k", until)
    deadlines.mark_stale()
    assert [] == list(deadlines.due(4.0))
    assert {"k"} == set(deadlines.due(6.0))


def test_keys_that_another_thread_is_removing_are_yielded_too() -> None:
    """`len()` counted the key that the migrator was removing at that moment."""
    ends = {"a": 1.0, "b": 2.0}
    deadlines = Deadlines(ends.get)
    for key, until in ends.items():
        deadlines.add(key, until)
    removing = deadlines.due(5.0)
    assert "a" == next(removing)
    assert ["b", "a"] == list(deadlines.due(5.0))
    assert ["b"] == list(deadlines.due(5.0))[:1]
    removing.close()
    assert ["a", "b"] == list(deadlines.due(5.0))
