"""A device for the hot tier, and managers over it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from memories import MemoryManager
from memories.testing import fake_device as fakes
from memories.testing.fake_device import FakeDevice

fakes.register()


@pytest.fixture
def device() -> FakeDevice:
    """Return a device of 16 MB."""
    return FakeDevice(16_000_000)


@pytest.fixture
def manager(device: FakeDevice) -> Iterator[MemoryManager]:
    """Return a manager whose hot tier is the device."""
    with MemoryManager(
        "8 MB", "64 MB", "200 MB", hot_device=device, migration=False, prefetch="off"
    ) as made:
        yield made


@pytest.fixture
def opened() -> Iterator[Callable[..., MemoryManager]]:
    """Return what makes managers that end with the test."""
    made: list[MemoryManager] = []

    def make(*sizes: Any, **options: Any) -> MemoryManager:
        made.append(MemoryManager(*sizes, **options))
        return made[-1]

    yield make
    for one in made:
        one.cleanup()
