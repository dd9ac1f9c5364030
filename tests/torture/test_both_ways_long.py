"""The short and the long way of a change for as long as it takes, with new histories each time."""

from __future__ import annotations

from secrets import randbits

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from tests.model.both_ways import BothWaysMachine, history, play

HISTORIES = 2000
LENGTH = 40


@pytest.mark.torture
@pytest.mark.timeout(3600)
def test_both_ways_of_a_change() -> None:
    """Many histories that follow from numbers, so that one that fails can be played again."""
    first = randbits(40)
    for number in range(first, first + HISTORIES):
        try:
            play(*history(number, LENGTH))
        except BaseException as error:
            error.add_note(f"history({number}, {LENGTH})")
            raise


@pytest.mark.torture
@pytest.mark.timeout(3600)
def test_both_ways_of_a_change_reduced() -> None:
    """Histories of hypothesis, which reduces one that fails to the steps that matter."""
    run_state_machine_as_test(
        BothWaysMachine,
        settings=settings(
            max_examples=300,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
