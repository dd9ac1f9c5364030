from __future__ import annotations

import pytest

from memories import policies
from memories.policies.base import Policy
from memories.testing.policies import PolicyTests


@pytest.mark.parametrize("name", policies.names(), scope="class")
class TestEveryPolicy(PolicyTests):
    """Every policy that has a name keeps the promises of the contract."""

    @pytest.fixture(autouse=True)
    def _choose(self, name):
        self.name = name

    def make_policy(self, capacity: int) -> Policy:
        return policies.make(self.name, capacity)
