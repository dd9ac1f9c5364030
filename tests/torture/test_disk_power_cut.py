"""Simulated power cuts by the hundred (the fast share is in tests/faults)."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

_SOURCE = Path(__file__).parents[1] / "faults" / "test_disk_power_cut.py"
_spec = importlib.util.spec_from_file_location("disk_power_cut", _SOURCE)
assert _spec is not None
assert _spec.loader is not None
disk_power_cut = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(disk_power_cut)

pytestmark = [pytest.mark.torture, pytest.mark.timeout(3600)]


@pytest.mark.parametrize("durability", ["relaxed", "full"])
def test_a_thousand_power_cuts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durability: str
) -> None:
    """What is left is always a prefix that holds everything synced."""
    disk_power_cut.campaign(tmp_path, monkeypatch, durability, range(1000, 1250))
