"""A cached function can be sent to any process: it finds results there, or computes them."""

from __future__ import annotations

import copy
import os
import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memories import KeyNotFoundError, MemoryManager, SharedMemoryManager
from memories.core.memoize import memoize
from memories.core.result_store import NoResultStore

cloudpickle = pytest.importorskip("cloudpickle", reason="cloudpickle is not installed")
SIZES = ("1 MB", "4 MB", "16 MB")


def function_of(manager: Any) -> Any:
    """Return a function that pickle cannot find by its name, as in a notebook."""

    @manager.cache
    def doubled(x: int, *, scale: float = 2.0) -> tuple[float, int]:
        return x * scale, os.getpid()

    return doubled


def call(pickled: bytes, *numbers: int) -> tuple[list[tuple[float, int]], str, int]:
    """Call a pickled function in a worker; return its results, a key, and who called."""
    function = pickle.loads(pickled)
    found = [function(number) for number in numbers]
    return found, function.cache_key(numbers[0]), os.getpid()


def in_worker(kind: str, function: Any, *numbers: int) -> Any:
    with ProcessPoolExecutor(1, mp_context=get_context(kind)) as pool:
        return pool.submit(call, cloudpickle.dumps(function), *numbers).result(timeout=60)


@pytest.mark.parametrize("kind", ["fork", "spawn"])
def test_a_shared_store_keeps_what_any_worker_computes(tmp_path: Path, kind: str) -> None:
    """The second epoch, in whatever processes, computes nothing."""
    with SharedMemoryManager(tmp_path / "store", cold_memory_size="16 MB") as manager:
        doubled = function_of(manager)
        here = doubled(1)
        found, key, worker = in_worker(kind, doubled, 1, 2)
        assert (here, doubled.cache_key(1)) == (found[0], key)
        assert (4.0, worker) == found[1] == doubled(2)
        assert worker != os.getpid()
        assert found == in_worker(kind, doubled, 1, 2)[0]


def test_a_reader_finds_results_and_computes_what_is_absent(tmp_path: Path) -> None:
    """A worker of a plain manager may not write, but it must not fail either."""
    with MemoryManager(*SIZES, storage_path=tmp_path / "store") as manager:
        doubled = function_of(manager)
        here = doubled(1)
        manager.flush()
        found, key, worker = in_worker("spawn", doubled, 1, 2)
        assert ([here, (4.0, worker)], doubled.cache_key(1)) == (found, key)
        assert (4.0, os.getpid()) == doubled(2)


def test_without_a_directory_a_worker_computes() -> None:
    """It has no store that it could open."""
    with MemoryManager(*SIZES) as manager:
        doubled = function_of(manager)
        assert (2.0, os.getpid()) == doubled(1)
        found, _, worker = in_worker("spawn", doubled, 1, 1)
        assert [(2.0, worker)] * 2 == found
        assert [(2.0, os.getpid())] == in_worker("fork", doubled, 1)[0]  # It has the parent's RAM.


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda it: pickle.loads(
    cloudpickle.dumps(it))], ids=["copy", "deepcopy", "pickle"])  # fmt: skip
def test_a_copy_in_the_process_has_the_same_store(copied: Callable[[Any], Any]) -> None:
    """scikit-learn copies an estimator before each fit, with what it refers to."""
    with MemoryManager(*SIZES) as manager:
        doubled = function_of(manager)
        first = doubled(1)
        again = copied({"function": doubled})["function"]
        assert doubled.cache_key(7) == again.cache_key(7)
        assert first == again(1) and 1 == again.cache_info().hits
        again(8)
        assert 2 == doubled.cache_info().results
        assert copy.deepcopy(manager) is manager is copy.copy(manager)


def test_a_copied_shared_manager_is_itself(tmp_path: Path) -> None:
    with SharedMemoryManager(tmp_path / "store", cold_memory_size="16 MB") as manager:
        assert copy.deepcopy(manager) is manager is copy.copy(manager)


def test_a_store_that_keeps_nothing_returns_what_others_return() -> None:
    """A worker without a store gets read-only arrays, too: its code must not differ."""
    store = NoResultStore()
    cached = memoize(store, np.zeros)
    assert not cached(3).flags.writeable
    assert 0 == cached.cache_info().results == store.delete_prefix("cache/")
    assert not store.exists("a") and None is store.retrieve("a", None)
    with pytest.raises(KeyNotFoundError):
        store.get_tier("a")
    assert isinstance(pickle.loads(pickle.dumps(store)), NoResultStore)
