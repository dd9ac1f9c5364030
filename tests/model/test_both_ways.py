"""The short way of a store, an overwrite and a delete, against the long way, as far as time allows.

The same histories each time; the long campaign, with new ones, is in `tests/torture`.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from tests.model.both_ways import BothWaysMachine

BothWaysMachine.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),  # The histories are short; shrinking takes minutes.
    suppress_health_check=list(HealthCheck),
)
TestBothWays = pytest.mark.timeout(600)(BothWaysMachine.TestCase)
