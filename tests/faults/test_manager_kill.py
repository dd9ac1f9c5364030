"""`kill -9` of a whole manager: what was durable is there, what was not is absent or new."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from tests.support.children import manager_writer
from tests.support.children.manager_writer import content

from memories import MemoryManager
from memories.sealing.master_key import create_file

CHILD = Path(manager_writer.__file__)


class Version(NamedTuple):
    """One version that was stored; a size of -1 is an absence."""

    number: int
    size: int
    durable: bool


ABSENT = Version(0, -1, durable=True)


def test_ten_kills(tmp_path: Path) -> None:
    """Stores in every tier, overwrites, removals and moves, killed after a random while."""
    campaign(tmp_path / "s", runs=10, seed=1)


def test_kills_of_an_encrypted_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same with its archive, where the environment names the key of both."""
    create_file(tmp_path / "key", "test")
    monkeypatch.setenv("MEMORIES_ENCRYPTION", f"file:{tmp_path / 'key'}")
    campaign(tmp_path / "s", runs=3, seed=2)
    assert (tmp_path / "s/cold/keys").is_dir()
    assert (tmp_path / "s/glacier/memories-1/keys/1").is_file()


def campaign(path: Path, *, runs: int, seed: int) -> None:
    chance = random.Random(seed)
    held: dict[str, Version] = {}
    number, kept = 0, 0
    for run in range(runs):
        lines = killed(path, seed * 1000 + run, number, chance)
        possible = follow(held, lines)
        number = max([number, *(version.number for each in possible.values() for version in each)])
        with MemoryManager(
            "1 MB", "1 MB", "3 MB", True, storage_path=path, migration=False, prefetch="off"
        ) as found:
            assert [] == found.check()
            held = {key: verified(found, key, each) for key, each in possible.items()}
            assert set(found) <= set(held)
            kept += len(found)
    assert kept > runs, "nothing was ever durable"


def killed(path: Path, seed: int, number: int, chance: random.Random) -> list[list[str]]:
    """Let the child say so many lines, which a busy machine makes no fewer, and kill it then."""
    child = subprocess.Popen(
        [sys.executable, str(CHILD), str(path), str(seed), str(number)], stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    first = b"".join(child.stdout.readline() for _ in range(chance.randrange(1, 700)))
    time.sleep(chance.uniform(0.0, 0.01))
    os.kill(child.pid, signal.SIGKILL)
    rest = child.stdout.read()
    child.stdout.close()
    child.wait()
    return [line.split() for line in (first + rest).decode().splitlines()]


def follow(held: dict[str, Version], lines: list[list[str]]) -> dict[str, set[Version]]:
    """Return what each key may be at after the kill.

    A volatile version over a durable one is durable, too. One over an absence may be there, for a
    move or a lack of room may have taken it down; else the key is absent.
    """
    possible = {key: {version} for key, version in held.items()}
    before = {ABSENT}
    for mark, key, number, size, terms in lines:
        if mark == "?":
            before = possible.get(key, {ABSENT})
        over_durable = all(version.durable and version.size >= 0 for version in before)
        new = Version(int(number), int(size), terms == "durable" or over_durable)
        lost = set() if new.durable else {ABSENT}
        possible[key] = {new, *lost, *(before if mark == "?" else ())}
    return possible


def verified(manager: MemoryManager, key: str, possible: set[Version]) -> Version:
    """Return which of the possible versions `key` is at, its content compared."""
    value = manager.retrieve(key, None)
    if value is None:
        assert any(version.size < 0 for version in possible), (key, possible)
        return ABSENT
    for version in possible:
        if version.size >= 0 and np.array_equal(content(version.number, version.size), value):
            return version._replace(durable=True)
    raise AssertionError(f"{key} is at {value[:1]}, not among {possible}")
