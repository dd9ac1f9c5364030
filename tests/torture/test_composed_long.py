"""The composed model for as long as it takes, and its archive under real kills."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from tests.faults.test_manager_kill import Version, follow, killed, verified
from tests.model.composed import ComposedMachine, World, forget_writer

from memories import MemoryManager

pytestmark = pytest.mark.torture
SIZES = ("1 MB", "1 MB", "3 MB")


def test_the_composed_model() -> None:
    """A thousand histories of sixty steps."""
    run_state_machine_as_test(
        ComposedMachine,
        settings=settings(
            max_examples=1000,
            stateful_step_count=60,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_archive_and_journal_agree_after_kills(tmp_path: Path) -> None:
    """Whatever `kill -9` interrupts, another machine sees of archived keys what their own sees."""
    path, chance = tmp_path / "store", random.Random(5)
    held: dict[str, Version] = {}
    number, seen = 0, 0
    for run in range(60):
        lines = killed(path, 77_000 + run, number, chance)
        possible = follow(held, lines)
        number = max([number, *(version.number for each in possible.values() for version in each)])
        with MemoryManager(*SIZES, True, storage_path=path, migration=False) as own:
            World.agree(own)
            assert [] == own.check()
            held = {key: verified(own, key, each) for key, each in possible.items()}
            World.archive(own).reclaim(0)
            World.agree(own)
            seen += compare_afresh(own, path / "glacier", tmp_path)
    assert seen > 60, "nothing was ever archived"


def compare_afresh(own: MemoryManager, bucket: Path, folder: Path) -> int:
    """Compare every archived key with what another machine finds in a copy of the bucket."""
    World.archive(own).sync()
    archived = World.archived(own)
    shutil.copytree(bucket, folder / "copy")
    forget_writer(folder / "copy")
    with MemoryManager(
        *SIZES, True, storage_path=folder / "fresh", glacier_url=folder / "copy", migration=False
    ) as fresh:
        assert sorted(archived) == list(fresh)
        for key in archived:
            assert np.array_equal(own.retrieve(key), fresh.retrieve(key)), key
    shutil.rmtree(folder / "copy")
    shutil.rmtree(folder / "fresh")
    return len(archived)
