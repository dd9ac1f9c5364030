"""The composed model, as much of it as a minute allows; the long campaign is in `tests/torture`."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from tests.model.composed import ComposedMachine

TestComposedMachine = ComposedMachine.TestCase
TestComposedMachine.settings = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
