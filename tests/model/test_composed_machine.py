"""The composed model, as much of it as a minute allows: the same histories each time.

The long campaign, with new ones each time, is in `tests/torture`.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from tests.model.composed import ComposedMachine

ComposedMachine.TestCase.settings = settings(
    max_examples=22,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestComposedMachine = pytest.mark.timeout(600)(ComposedMachine.TestCase)
