"""A tier that is still being filled has no idle values yet."""

from __future__ import annotations

import pytest

from memories.migration.filling import Filling


@pytest.mark.parametrize("seconds", [0.01, 1.0, 20.0])
def test_the_next_value_is_awaited_in_the_rhythm_of_those_before(seconds: float) -> None:
    """However long making one takes; sizes may vary by five."""
    filling = Filling(100.0)
    for at in range(1, 4):
        filling.record_arrival(100.0 + at * seconds)
        assert filling.until(hits=0) >= 100.0 + at * seconds + 5 * seconds
    assert filling.until(hits=0) <= 100.0 + 3 * seconds + 6 * seconds


def test_a_read_ends_it(seconds: float = 4.0) -> None:
    """The values are in use from then on; hits before the last arrival do not count."""
    filling = Filling(0.0)
    filling.record_arrival(seconds)
    assert 6 * seconds == filling.until(hits=10)
    assert 6 * seconds == filling.until(hits=10)
    assert seconds == filling.until(hits=11)
    filling.record_arrival(2 * seconds)
    assert 7 * seconds == filling.until(hits=12)


def test_a_long_rest_is_not_part_of_the_rhythm() -> None:
    """The first value of the evening is not followed by one in the morning."""
    filling = Filling(0.0)
    filling.record_arrival(1.0)
    filling.record_arrival(10_000.0)
    assert 10_000.0 == filling.until(hits=0)
    filling.record_arrival(9_000.0)  # Reported late.
    assert 10_000.0 == filling.until(hits=0)
