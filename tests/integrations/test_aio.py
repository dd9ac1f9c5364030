"""Managers with coroutines: the same calls, a loop that never waits, and nothing half done.

Under asyncio and under trio, through anyio.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

anyio = pytest.importorskip("anyio", reason="needs anyio")
aio = pytest.importorskip("memories.aio")

import memories  # noqa: E402
from memories.errors import ClosedError, InvalidOptionTypeError, KeyNotFoundError  # noqa: E402
from memories.integrations.aio import THREADS  # noqa: E402

pytestmark = pytest.mark.anyio
# What has another form there: properties, operators, and what is iterated.
PLAIN = {
    "cache", "closed", "path", "read_only", "oom_guard", "prefix", "scan", "scan_distributed",
    "find", "keys", "items", "values", "distributed", "is_writer",
}  # fmt: skip
BACKENDS = [
    "asyncio",
    pytest.param("trio", marks=pytest.mark.skipif(find_spec("trio") is None, reason="needs trio")),
]


@pytest.fixture(params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """Return the name of an event loop."""
    return request.param


@pytest.fixture
def _by_asyncio(anyio_backend: str) -> None:
    """Skip a test of what only tasks of asyncio do."""
    if anyio_backend != "asyncio":
        pytest.skip("trio has no other cancellation than that of its scopes")


@pytest.fixture
async def manager(tmp_path: Path, anyio_backend: str) -> AsyncIterator[Any]:
    """Return an open manager."""
    opened = aio.MemoryManager("20 MB", "20 MB", 1, storage_path=tmp_path / "store")
    async with opened as made:
        yield made


class Gate:
    """Holds calls in their threads until it is opened."""

    def __init__(self, manager: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered, self.opened = threading.Event(), threading.Event()
        call = getattr(manager.sync, name)

        def held(*args: Any, **kwargs: Any) -> Any:
            self.entered.set()
            assert self.opened.wait(30)
            return call(*args, **kwargs)

        monkeypatch.setattr(manager.sync, name, held, raising=True)

    async def wait_entered(self) -> None:
        """Wait, in the loop, until a call is held."""
        while not self.entered.is_set():
            await anyio.sleep(0.005)


@pytest.mark.parametrize("name", ["MemoryManager", "SharedMemoryManager", "PrefixView"])
def test_every_call_is_there(name: str) -> None:
    """By its name: as a coroutine, or as what `PLAIN` names."""
    missing, waits = [], []
    for call in dir(getattr(memories, name)):
        if call.startswith("_") or call == "manager":
            continue
        found = getattr(getattr(aio, name), call, None)
        if found is None:
            missing.append(call)
        elif call not in PLAIN and call != "name" and not inspect.iscoroutinefunction(found):
            waits.append(call)
    assert not missing
    assert not waits


def test_every_call_to_the_nodes_is_there() -> None:
    """The distributed manager has those of its base and its own."""
    wanted = {name for name in dir(memories.DistributedMemoryManager) if name[0] != "_"}
    assert not wanted - set(dir(aio.DistributedMemoryManager))


async def test_values_come_back_from_every_tier(manager: Any) -> None:
    """With the options of the plain manager, and its errors."""
    value = np.arange(60_000.0).reshape(200, 300)
    for tier in ("hot", "warm", "cold"):
        await manager.store(tier, value, tier)
        await manager.store(f"{tier}/small", {"tier": tier, "of": [1, 2]}, tier)
    for tier in ("hot", "warm", "cold"):
        assert tier == await manager.get_tier(tier)
        np.testing.assert_array_equal(value, await manager[tier])
        part = await manager.retrieve(tier, region=np.s_[3:5, ::7])
        np.testing.assert_array_equal(value[3:5, ::7], part)
        assert {"tier": tier, "of": [1, 2]} == await manager.retrieve(f"{tier}/small")
    assert 6 == await manager.count()
    assert await manager.exists("hot") and not await manager.exists("nowhere")
    assert await manager.get("nowhere") is None and 5 == await manager.retrieve("nowhere", 5)
    with pytest.raises(KeyNotFoundError, match="nowhere"):
        await manager["nowhere"]
    with pytest.raises(KeyNotFoundError, match="nowhere"):
        await manager.delete("nowhere")
    await manager.delete("hot")
    assert not await manager.exists("hot")
    assert ["cold", "cold/small", "hot/small", "warm", "warm/small"] == [k async for k in manager]
    assert {"cold", "warm"} < set(dict([item async for item in manager.items()]))
    await manager.update({"a": 1}, b=2)
    assert (1, 2) == (await manager.pop("a"), await manager.setdefault("b", 9))
    assert 3 == await manager.modify("b", lambda old: old + 1)


async def test_a_value_that_expired_is_absent(manager: Any) -> None:
    """Although its entry may still be in RAM."""
    await manager.store("a", [1, 2], "warm", ttl=0.01)
    await anyio.sleep(0.05)
    assert "gone" == await manager.retrieve("a", "gone")


async def test_a_prefix_is_a_store_of_its_own(manager: Any) -> None:
    """Its names are without the prefix."""
    view = manager.prefix("S2A/").prefix("2026/")
    await view.store("tile", np.arange(4))
    assert 4 == (await manager["S2A/2026/tile"]).size == (await view["tile"]).size
    assert ["tile"] == [name async for name in view]
    await view.clear()
    assert 0 == await manager.count()


async def test_a_scan_of_many_keys(manager: Any) -> None:
    """Pages and levels as without coroutines."""
    names = {f"{n % 7}/{n:05}": n for n in range(2500)}
    await manager.store_many(names)
    assert sorted(names) == [key async for key in manager.scan()]
    assert [f"{n}/" for n in range(7)] == [key async for key in manager.scan("", "/")]
    assert names == dict([item async for item in manager.items()])
    assert 2500 == await manager.delete_many(list(names))


async def test_a_hit_and_a_small_store_stay_in_the_loop(manager: Any) -> None:
    """No other task runs meanwhile; a value on the disk is fetched by a thread, and others run."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await anyio.sleep(0)

    await manager.store("cold", b"x" * 100, "cold")
    await manager.store("dict", {"a": [1]})
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(count)
        await anyio.sleep(0)
        before = turns
        for _ in range(50):
            await manager.store("a", b"small")
            await manager.store("array", np.arange(10))
            await manager["a"], await manager["array"], await manager["dict"]
            await manager.exists("a")
        assert before == turns
        await manager["cold"]
        assert turns > before
        tasks.cancel_scope.cancel()


