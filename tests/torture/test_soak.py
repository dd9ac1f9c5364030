"""A soak: one process, every operation at random, and nothing that it holds may grow.

`SOAK_SECONDS` (an hour unless given) says for how long; `SOAK_SEED` repeats a run. A slice of a
quarter of a minute is part of `make test`.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.torture.soak import Held, Soak

from memories.cluster.local import LocalGroup

WARM_UP = 3  # Rounds after which everything that is made once has been made.
SPARE = Held(objects=3000, rss=12 << 20, descriptors=2, threads=1, disk=4 << 20)


def soak(directory: Path, nodes: list[str], seconds: float, rounds: int, seed: int) -> list[Held]:
    """Return what was held after each round."""
    one = Soak(directory, nodes, seed)
    try:
        held = []
        for _ in range(rounds):
            one.round(seconds / rounds)
            held.append(Held.now(directory))
            print(held[-1], dict(one.refused))
    finally:
        one.manager.cleanup()
    assert all(one.done[operation.__name__] for operation in one.operations)
    return held


def assert_flat(held: list[Held], share: float) -> None:
    """The least of the last rounds is no more than the most of the first ones, but for a little."""
    after = held[WARM_UP:]
    half = len(after) // 2
    for name, spare in SPARE._asdict().items():
        early = max(getattr(one, name) for one in after[:half])
        late = min(getattr(one, name) for one in after[half:])
        assert late <= early * (1 + share) + spare, name


def test_nothing_grows_in_nine_rounds(tmp_path: Path) -> None:
    """Growth that shows at once: a descriptor for each opening, an object for each key."""
    assert_flat(soak(tmp_path, [], 9.0, 9, seed=1), share=0.1)


@pytest.mark.torture
@pytest.mark.timeout(7200)
def test_nothing_grows(tmp_path: Path) -> None:
    """A service runs for months, and what it keeps of each request ends it one night."""
    seconds = float(os.environ.get("SOAK_SECONDS", "3600"))
    seed = int(os.environ.get("SOAK_SEED", "2"))
    assert_flat(soak(tmp_path, [], seconds, max(9, int(seconds / 30)), seed), share=0.02)


@pytest.mark.torture
@pytest.mark.server
@pytest.mark.timeout(7200)
def test_nothing_grows_over_nodes(tmp_path: Path) -> None:
    """The same with values on three servers, which must not keep what was deleted either."""
    seconds = float(os.environ.get("SOAK_SECONDS", "3600"))
    seed = int(os.environ.get("SOAK_SEED", "3"))
    (tmp_path / "nodes").mkdir()
    (tmp_path / "soak").mkdir()
    with LocalGroup(tmp_path / "nodes", 3) as group:
        held = soak(tmp_path / "soak", group.names, seconds, max(9, int(seconds / 30)), seed)
    assert_flat(held, share=0.02)
