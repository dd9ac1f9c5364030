"""`manager.cache`: results in the tiers, computed once."""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.passing_time import PassTime, pass_time  # noqa: F401

from memories import InvalidOptionError, MemoryManager, UnsupportedTypeError


@pytest.fixture
def manager() -> Iterator[MemoryManager]:
    """Return a manager with room to spare."""
    with MemoryManager("10 MB", "10 MB", "100 MB") as made:
        yield made


@dataclass
class Options:
    """An argument that is no scalar."""

    bands: list[int]
    scale: float


def test_a_result_is_computed_once_per_content_of_the_arguments(manager: MemoryManager) -> None:
    """Equal arrays are one key wherever they lie; another type or dtype is another."""
    calls: list[Any] = []

    @manager.cache
    def total(array: Any, options: Any = None) -> Any:
        calls.append(array)
        return np.sum(array, keepdims=True)

    grid = np.arange(12.0).reshape(3, 4)
    first = total(grid, Options([1], 2.0))
    again = total(array=np.asfortranarray(grid.copy()), options=Options([1], 2.0))
    assert np.array_equal(first, again)
    assert 1 == len(calls)
    assert not first.flags.writeable
    assert not again.flags.writeable
    total(grid.astype("f4"), Options([1], 2.0))
    total(grid, Options([2], 2.0))
    total(grid)
    assert 4 == len(calls)
    assert (1, 4, 4) == total.cache_info()[:3]
    assert 4 == sum(total.cache_info().tiers.values())
    assert "total" == total.__name__


def test_versions_are_kept_apart_and_cleared_together(manager: MemoryManager) -> None:
    """Raising the version computes anew; going back finds the old results."""

    def make(version: int) -> Any:
        def f(x: int) -> tuple[int, int]:
            return x, version

        return manager.cache(f, version=version)

    old, new = make(1), make(2)
    assert [(3, 1), (3, 2), (3, 1)] == [old(3), new(3), make(1)(3)]
    assert old.cache_key(3) != new.cache_key(3)
    new.cache_clear()
    assert 0 == old.cache_info().results
    assert [] == list(manager)


def test_ignored_arguments_and_own_keys(manager: MemoryManager) -> None:
    """What does not change the result does not change the key."""
    calls = []

    class Model:
        @manager.cache(ignore=["self", "verbose"])
        def run(self, x: int, verbose: bool = False) -> int:
            calls.append(x)
            return x * 2

    assert [4, 4, 4] == [Model().run(2), Model().run(2, verbose=True), Model().run(x=2)]
    assert [2] == calls

    @manager.cache(key=lambda path, **_: path.lower())
    def load(path: str, retries: int = 3) -> str:
        calls.append(path)
        return path

    assert ["A", "A"] == [load("A"), load("a", retries=5)]
    with pytest.raises(InvalidOptionError, match="nonsense"):
        manager.cache(lambda x: x, ignore=["nonsense"])


def test_an_exception_is_not_kept_and_none_is(manager: MemoryManager) -> None:
    """A failure may be gone the next time; None is a result like any other."""
    calls = []

    @manager.cache
    def fickle(x: int) -> None:
        calls.append(x)
        if len(calls) == 1:
            raise OSError("try again")

    with pytest.raises(OSError, match="try again"):
        fickle(1)
    assert (None, None) == (fickle(1), fickle(1))
    assert 2 == len(calls)


def test_results_expire_and_are_evictable(
    manager: MemoryManager,
    pass_time: PassTime,  # noqa: F811
) -> None:
    """They can be computed again, so they never fill a tier for good."""

    @manager.cache(ttl=200, tier="warm")
    def now() -> float:
        return time.monotonic()

    first = now()
    assert first == now()
    assert "warm" == manager.get_tier(now.cache_key())
    assert manager._hierarchy.lookup(now.cache_key()).terms.evictable
    pass_time(250)
    assert first != now()
    with MemoryManager("1 MB", "1 MB", "5 MB") as small:

        @small.cache
        def noise(seed: int) -> Any:
            return np.random.default_rng(seed).integers(0, 255, 400_000, dtype="u1")

        for seed in range(30):
            noise(seed)
        assert 0 < noise.cache_info().results < 30


