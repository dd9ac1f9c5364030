"""`simulate`, `advise` and `explain`: the policies and their reasons, from the terminal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from memories import MemoryManager, policies
from memories.migration.simulated_tiers import SimulatedTiers
from memories.model.tiers import TierName
from memories.simulate.simulator import replay
from memories.simulate.traces import Access, read_trace, trace_of, write_trace

from .conftest import AWKWARD, Run


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a loop a little larger than a tenth of its keys can hold."""
    path = tmp_path_factory.mktemp("traces") / "loop.npz"
    write_trace(path, [Access(float(at), f"tile/{at % 300}", 1000) for at in range(3000)])
    return path


def test_simulate_prints_what_the_simulator_counts(run: Run, trace: Path) -> None:
    """The command is a face of the simulator, not a second one."""
    result = run("simulate", trace, "-p", "lru", "-p", "s3fifo", "-c", "100kB", "--json")
    assert 0 == result.exit_code, result.output
    rows = {row["policy"]: row for row in json.loads(result.output)["rows"]}
    for name in ("lru", "s3fifo"):
        expected = replay(read_trace(trace), policies.make(name, 100_000))
        assert expected.miss_ratio == rows[name]["miss_ratio"]
        assert expected.re_access_miss_ratio == rows[name]["re_access_miss_ratio"]


def test_simulate_compares_all_policies_by_itself(run: Run, trace: Path) -> None:
    """A user who does not know the policies wants to compare all of them."""
    result = run("simulate", trace, "-c", "10%")
    assert 0 == result.exit_code, result.output
    assert all(name in result.output for name in policies.names())


def test_simulate_fetches_ahead_when_asked(run: Run, trace: Path) -> None:
    """A loop is what a successor predictor is best at."""
    plain = run("simulate", trace, "-p", "lru", "-c", "10%", "--json")
    ahead = run("simulate", trace, "-p", "lru", "-c", "10%", "--prefetch", "--json")
    (before,) = json.loads(plain.output)["rows"]
    (after,) = json.loads(ahead.output)["rows"]
    assert before["re_access_miss_ratio"] > 0.9
    assert after["re_access_miss_ratio"] < 0.3
    assert after["prefetch"]["used"] > 1000


def test_simulate_replays_through_all_tiers(run: Run, tmp_path: Path) -> None:
    """What a user waits for is which tier answers, beside the simplest rule there is."""
    trace = tmp_path / "large.npz"
    write_trace(trace, [Access(float(at), f"tile/{at % 300}", 100_000) for at in range(3000)])
    result = run("simulate", trace, "--tiers", "5%,10%,30%", "-p", "auto", "--json")
    assert 0 == result.exit_code, result.output
    found = json.loads(result.output)
    capacities = {TierName(name): size for name, size in found["tiers"].items()}
    assert 0 < found["cold_values"] < capacities[TierName.COLD]
    capacities[TierName.COLD] = found["cold_values"]
    expected = SimulatedTiers(capacities).replay(read_trace(trace))
    auto, chain = found["rows"]
    assert expected.seconds_per_read == auto["seconds_per_read"] < chain["seconds_per_read"]
    assert 1 == pytest.approx(sum(auto[name] for name in TierName))
    assert 1 == chain["glacier"], "a loop is the worst case of LRU"
    shown = run("simulate", trace, "--tiers", "5%,10%,30%").output
    assert "LRU chain" in shown and "ms a read" in shown
    assert 2 == run("simulate", trace, "--tiers", "5%,10%").exit_code


def test_simulate_draws(run: Run, trace: Path, tmp_path: Path) -> None:
    """A picture is worth the table."""
    picture = tmp_path / "ratios.png"
    result = run("simulate", trace, "-p", "lru", "--plot", picture)
    assert 0 == result.exit_code, result.output
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("capacity", ["0%", "-3%", "x%", "many"])
def test_simulate_refuses_what_is_no_size(run: Run, trace: Path, capacity: str) -> None:
    """It must say so before it replays for minutes."""
    assert 2 == run("simulate", trace, "-c", capacity).exit_code


def test_simulate_refuses_an_unknown_policy(run: Run, trace: Path) -> None:
    """The message names the nearest."""
    result = run("simulate", trace, "-p", "lruu")
    assert 2 == result.exit_code
    assert "lru" in result.output


def test_advise_says_where_more_room_helps(run: Run, trace: Path) -> None:
    """300 kB are read in a loop: the tier that lacks them is the one to enlarge."""
    small = ("--hot", "1kB", "--warm", "100kB", "--cold", "1MB")
    result = run("advise", trace, *small, "--more", "250kB", "--json")
    assert 0 == result.exit_code, result.output
    tiers = json.loads(result.output)["tiers"]
    assert tiers["warm"]["gain_percent"] > 90
    assert tiers["cold"]["gain_percent"] < 1
    assert tiers["warm"]["saved_seconds"] > 0 == tiers["cold"]["saved_seconds"]
    assert "warm" in run("advise", trace, *small, "--more", "250kB").output


def test_explain_says_where_a_key_is(run: Run, store: Path) -> None:
    """The command prints the same text as the method."""
    result = run("explain", store, "archived")
    assert 0 == result.exit_code, result.output
    assert "glacier" in result.output
    found = json.loads(run("explain", store, "text", "--json").output)
    assert ("text", "cold") == (found["key"], found["tier"])
    assert 3 == run("explain", store, "absent").exit_code


def test_explain_prints_no_control_character(run: Run, store: Path) -> None:
    """A key may hold what a terminal would obey."""
    with MemoryManager(storage_path=store, read_only=True) as manager:
        assert AWKWARD in manager
    assert "\x1b" not in run("explain", store, AWKWARD).output


def test_a_recorded_trace_can_be_replayed(run: Run, tmp_path: Path) -> None:
    """What a program does today is the best trace for its tiers tomorrow."""
    path = tmp_path / "own.jsonl"
    with (
        MemoryManager("1 MB", "1 MB", "1 MB") as manager,
        manager.record_trace(path) as recording,
    ):
        for at in range(60):
            manager[f"key/{at % 20}"] = bytes(100)
            manager[f"key/{at % 20}"]
    assert 120 == recording.written
    assert trace_of([]) != read_trace(path)
    assert 0 == run("simulate", path).exit_code
