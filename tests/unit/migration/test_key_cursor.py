"""The migrator looks at every key in RAM within a bounded number of slices."""

from __future__ import annotations

from memories.migration.key_cursor import CYCLE_LOOKS, MIN_SLICE, KeyCursor


def test_a_round_gives_every_key_once_in_a_bounded_number_of_slices() -> None:
    """An idle value must not wait for the migrator in proportion to the number of keys."""
    keys = [str(number) for number in range(MIN_SLICE * CYCLE_LOOKS * 2)]
    cursor = KeyCursor(lambda: list(keys), now=0.0)
    slices = [cursor.next_slice(float(look))[0] for look in range(CYCLE_LOOKS)]
    assert keys == [key for part in slices for key in part]
    assert 1 == cursor.rounds
    cursor.next_slice(99.0)
    assert 2 == cursor.rounds


def test_the_time_returned_is_before_the_last_look_at_any_key() -> None:
    """A read since that time cannot be excluded for any key of the slice."""
    cursor = KeyCursor(lambda: ["a"], now=0.0)
    assert (["a"], 0.0) == cursor.next_slice(10.0)
    assert (["a"], 10.0) == cursor.next_slice(20.0)
    assert (["a"], 20.0) == cursor.next_slice(30.0)


def test_a_rest_drops_the_listed_keys() -> None:
    """A cursor that keeps a list of old keys keeps memory of removed ones."""
    held = [["a"] * (MIN_SLICE + 1)]
    cursor = KeyCursor(lambda: held[0], now=0.0)
    cursor.next_slice(1.0)
    held[0] = ["new"]
    cursor.reset()
    assert (["new"], 1.0) == cursor.next_slice(2.0)
