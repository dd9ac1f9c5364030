"""The four tiers in the simulator, and a manager beside it."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.played_traces import CHARGED, in_time, played

from memories.migration.simulated_tiers import SimulatedTiers, TieredResult, lru_chain
from memories.model.tiers import TierName
from memories.simulate.traces import Trace

HOT, WARM, COLD, GLACIER = TierName
KEYS = 500
CAPACITIES = {HOT: 15 * CHARGED, WARM: 35 * CHARGED, COLD: 100 * CHARGED}
# The disk is charged for records and working room as well: as many values fit as in `CAPACITIES`.
DISK = {**CAPACITIES, COLD: 3_000_000}


def skewed(count: int, seed: int) -> Trace:
    """Return accesses that prefer some keys, ten in each millisecond."""
    chance = random.Random(seed)
    keys = [f"{min(KEYS, int(chance.paretovariate(0.6)))}" for _ in range(count)]
    return Trace([number / 1e4 for number in range(count)], keys, [CHARGED] * count)


def test_a_manager_answers_from_where_the_simulator_says(tmp_path: Path) -> None:
    """An idea about placement that is tried in the simulator must hold in the manager."""
    trace = skewed(2500, seed=3)
    simulated = SimulatedTiers(CAPACITIES).replay(trace)
    with played(tmp_path, DISK) as tiers:
        answered = tiers.replay(trace)
    assert simulated.reads.total() == answered.total()
    in_ram = (answered[HOT] + answered[WARM]) / answered.total()
    assert abs(simulated.share(HOT, WARM) - in_ram) < 0.01
    assert abs(simulated.share(GLACIER) - answered[GLACIER] / answered.total()) < 0.01


@pytest.mark.parametrize("policy", ["auto", "lru", "gdsf", "s3fifo", "mq"])
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_no_tier_ever_holds_too_much(policy: str, data: st.DataObject) -> None:
    """Every key is in one place, whatever comes."""
    count = data.draw(st.integers(1, 200))
    pick = st.tuples(st.integers(0, 30), st.floats(0, 2))
    steps = data.draw(st.lists(pick, min_size=count, max_size=count))
    sizes = data.draw(st.lists(st.integers(1, 2_000_000), min_size=31, max_size=31))
    at, times = 0.0, list[float]()
    for _, pause in steps:
        at += pause
        times.append(at)
    trace = Trace(times, [f"{key}" for key, _ in steps], [sizes[key] for key, _ in steps])
    tiers = SimulatedTiers({HOT: 2_000_000, WARM: 3_000_000, COLD: 4_000_000}, policy)
    result = tiers.replay(trace)
    tiers.check()
    assert count == result.reads.total() + trace.distinct_keys


def test_a_scan_costs_hardly_any_hit_of_a_working_set() -> None:
    """Ten times as much as RAM holds is stored between the reads of what fits into it."""
    scan = iter(range(10**6))
    keys = [f"set{number}" for number in range(40)] * 20
    quiet = SimulatedTiers(CAPACITIES).replay(in_time(keys))
    mixed = list[str]()
    for key in keys:
        mixed += [key, f"scan{next(scan)}"] if len(mixed) > 200 else [key]
    assert next(scan) > 500, "ten times what fits"
    disturbed = SimulatedTiers(CAPACITIES).replay(in_time(mixed))
    lost = quiet.share(HOT, WARM) - disturbed.share(HOT, WARM)
    assert lost <= 0.05


def test_a_working_set_that_moves_is_followed() -> None:
    """After two lengths of the new set, however often the former one was read.

    At the first change the policy has to find out that values which were read often are not read
    any more; it has that behind it at the later ones.
    """
    tiers = SimulatedTiers(CAPACITIES)
    for phase in range(5):
        keys = [f"{phase} {number}" for number in range(40)]
        tiers.replay(in_time(2 * keys))
        before = Counter(tiers.result.reads)
        tiers.replay(in_time(keys))
        new = tiers.result.reads - before
        assert (0.6 if phase == 1 else 0.95) <= (new[HOT] + new[WARM]) / 40, f"phase {phase}"
        tiers.replay(in_time(20 * keys))


def test_the_chain_of_lrus_is_what_its_name_says() -> None:
    """It is the measure of everything else."""
    trace = Trace([0.0] * 7, list("abcabca"), [1] * 7)
    chain = lru_chain(trace, {HOT: 1, WARM: 1, COLD: 1})
    assert {COLD: 4} == chain.reads
    assert 1e-3 == pytest.approx(chain.seconds_per_read)
    assert {GLACIER: 4} == lru_chain(trace, {HOT: 1, WARM: 1, COLD: 0}).reads


def test_nothing_read_twice_has_no_share() -> None:
    """A trace of first accesses is a valid one."""
    assert 0 == TieredResult().share(*TierName) == TieredResult().seconds_per_read
