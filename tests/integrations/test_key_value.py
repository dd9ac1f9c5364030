"""The store of py-key-value: entries, times, listings; its own suite is not in its wheel."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from memories import MemoryManager, UnsupportedTypeError

pytest.importorskip("key_value.aio", reason="this is a store of py-key-value")

from memories.key_value import KeyValueStore


@pytest.fixture
def manager() -> Iterator[MemoryManager]:
    """Return a manager of one test."""
    with MemoryManager("10 MB", "10 MB", "100 MB") as made:
        yield made


def test_entries_are_kept_listed_and_removed(manager: MemoryManager) -> None:
    """With names of any characters."""

    async def main() -> None:
        store = KeyValueStore(manager, seed={"seeded": {"a": {"n": 0}}})
        assert await store.get("a", collection="seeded") == {"n": 0}
        names = ["a", "b/c", "ü %2F", "", " "]
        for number, name in enumerate(names):
            await store.put(name, {"n": number}, collection="x/y", ttl=60)
        assert sorted(names) == sorted(await store.keys(collection="x/y"))
        assert ["seeded", "x/y"] == sorted(await store.collections())
        value, ttl = await store.ttl("b/c", collection="x/y")
        assert value == {"n": 1} and ttl is not None and 50 < ttl <= 60
        assert await store.get("c", collection="x") is None
        assert await store.delete("a", collection="x/y")
        assert not await store.delete("a", collection="x/y")
        assert await store.destroy_collection("x/y")
        assert [] == await store.keys(collection="x/y")
        assert await store.destroy()

    asyncio.run(main())
    assert 0 == len(manager)


def test_stores_share_a_manager_by_prefix(manager: MemoryManager) -> None:
    """Two applications in one process do not meet."""

    async def main() -> None:
        one, two = KeyValueStore(manager, prefix="one"), KeyValueStore(manager, prefix="two")
        await one.put("a", {"n": 1})
        assert await two.get("a") is None

    asyncio.run(main())


def test_a_value_of_another_program_is_named(manager: MemoryManager) -> None:
    """Another program may use the prefix, too."""
    store = KeyValueStore(manager)
    manager.store("key-value/mine/a", 5)
    with pytest.raises(UnsupportedTypeError, match="holds a int"):
        asyncio.run(store.get("a", collection="mine"))
