"""The distributed manager with coroutines, over real nodes."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from memories.cluster.local import LocalGroup
from memories.errors import KeyNotFoundError

aio = pytest.importorskip("memories.aio", reason="needs anyio")
pytestmark = pytest.mark.server


def test_the_nodes_are_used_without_waiting_in_the_loop(plain_nodes: LocalGroup) -> None:
    """By the long names, and as a store of its own."""

    async def use() -> None:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        opened = aio.DistributedMemoryManager("1 MB", "1 MB", 1, nodes=plain_nodes.names)
        async with opened as manager:
            before = turns
            await manager.store_distributed("a", np.arange(5))
            assert turns > before
            assert 5 == (await manager.retrieve_distributed("a")).size
            view = manager.distributed
            await view.update({"b": 1, "c": {"deep": [1]}})
            assert {"deep": [1]} == await view["c"]
            assert ["a", "b", "c"] == [key async for key in view]
            assert ["b"] == [key async for key in manager.scan_distributed("b")]
            assert 3 == await view.count()
            await manager.delete_distributed("a")
            with pytest.raises(KeyNotFoundError):
                await view["a"]
            assert all(node["online"] for node in (await manager.get_node_status()).values())
            assert 0 == await manager.count(), "its own tiers are another store"
        counting.cancel()

    asyncio.run(use())
