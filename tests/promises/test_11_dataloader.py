"""Promise 11 where it is used most: a PyTorch DataLoader whose workers read from a manager."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.promises.conftest import Make

from memories import MemoryManager


class Tiles:
    """A map-style dataset: what its items need is a manager, whatever process they are read in."""

    def __init__(self, manager: MemoryManager, count: int) -> None:
        self.manager, self.count = manager, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return index, self.manager.retrieve(f"tile/{index}", copy=True)


@pytest.mark.filterwarnings("ignore:This process.*fork:DeprecationWarning")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("start", ["fork", "forkserver", "spawn"])
def test_two_workers_read_what_the_parent_stored(make: Make, start: str) -> None:
    """Small and mapped values, each once, while the parent goes on writing and after it did."""
    data = pytest.importorskip("torch.utils.data", reason="PyTorch is not installed")
    manager = make()
    tiles = [np.arange(size, dtype="f4") + size for size in [10, 1000, 300_000] * 8]
    for index, tile in enumerate(tiles):
        manager.store(f"tile/{index}", tile, "cold")
    loader = data.DataLoader(
        Tiles(manager, len(tiles)),
        batch_size=None,
        num_workers=2,
        multiprocessing_context=start,
        persistent_workers=True,
    )
    for epoch in range(2):
        seen = {}
        for index, tensor in loader:
            seen[index] = tensor.numpy()
            manager.store("parent", epoch, "cold")
        assert set(range(len(tiles))) == set(seen)
        for index, tile in enumerate(tiles):
            assert np.array_equal(tile, seen[index])
    assert 1 == manager.retrieve("parent")