async def test_a_cancelled_store_is_done_when_the_caller_goes_on(
    manager: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was under way: the caller learns of its end, and nothing changes afterwards."""
    gate = Gate(manager, "store", monkeypatch)
    ended = False

    async def store() -> None:
        nonlocal ended
        try:
            await manager.store("a", {"large": [1]}, "cold")
        finally:
            ended = True

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(store)
        await gate.wait_entered()
        tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0.05)
            assert not ended
            gate.opened.set()
    assert ended and {"large": [1]} == await manager["a"]


@pytest.mark.usefixtures("_by_asyncio")
async def test_a_store_ends_before_its_cancelled_task(
    manager: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cancellation of asyncio ends a wait for a thread at once, a second one does so again."""
    gate = Gate(manager, "store", monkeypatch)
    task = asyncio.ensure_future(manager.store("a", {"large": [1]}, "cold"))
    await gate.wait_entered()
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0.01)
        assert not task.done()
    gate.opened.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert {"large": [1]} == await manager["a"]


@pytest.mark.usefixtures("_by_asyncio")
async def test_a_store_that_waits_for_a_thread_is_not_made(
    manager: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All threads are busy: what is cancelled until one is free was never under way."""
    gate = Gate(manager, "store", monkeypatch)
    busy = [asyncio.ensure_future(manager.store(f"busy/{n}", [n], "cold")) for n in range(THREADS)]
    await gate.wait_entered()
    late = asyncio.ensure_future(manager.store("late", [1], "cold"))
    await asyncio.sleep(0.01)
    late.cancel()
    with pytest.raises(asyncio.CancelledError):
        await late
    gate.opened.set()
    await asyncio.gather(*busy)
    assert THREADS == await manager.count() and not await manager.exists("late")


async def test_a_cancelled_read_returns_at_once(
    manager: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It changes nothing, so that a client who has gone is not waited for."""
    await manager.store("a", b"x", "cold")
    gate = Gate(manager, "retrieve", monkeypatch)
    with anyio.CancelScope() as scope:

        async def cancel() -> None:
            await gate.wait_entered()
            scope.cancel()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cancel)
            await manager["a"]
    assert scope.cancelled_caught
    gate.opened.set()
    assert await manager.exists("a")


async def test_a_cancelled_task_closes_its_manager(tmp_path: Path, anyio_backend: str) -> None:
    """All values are on the disk then."""
    with anyio.CancelScope() as scope:
        async with aio.MemoryManager("1 MB", "1 MB", 1, storage_path=tmp_path / "s") as manager:
            await manager.store("a", b"kept")
            scope.cancel()
            await anyio.sleep(1)
    assert manager.closed
    async with aio.MemoryManager("1 MB", "1 MB", 1, storage_path=tmp_path / "s") as again:
        assert b"kept" == await again["a"]


