"""`memories demo`: what it promises to show is really what happens.

One run in a process of its own, as its user starts it, and every promise looked up in the figures
that it printed. It runs on the real raster, which `make test` installs.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any, NamedTuple

import pytest

from memories.cli.demo.raster import Tile, find_raster
from memories.cli.demo.workload import script
from memories.foundation.optional_imports import MissingPackageError

MOVED_KEYS = 100
RANKED_KEYS = 25  # Hot and warm are one pool here: a key changes its rank when it pays.
PAIRS = [("hot", "warm"), ("warm", "cold"), ("cold", "glacier")]


pytestmark = pytest.mark.timeout(600)  # It takes half a minute, unless the machine is very busy.


class Run(NamedTuple):
    """What one run printed, and the picture it made."""

    figures: dict[str, Any]
    words: str
    picture: bytes


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run the demo once."""
    try:
        find_raster()
    except MissingPackageError as error:
        pytest.skip(str(error))
    picture = tmp_path_factory.mktemp("demo") / "demo.png"
    command = [sys.executable, "-m", "memories", "demo", "--json"]
    options = ["--picture", str(picture)]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=580)
    assert done.returncode == 0, done.stderr
    return Run(json.loads(done.stdout), done.stderr, picture.read_bytes())


def test_every_answer_is_what_the_file_gives(run: Run) -> None:
    """Speed with a wrong value is worth nothing."""
    assert run.figures["reads"] > 1000
    assert 0 == run.figures["different"]


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
@pytest.mark.parametrize("direction", [1, -1], ids=["down", "up"])
def test_at_least_a_hundred_keys_move_each_way(
    run: Run, pair: tuple[str, str], direction: int
) -> None:
    """The viewer never says move: what it shows is the migration that the library is about."""
    source, target = pair[::direction]
    moves = {(one["from"], one["to"]): one for one in run.figures["moves"]}
    least = RANKED_KEYS if pair == ("hot", "warm") else MOVED_KEYS
    assert moves[source, target]["keys"] >= least
    assert moves[source, target]["moves"] >= moves[source, target]["keys"]


def test_all_four_tiers_fill(run: Run) -> None:
    """A tier that stays empty was not shown."""
    peaks = {name: tier["peak_bytes"] for name, tier in run.figures["tiers"].items()}
    sizes = {name: tier["configured_bytes"] for name, tier in run.figures["tiers"].items()}
    assert all(peaks[name] > 0.8 * sizes[name] for name in ("hot", "warm", "cold"))
    assert peaks["glacier"] > peaks["cold"]


def test_no_tier_ever_holds_more_than_it_may(run: Run) -> None:
    """Budgets are hard, above all while everything moves."""
    for tier in run.figures["tiers"].values():
        assert tier["peak_bytes"] <= tier["configured_bytes"]


def test_hot_and_warm_are_far_smaller_than_the_data(run: Run) -> None:
    """Otherwise a dict would do."""
    tiers = run.figures["tiers"]
    memory = tiers["hot"]["configured_bytes"] + tiers["warm"]["configured_bytes"]
    assert 4 * memory < run.figures["raster_bytes"]


def test_every_read_is_accounted_for(run: Run) -> None:
    """The shares of the tiers add up to the whole."""
    answered = sum(tier["answered"] for tier in run.figures["tiers"].values())
    assert run.figures["reads"] == answered + run.figures["absent"]
    assert run.figures["raster_tiles"] == sum(
        tier["keys"] for tier in run.figures["tiers"].values()
    )


def test_most_reads_are_answered_by_ram_between_the_two_baselines(run: Run) -> None:
    """What a read takes by wall clock depends on the machine, where it is answered does not."""
    answered = {name: tier["answered"] for name, tier in run.figures["tiers"].items()}
    assert answered["hot"] + answered["warm"] > run.figures["reads"] / 2
    reading = run.figures["seconds"] - run.figures["storing_seconds"]
    assert 0 < run.figures["from_ram_seconds"] < reading
    assert run.figures["from_ram_seconds"] < run.figures["from_file_seconds"]


def test_it_stays_below_a_gigabyte(run: Run) -> None:
    """It shows that data can be larger than memory, on a small machine too."""
    assert 50e6 < run.figures["peak_rss_bytes"] < 1e9


def test_it_draws_a_picture_and_plain_lines_where_there_is_no_terminal(run: Run) -> None:
    """A log file gets no escape sequences."""
    assert run.picture.startswith(b"\x89PNG")
    assert "around the world" in run.words
    assert "\x1b" not in run.words


def test_the_script_is_the_same_for_the_same_seed_and_covers_the_raster() -> None:
    """Two runs can be compared, and no tile is left out."""
    frames = list(script(16, 32, regions=2, seed=1))
    assert frames == list(script(16, 32, regions=2, seed=1))
    assert frames != list(script(16, 32, regions=2, seed=2))
    seen = {request for frame in frames for request in frame.requests if isinstance(request, Tile)}
    assert {Tile(row, column) for row in range(16) for column in range(32)} == seen
