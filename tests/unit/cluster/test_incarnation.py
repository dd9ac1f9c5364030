"""Incarnations as nodes store them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memories.cluster.incarnation import (
    JOINING,
    UP,
    Incarnation,
    next_incarnation,
    read_incarnation,
)


@pytest.mark.parametrize("text", [None, b"", b"up", b"up:run", b"xx:run:1", b"up:run:one"])
def test_a_damaged_incarnation_is_read_as_none(text: bytes | None) -> None:
    """A node with a damaged incarnation counts as one that restarted."""
    assert read_incarnation(text) is None
    assert Incarnation(UP, "run", 3) == read_incarnation(Incarnation(UP, "run", 3).text)


RUN_IDS = st.sampled_from(["first", "second", "third"])


@given(st.lists(st.tuples(RUN_IDS, st.integers(1, 9))))
def test_a_living_server_is_never_demoted_and_a_restarted_one_never_promoted(
    offers: list[tuple[str, int]],
) -> None:
    """In any order, from any manager, and however many lists it has missed."""
    seen = Incarnation(UP, "first", 1)
    for run_id, epoch in offers:
        after = next_incarnation(seen, run_id, epoch)
        assert run_id == after.run_id
        if run_id == seen.run_id:
            assert seen.state == after.state
            assert max(seen.epoch, epoch) == after.epoch
        else:
            assert Incarnation(JOINING, run_id, epoch) == after
        assert after == next_incarnation(after, run_id, epoch)
        seen = after


@given(st.none() | st.builds(Incarnation, st.sampled_from([UP, JOINING]), RUN_IDS, st.just(3)))
def test_only_a_node_that_was_never_a_member_is_up_to_date_at_once(
    seen: Incarnation | None,
) -> None:
    """Anything else that has lost its incarnation has lost values with it."""
    assert Incarnation(UP, "first", 4) == next_incarnation(seen, "first", 4, new=True)
    assert Incarnation(JOINING, "fourth", 4) == next_incarnation(seen, "fourth", 4)
    assert Incarnation(JOINING, "fourth", 4) == next_incarnation(None, "fourth", 4)
