"""`memories.cached`: what users of `functools` and `cachetools` write, and the default manager."""

from __future__ import annotations

import copy
import functools
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.forking import in_child

import memories
from memories import InvalidOptionError, MemoryManager, SharedMemoryManager, caching
from memories.core.late_results import LateResults


@pytest.fixture(autouse=True)
def fresh_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let each test begin without a default manager, in a directory without configuration."""
    monkeypatch.chdir(tmp_path)
    _forget()  # Another file may have made one in this process.
    yield
    _forget()


def _forget() -> None:
    if caching._made:
        caching._made[0].cleanup()
        caching._made.clear()


@pytest.fixture
def manager() -> Iterator[MemoryManager]:
    """Return a manager of the test."""
    with MemoryManager("10 MB", "10 MB", "100 MB") as made:
        yield made


def test_a_bare_decorator_makes_the_manager_at_the_first_call() -> None:
    """A library that decorates functions makes no directory and no thread when it is imported."""
    calls: list[int] = []

    @memories.cached
    def square(x: int) -> int:
        calls.append(x)
        return x * x

    @memories.cached(tier="warm", ttl=60)
    def cube(x: int) -> int:
        return x**3

    assert not caching._made
    assert [9, 9, 27] == [square(3), square(3), cube(3)]
    assert [3] == calls
    assert memories.default() is caching._made[0]
    assert 2 == len(memories.default())
    assert "warm" == memories.default().get_tier(cube.cache_key(3))


def test_it_has_what_functions_of_functools_have(manager: MemoryManager) -> None:
    """Code that reports or clears caches finds the names that it knows."""

    @memories.cached(manager)
    def square(x: float) -> float:
        return x * x

    assert [4, 4, 4.0] == [square(2), square(2), square(2.0)]
    info = square.cache_info()
    assert (1, 2, 2, None) == (info.hits, info.misses, info.currsize, info.maxsize)
    parameters = square.cache_parameters()
    assert (None, True) == (parameters["maxsize"], parameters["typed"])
    parameters["ttl"] = 5
    assert square.cache_parameters()["ttl"] is None
    square.cache_clear()
    assert (0, 0, 0) == square.cache_info()[:3]
    assert 25 == square.__wrapped__(5)
    assert manager.cache(square.__wrapped__).cache_key(5) == square.cache_key(5), "one mechanism"


def test_methods_and_static_methods(manager: MemoryManager) -> None:
    """The decorator may be above or below those of the class."""

    class Model:
        scale = 2

        @memories.cached(manager, ignore=["self"])
        def method(self, x: int) -> int:
            return self.scale * x

        @memories.cached
        @staticmethod
        def above(x: int) -> int:
            return x

    assert [4, 4, 7] == [Model().method(2), Model().method(2), Model.above(7)]


@pytest.mark.parametrize("name", ["hashkey", "methodkey", "typedkey", "typedmethodkey"])
def test_the_keys_of_cachetools(manager: MemoryManager, name: str) -> None:
    """A program keeps its `key=`; those for methods leave the object out."""
    keys = pytest.importorskip("cachetools.keys", reason="its functions are the argument")
    calls: list[Any] = []

    @memories.cached(manager, key=getattr(keys, name))
    def work(model: str, x: int, y: int = 0) -> int:
        calls.append((model, x, y))
        return x + y

    assert [3, 3, 4] == [work("a", 1, y=2), work("a", 1, y=2), work("a", 1, y=3)]
    assert 3 == work("b", 1, y=2)
    assert (2 if "method" in name else 3) == len(calls)


@pytest.mark.parametrize("which", ["lock", "condition"])
def test_a_lock_is_held_for_reads_and_stores_only(manager: MemoryManager, which: str) -> None:
    """A function that takes the lock itself, as cachetools allows, does not wait for itself."""
    guard = threading.Condition(threading.Lock())
    seen: list[bool] = []

    class Watched:
        def __enter__(self) -> None:
            guard.acquire()
            seen.append(True)

        def __exit__(self, *error: object) -> None:
            guard.release()

    @memories.cached(manager, info=True, **{which: Watched()})
    def work(x: int) -> int:
        with guard:
            return x

    assert [1, 1] == [work(1), work(1)]
    assert len(seen) >= 3  # Two reads and a store.
    work.cache_clear()
    assert 0 == len(manager)


def test_a_wrong_cache_is_named() -> None:
    """A mapping of cachetools has no bytes to limit."""
    with pytest.raises(InvalidOptionError, match="must be a manager"):
        memories.cached({})  # type: ignore[call-overload]
    with pytest.raises(InvalidOptionError, match="tier="):
        memories.cached(tier="lukewarm")(len)  # type: ignore[call-overload]


def test_the_configuration_makes_the_default_manager(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As that of `MemoryManager()`; with a path, all processes of the program share it."""
    (tmp_path / "memories.toml").write_text('warm_memory_size = "3 MB"\n')
    first = memories.default()
    assert isinstance(first, MemoryManager) and first.path is None
    assert 3_000_000 == first.stats().tiers["warm"].configured_bytes
    first.cleanup()
    (tmp_path / "memories.toml").write_text('storage_path = "kept"\ncold_memory_size = "50 MB"\n')
    second = memories.default()
    assert isinstance(second, SharedMemoryManager) and second.path == tmp_path / "kept"
    second.cleanup()
    monkeypatch.setenv("MEMORIES_READ_ONLY", "true")
    assert memories.default().read_only  # type: ignore[union-attr]


PROGRAM = """
import sys, memories
@memories.cached
def work(x):
    print("computed")
    return [x]
print(work(5))
"""


def test_results_outlive_the_process_where_the_configuration_says_so(tmp_path: Path) -> None:
    """Closed at the exit, without a warning; the next run finds them."""
    (tmp_path / "memories.toml").write_text('storage_path = "kept"\n')
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, "-W", "error", "program.py"]
    runs = [subprocess.run(command, cwd=tmp_path, capture_output=True, text=True) for _ in range(2)]
    assert ["", ""] == [run.stderr for run in runs]
    assert ["computed\n[5]\n", "[5]\n"] == [run.stdout for run in runs]


def test_a_forked_child_finds_results_and_computes_others() -> None:
    """Its parent keeps what it computes; a child that was forked before has its own manager."""

    @memories.cached
    def work(x: int) -> int:
        return x

    assert "[5]" == in_child(lambda: [work(5)])
    assert not caching._made
    work(1)
    assert "[1, 2, 1, 2]" == in_child(lambda: [work(1), work(2), *work.cache_info()[:2]])


def test_copies_use_the_default_manager_of_their_process() -> None:
    """Neither pickling nor copying opens a store."""
    results = LateResults(memories.default)
    assert isinstance(pickle.loads(pickle.dumps(results)), LateResults)
    assert isinstance(copy.deepcopy(results), LateResults)
    assert not caching._made


def test_a_closed_default_manager_is_replaced() -> None:
    """`memories.default().cleanup()` empties it; the functions go on."""

    @memories.cached
    def work(x: int) -> Any:
        return np.full(3, x)

    work(1)
    memories.default().cleanup()
    assert [1, 1, 1] == work(1).tolist()
    assert 2 == work.cache_info().misses


def test_partial_objects_and_many_threads() -> None:
    """The default manager is made once, however many threads call first."""
    work = memories.cached(functools.partial(pow, 2))
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(work(5))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [32] * 8 == found
    assert 1 == len(caching._made)