async def test_many_tasks_change_one_value(manager: Any) -> None:
    """None of the changes is lost."""
    await manager.store("count", 0)

    async def add() -> None:
        for _ in range(5):
            await manager.modify("count", lambda value: value + 1)

    async with anyio.create_task_group() as tasks:
        for _ in range(40):
            tasks.start_soon(add)
    assert 200 == await manager["count"]
    with pytest.raises(InvalidOptionTypeError, match="plain function"):
        await manager.modify("count", add)


async def test_it_has_to_be_opened(tmp_path: Path, anyio_backend: str) -> None:
    """Two tasks that open it at once open one."""
    manager = aio.MemoryManager("1 MB", "1 MB", 1, storage_path=tmp_path / "store")
    with pytest.raises(ClosedError, match="async with"):
        await manager.store("a", 1)
    assert manager.closed
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(manager.open)
        tasks.start_soon(manager.open)
    await manager.store("a", 1)
    await manager.close()
    assert manager.closed
    with pytest.raises(ClosedError):
        await manager["a"]
    with pytest.raises(InvalidOptionTypeError, match="SharedMemoryManager"):
        aio.SharedMemoryManager.over(manager.sync)


def test_several_loops_use_one_manager(tmp_path: Path) -> None:
    """Each in a thread of its own, and the program without a loop."""
    with memories.MemoryManager("1 MB", "1 MB", 1, storage_path=tmp_path / "store") as plain:
        manager = aio.MemoryManager.over(plain)
        plain["count"] = 0

        async def work(name: int) -> None:
            for number in range(30):
                await manager.store(f"{name}/{number}", {"n": number}, "cold")
                await manager.modify("count", lambda value: value + 1)
                assert {"n": number} == await manager[f"{name}/{number}"]

        threads = [threading.Thread(target=asyncio.run, args=(work(n),)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert 120 == plain["count"] and 121 == len(plain)


def test_a_loop_that_is_closed_leaves_the_work_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread goes on, and what it stores is there."""
    with memories.MemoryManager("1 MB", "1 MB", 1, storage_path=tmp_path / "store") as plain:
        manager = aio.MemoryManager.over(plain)
        gate = Gate(manager, "store", monkeypatch)
        loop = asyncio.new_event_loop()
        task = loop.create_task(manager.store("a", {"whole": True}, "cold"))
        loop.run_until_complete(gate.wait_entered())
        stored = wait_for(lambda: plain.exists("a"))
        loop.close()
        gate.opened.set()
        assert stored() and {"whole": True} == plain["a"]
        del task


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> Callable[[], bool]:
    """Return what waits for a condition."""

    def wait() -> bool:
        event = threading.Event()
        for _ in range(int(seconds / 0.01)):
            if condition():
                return True
            event.wait(0.01)
        return False

    return wait


async def test_a_coroutine_function_is_cached(manager: Any, anyio_backend: str) -> None:
    """It is computed once, by however many tasks."""
    if anyio_backend == "trio":
        pytest.skip("the decorator waits by means of asyncio")
    calls = 0

    @manager.cache
    async def slow(x: int) -> int:
        nonlocal calls
        calls += 1
        await anyio.sleep(0.01)
        return x * 2

    assert [6] * 8 == list(await asyncio.gather(*(slow(3) for _ in range(8))))
    assert 1 == calls


async def test_a_shared_store(tmp_path: Path, anyio_backend: str) -> None:
    """Its calls go through the socket or to the disk, in threads."""
    async with aio.SharedMemoryManager(tmp_path / "store", cold_memory_size=1) as manager:
        await manager.store("a", np.arange(5))
        assert 5 == (await manager["a"]).size and await manager.exists("a")
        assert ["a"] == [key async for key in manager.scan()]
        await manager.delete("a")
        assert 0 == await manager.count()


async def test_plain_calls_beside_it(manager: Any) -> None:
    """The rest runs in threads by the same names."""
    await manager.store("a", b"1" * 1000)
    await manager.pin("a")
    assert (await manager.info("a")).pinned
    await manager.unpin("a")
    assert 1 == (await manager.stats()).tiers["hot"].keys
    assert "warm" == await manager.demote("a")
    await manager.flush()
    assert (await manager.info("a")).durable
    assert "warm" in str(await manager.explain("a"))
