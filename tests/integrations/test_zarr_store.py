"""`MemoriesStore` is a store of zarr: by zarr's own tests, in every tier, in several processes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

zarr = pytest.importorskip("zarr", minversion="3", reason="zarr 3 is not installed")

from hypothesis import HealthCheck, settings  # noqa: E402
from hypothesis.stateful import run_state_machine_as_test  # noqa: E402
from zarr.core.buffer import cpu, default_buffer_prototype  # noqa: E402
from zarr.testing.stateful import ZarrHierarchyStateMachine, ZarrStoreStateMachine  # noqa: E402
from zarr.testing.store import StoreTests  # noqa: E402

from memories import ClosedError, MemoryManager, UnsupportedTypeError  # noqa: E402
from memories.zarr import MemoriesStore  # noqa: E402

FEW = settings(
    deadline=None,
    max_examples=8,
    stateful_step_count=25,
    suppress_health_check=list(HealthCheck),
)
SIZES = ("8 MB", "16 MB", "64 MB")


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[MemoryManager]:
    with MemoryManager(*SIZES, storage_path=tmp_path / "store") as one:
        yield one


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MemoryManager]:
    """One manager for all of zarr's tests; each has a prefix of its own."""
    path = tmp_path_factory.mktemp("shared")
    with MemoryManager(*SIZES, storage_path=path / "store") as one:
        yield one


class TestMemoriesStore(StoreTests[MemoriesStore, cpu.Buffer]):
    """Zarr's tests of a store; the manager below it is the second opinion."""

    store_cls = MemoriesStore
    buffer_cls = cpu.Buffer
    tier: Any = "auto"

    @pytest.fixture
    def store_kwargs(self, shared: MemoryManager, tmp_path: Path) -> dict[str, Any]:
        return {"manager": shared, "prefix": f"cubes{tmp_path}", "tier": self.tier}

    @pytest.fixture
    def store(self, open_kwargs: dict[str, Any]) -> MemoriesStore:
        return asyncio.run(self.store_cls.open(**open_kwargs))

    @pytest.fixture
    def store_not_open(self, store_kwargs: dict[str, Any]) -> MemoriesStore:
        return self.store_cls(**store_kwargs)

    async def set(self, store: MemoriesStore, key: str, value: cpu.Buffer) -> None:
        store.manager.store(f"{store.prefix}{key}", value.to_bytes(), self.tier)

    async def get(self, store: MemoriesStore, key: str) -> cpu.Buffer:
        return cpu.Buffer.from_bytes(store.manager.retrieve(f"{store.prefix}{key}"))

    def test_store_repr(self, store: MemoriesStore) -> None:
        assert repr(store).startswith("MemoriesStore('memories://")
        assert repr(store).endswith(f"/{store.prefix}')")

    def test_store_supports_writes(self, store: MemoriesStore) -> None:
        assert store.supports_writes

    def test_store_supports_listing(self, store: MemoriesStore) -> None:
        assert store.supports_listing


class TestMemoriesStoreInCold(TestMemoriesStore):
    """The same from the disk."""

    tier = "cold"


@pytest.mark.filterwarnings("ignore")  # Of data types that zarr has not specified.
@pytest.mark.parametrize("machine", [ZarrHierarchyStateMachine, ZarrStoreStateMachine])
def test_any_sequence_of_calls_does_what_a_dict_does(
    machine: type[Any], manager: MemoryManager
) -> None:
    """Zarr's own machines compare arrays, groups and listings with its store in memory."""
    store = MemoriesStore(manager, "cubes")
    run_state_machine_as_test(lambda: machine(store), settings=FEW)


def cube(store: MemoriesStore) -> np.ndarray[Any, Any]:
    """Write an array of many chunks, and return its values."""
    values = np.arange(64 * 64, dtype="int32").reshape(64, 64)
    zarr.create_array(store, name="cube", data=values, chunks=(16, 16))
    return values


def test_other_keys_of_the_manager_are_not_seen_and_not_removed(manager: MemoryManager) -> None:
    """Two stores and a program share one manager, each below its prefix."""
    one, two = MemoriesStore(manager, "one"), MemoriesStore(manager, "two/")
    manager.store("one-not", b"kept")
    manager.store("mine", {"a": 1})
    cube(one)
    cube(two)
    asyncio.run(one.clear())
    assert [] == list(manager.scan("one/"))
    assert b"kept" == manager.retrieve("one-not")
    assert {"a": 1} == manager.retrieve("mine")
    assert "cube" in zarr.open_group(two)


def test_a_value_of_another_program_is_an_error_and_not_a_chunk(manager: MemoryManager) -> None:
    """A prefix that another program uses must not turn into numbers."""
    manager.store("cubes/c/0", {"a": 1})
    store = MemoriesStore(manager, "cubes")
    with pytest.raises(UnsupportedTypeError, match="another program uses this prefix"):
        store.get_sync("c/0")


def test_a_closed_manager_is_an_error_and_not_fill_values(tmp_path: Path) -> None:
    """Zarr takes an absent chunk for fill values, so that "closed" must not look like "absent"."""
    manager = MemoryManager(*SIZES, storage_path=tmp_path / "store")
    store = MemoriesStore(manager)
    values = cube(store)
    array = zarr.open_array(store, path="cube", mode="r")
    assert np.array_equal(values, array[:])
    manager.cleanup()
    with pytest.raises(ClosedError):
        array[:]
    with pytest.raises(ClosedError):
        zarr.open_array(store, path="cube", mode="r")


def test_if_absent_stores_exactly_one(manager: MemoryManager) -> None:
    """Two writers that begin an array at once must agree on its metadata."""
    store = MemoriesStore(manager)

    async def race() -> None:
        values = [cpu.Buffer.from_bytes(b"%d" % number) for number in range(20)]
        await asyncio.gather(*(store.set_if_not_exists("zarr.json", one) for one in values))

    asyncio.run(race())
    first = manager.retrieve("zarr.json")
    asyncio.run(race())
    assert first == manager.retrieve("zarr.json")


def test_event_loops_of_many_threads_share_a_store(manager: MemoryManager) -> None:
    """A web service runs a loop of its own beside that of zarr."""
    store = MemoriesStore(manager, tier="cold")
    values = cube(store)
    wrong: list[Any] = []

    async def read() -> None:
        for number in range(16):
            at = (number // 4 * 16, number % 4 * 16)
            chunk = await store.get(
                f"cube/c/{number // 4}/{number % 4}", default_buffer_prototype()
            )
            array = zarr.open_array(store, path="cube", mode="r")
            part = await asyncio.to_thread(array.__getitem__, np.s_[at[0] : at[0] + 16, at[1]])
            if chunk is None or not np.array_equal(values[at[0] : at[0] + 16, at[1]], part):
                wrong.append(number)

    threads = [threading.Thread(target=lambda: asyncio.run(read())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [] == wrong
