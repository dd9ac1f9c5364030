"""Simulated power cuts by the hundred (the fast share is in tests/faults)."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.faults import test_disk_power_cut as disk_power_cut

pytestmark = [pytest.mark.torture, pytest.mark.timeout(3600)]


@pytest.mark.parametrize("durability", ["relaxed", "full"])
def test_a_thousand_power_cuts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durability: str
) -> None:
    """What is left is always a prefix that holds everything synced."""
    disk_power_cut.campaign(tmp_path, monkeypatch, durability, range(1000, 1250))
