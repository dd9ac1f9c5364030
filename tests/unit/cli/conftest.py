"""A store on disk, with keys that are awkward to print, and a way to run commands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from memories import MemoryManager
from memories.cli.app import app

AWKWARD = "line\nfeed \x1b[31mred\\ 🦊 \u202eright"
ARRAY = np.arange(12, dtype=np.float32).reshape(3, 4)
TEXT = "grün"

Run = Callable[..., Result]


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of a closed store without a writer."""
    path = tmp_path_factory.mktemp("stores") / "store"
    with MemoryManager(0.001, 0.001, 1, True, storage_path=path) as manager:
        manager.store("array", ARRAY, tier="cold", metadata={"year": 2024, "tags": ["a"]})
        manager.store("bytes", b"\x00\xff", tier="cold")
        manager.store("text", TEXT, tier="cold")
        manager.store("nested", {"a": [1, 2.5, None]}, tier="cold")
        manager.store("archived", ARRAY, tier="glacier")
        manager.store(AWKWARD, 1, tier="cold")
    return path


@pytest.fixture
def run() -> Run:
    """Return a function that runs a command and returns what it printed and its exit code."""

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return run
