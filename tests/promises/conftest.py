"""Managers for the promises: small, with all four tiers; values move only when a test asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.passing_time import pass_time  # noqa: F401

from memories import MemoryManager

Make = Callable[..., MemoryManager]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Return a maker of managers on one store, which closes what it made."""
    made = []

    def maker(hot: str = "50 MB", warm: str = "50 MB", cold: str = "500 MB", **options: Any) -> Any:
        options = {
            "storage_path": tmp_path / "store",
            "glacier_memory_enabled": True,
            "migration": False,
            "prefetch": "off",
            **options,
        }
        manager = MemoryManager(hot, warm, cold, **options)
        made.append(manager)
        return manager

    yield maker
    for manager in made:
        manager.cleanup()


@pytest.fixture
def manager(make: Make) -> MemoryManager:
    """Return one manager."""
    return make()
