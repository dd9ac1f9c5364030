"""The short and the long way of a change for as long as it takes, with new histories each time."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from tests.model.both_ways import BothWaysMachine


@pytest.mark.torture
def test_both_ways_of_a_change() -> None:
    """A thousand histories of fifty steps."""
    run_state_machine_as_test(
        BothWaysMachine,
        settings=settings(
            max_examples=1000,
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
