"""A soak: one process, every operation at random, and nothing that it holds may grow.

`SOAK_SECONDS` (an hour unless given) says for how long; `SOAK_SEED` repeats a run. A slice of a
quarter of a minute is part of `make test`.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.torture.soak import LIBC, Held, Soak

from memories.cluster.local import LocalGroup

WARM_UP = 3  # Rounds after which everything that is made once has been made.
SPARE = Held(
    objects=3000, blocks=4000, native=1 << 20, rss=12 << 20, descriptors=2, threads=1, disk=4 << 20
)
LONG_SHARE = 0.02
OPERATIONS = 60_000  # At least so many are done in a third of an hour.


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
    """The least of the last third of the rounds is no more than the most of the first, nearly.

    A third lies between the two, in which steady growth has the time to show.
    """
    after = held[WARM_UP:]
    third = len(after) // 3
    for name, spare in SPARE._asdict().items():
        early = max(getattr(one, name) for one in after[:third])
        late = min(getattr(one, name) for one in after[-third:])
        assert late <= early * (1 + share) + spare, f"{name}: {early:,} and later {late:,}"


def test_nothing_grows_in_nine_rounds(tmp_path: Path) -> None:
    """Growth that shows at once: a descriptor for each opening, an object for each key."""
    assert_flat(soak(tmp_path, [], 5.4, 9, seed=1), share=0.1)


def native(count: int) -> None:
    """Allocate memory that is never given back."""
    for _ in range(count):
        LIBC.malloc(50)


KEPT: list[str] = []


def python(count: int) -> None:
    """Keep a name for ever."""
    KEPT.extend(f"a key that is never forgotten {number}" for number in range(count))


def grow(leak: Callable[[int], None], directory: Path) -> None:
    """Keep as much as in the third of an hour, in three rounds instead of forty, and judge it."""
    LIBC.malloc.restype = ctypes.c_void_p
    one, held = Soak(directory, [], seed=4), list[Held]()
    try:
        for _ in range(WARM_UP + 9):
            leak(OPERATIONS // 3)
            one.empty()
            held.append(Held.now(directory))
    finally:
        one.manager.cleanup()
    assert_flat(held, LONG_SHARE)


@pytest.mark.parametrize(("leak", "name"), [("native", "native"), ("python", "blocks")])
def test_fifty_bytes_an_operation_are_noticed(tmp_path: Path, leak: str, name: str) -> None:
    """In a process of its own: what earlier tests give back meanwhile would hide the leak."""
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from tests.torture.test_soak import *\n"
        f"grow({leak}, Path(sys.argv[2]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(Path(__file__).parents[2]), str(tmp_path)],
        capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert f"AssertionError: {name}: " in done.stderr


@pytest.mark.torture
@pytest.mark.timeout(7200)
def test_nothing_grows(tmp_path: Path) -> None:
    """A service runs for months, and what it keeps of each request ends it one night."""
    seconds = float(os.environ.get("SOAK_SECONDS", "3600"))
    seed = int(os.environ.get("SOAK_SEED", "2"))
    assert_flat(soak(tmp_path, [], seconds, max(9, int(seconds / 30)), seed), LONG_SHARE)


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
    assert_flat(held, LONG_SHARE)
