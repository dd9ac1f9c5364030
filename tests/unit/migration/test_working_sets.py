"""A working set in a manager of four tiers: scans do not displace it, and it may move."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from tests.support.played_traces import CHARGED, in_time, played

from memories.model.tiers import TierName

HOT, WARM, COLD, GLACIER = TierName
IN_RAM = 50  # Values that RAM holds.
CAPACITIES = {HOT: 15 * CHARGED, WARM: 35 * CHARGED, COLD: 3_000_000}
SCANNED = 10 * IN_RAM


def share(answered: Counter[TierName]) -> float:
    """Return the share of the reads that RAM answered."""
    return (answered[HOT] + answered[WARM]) / answered.total()


@pytest.mark.parametrize("kind", ["stores", "a burst of stores", "reads"])
def test_a_scan_costs_hardly_any_hit_of_a_working_set(tmp_path: Path, kind: str) -> None:
    """Ten times what RAM holds is stored, or read from below, in the middle of a set that fits."""
    working = [f"set{number}" for number in range(40)]
    scanned = [f"scan{number}" for number in range(SCANNED)]
    with played(tmp_path, CAPACITIES) as tiers:
        if kind == "reads":
            for key in scanned:
                tiers.store(key, COLD)
        tiers.replay(in_time(10 * working))
        quiet = share(tiers.replay(in_time(5 * working)))
        if kind == "a burst of stores":
            tiers.replay(in_time(scanned))
            mixed = 15 * working
        else:
            pairs = zip(13 * working, scanned, strict=False)
            mixed = [key for pair in pairs for key in pair]
        disturbed = share(tiers.replay(in_time(mixed), "set"))
        assert quiet == 1
        assert disturbed >= 0.95 * quiet


def test_a_working_set_that_moves_is_followed(tmp_path: Path) -> None:
    """After two lengths of the new set, however often the former one was read.

    At the first change the policy has to find out that values which were read often are not read
    any more; it has that behind it at the later ones.
    """
    with played(tmp_path, CAPACITIES) as tiers:
        for phase in range(5):
            working = [f"{phase} {number}" for number in range(40)]
            tiers.replay(in_time(2 * working))
            followed = share(tiers.replay(in_time(working)))
            assert followed >= (0.6 if phase == 1 else 0.95), f"phase {phase}"
            tiers.replay(in_time(20 * working))