def test_threads_share_one_computation(manager: MemoryManager) -> None:
    """Sixteen requests for one tile must not decode it sixteen times."""
    calls = []

    @manager.cache
    def slow(x: int) -> int:
        calls.append(x)
        time.sleep(0.2)
        return x + 1

    results: list[int] = []
    threads = [threading.Thread(target=lambda: results.append(slow(1))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [2] * 16 == results
    assert [1] == calls


def test_functions_may_call_themselves_and_each_other(manager: MemoryManager) -> None:
    """A wait that could never end is not begun."""

    @manager.cache
    def fibonacci(n: int) -> int:
        return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

    assert 832_040 == fibonacci(30)
    barrier = threading.Barrier(2)

    @manager.cache
    def ping(depth: int) -> int:
        if depth == 0:
            barrier.wait(60)
        return 0 if depth > 1 else pong(depth + 1)

    @manager.cache
    def pong(depth: int) -> int:
        if depth == 0:
            barrier.wait(60)
        return 0 if depth > 1 else ping(depth + 1)

    threads = [threading.Thread(target=f, args=(0,)) for f in (ping, pong)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


def test_tasks_share_one_computation(manager: MemoryManager) -> None:
    """The same for coroutine functions."""
    calls = []

    @manager.cache
    async def fetch(x: int) -> int:
        calls.append(x)
        await asyncio.sleep(0.1)
        if x < 0:
            raise ValueError("negative")
        return x * 10

    async def main() -> list[int]:
        with pytest.raises(ValueError, match="negative"):
            await fetch(-1)
        return [*await asyncio.gather(*(fetch(1) for _ in range(8))), await fetch(1)]

    assert [10] * 9 == asyncio.run(main())
    assert [-1, 1] == calls
    assert 1 == fetch.cache_info().results


def test_a_result_that_cannot_be_stored_is_named(manager: MemoryManager) -> None:
    """Only the name of the function tells which result it was."""

    @manager.cache
    def makes_a_lock() -> Any:
        return threading.Lock()

    with pytest.raises(UnsupportedTypeError, match=r"^the result of .*makes_a_lock: .*cannot be"):
        makes_a_lock()


def address(array: Any) -> int:
    """Return where an array lies."""
    return int(array.__array_interface__["data"][0])


def test_the_memory_of_a_new_array_becomes_the_result(manager: MemoryManager) -> None:
    """To copy what nothing else refers to would be a waste."""
    made: list[int] = []

    @manager.cache(ignore="made")
    def ones(count: int) -> Any:
        found = np.ones(count)
        made.append(address(found))
        return found

    first = ones(10_000)
    assert [address(first)] == made
    assert not first.flags.writeable
    assert address(first) == address(ones(10_000))

    @manager.cache(ignore="made")
    async def twos(count: int) -> Any:
        found = np.full(count, 2.0)
        made.append(address(found))
        return found

    assert address(asyncio.run(twos(10_000))) == made[-1]


def test_an_array_that_others_refer_to_is_copied(manager: MemoryManager) -> None:
    """Changing it afterwards does not change the result."""
    kept: dict[str, Any] = {}

    @manager.cache(ignore="kept")
    def shared(how: str) -> Any:
        array = np.zeros(10_000)
        kept["array"] = {
            "itself": array,
            "view": array[:1],
            "weak": weakref.ref(array),
            "buffer": memoryview(array),
            "base": array,
        }[how]
        return array[:] if how == "base" else array

    for how in ("itself", "view", "buffer", "base"):
        assert not shared(how).any()
        np.asarray(kept["array"])[:1] = 1
        assert not shared(how).any(), how
    shared("weak")
    assert kept["array"]() is None, "its memory was not taken over"


def test_equal_arguments_of_other_types_have_other_results(manager: MemoryManager) -> None:
    """Also where their hashes are remembered, and when a default has changed."""

    @manager.cache
    def kind(x: Any, y: Any = 0) -> str:
        return f"{type(x).__name__} {type(y).__name__}"

    for _ in range(2):
        assert "int int" == kind(1)
        assert "bool int" == kind(True)
        assert "int bool" == kind(1, False)
        assert "int int" == kind(1, 0)
        assert "float int" == kind(1.0, 0)
        assert "str int" == kind("1", 0)
        assert "NoneType int" == kind(None, 0)
    assert 6 == kind.cache_info().misses
    huge = 10**10_000
    assert ("int int", "int int") == (kind(huge, 0), kind(huge, 0))


def test_a_large_result_that_is_soon_computed_stays_in_ram(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To read it back from the disk would take longer, and so it is not written."""
    calls = []
    sizes = "2 MB", "2 MB", "100 MB"
    now = [0.0]  # A busy machine takes any time for either function.
    monkeypatch.setattr("memories.core.memoize.perf_counter", lambda: now[0])
    known = np.zeros(60_000)

    def zeros(count: int) -> Any:
        calls.append(count)
        return known[:count]

    def slow(count: int) -> Any:
        calls.append(count)
        now[0] += 60.0
        return np.zeros(count)

    for runs in (1, 2):
        with MemoryManager(*sizes, storage_path=tmp_path) as made:
            fast, late = (
                made.cache(version=1, ignore=("calls", "known"))(zeros),
                made.cache(version=1)(slow),
            )
            for count in (50_000, 100):
                fast(count), late(count)
                fast(count), late(count)
            assert "computed again in less time" in str(made.explain(fast.cache_key(50_000)))
            assert "computed again" not in str(made.explain(late.cache_key(50_000)))
            for count in range(50_001, 50_050):
                fast(count)
            assert fast.cache_info().results < 20, "they are dropped for room"
        assert calls.count(50_000) == 1 + runs, "the slow one once, the other one in each run"
        assert calls.count(100) == 2, "a small result is kept in any case"
