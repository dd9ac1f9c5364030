"""A pickled manager whose store cannot be opened where it is unpickled."""

from __future__ import annotations

import multiprocessing
import pickle
from pathlib import Path

import pytest

from memories import MemoryManager, StorageError, UnsupportedTypeError


def make(store: Path) -> MemoryManager:
    """Return a manager of the store."""
    return MemoryManager(0.001, 0.001, 0.01, storage_path=store)


def number_of_keys(manager: MemoryManager) -> int:
    """Return the number of keys; a worker process runs this."""
    return len(manager)


def test_a_worker_reports_that_it_cannot_open_the_store(tmp_path: Path) -> None:
    """An error while unpickling would end the worker, and `map` would wait for ever."""
    with (
        make(tmp_path / "store") as manager,
        multiprocessing.get_context("spawn").Pool(1) as pool,
    ):
        manager.store("cold", "c", "cold")
        assert [1] == pool.map_async(number_of_keys, [manager]).get(60)
        (tmp_path / "store").rename(tmp_path / "elsewhere")
        with pytest.raises(StorageError, match="store"):
            pool.map_async(number_of_keys, [manager]).get(60)
        (tmp_path / "elsewhere").rename(tmp_path / "store")


def test_a_manager_that_was_not_opened_raises_the_reason(tmp_path: Path) -> None:
    """It can be shown and cleaned up; everything else raises."""
    with make(tmp_path / "store") as manager:
        pickled = pickle.dumps(manager)
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    with pickle.loads(pickled) as reader:
        assert isinstance(reader, MemoryManager)
        assert "not opened" in repr(reader)
        for act in (lambda: reader["a"], lambda: reader.store("a", 1), lambda: len(reader)):
            with pytest.raises(StorageError, match="store"):
                act()
        assert not hasattr(reader, "no_such_method")
    (tmp_path / "elsewhere").rename(tmp_path / "store")


def test_a_manager_without_a_store_cannot_be_pickled() -> None:
    """Its values are gone with it: there is nothing to read in another process."""
    with MemoryManager(0.001, 0.001, 0.01) as manager:
        with pytest.raises(UnsupportedTypeError, match="give it a storage_path") as caught:
            pickle.dumps(manager)
        assert isinstance(caught.value, TypeError)


def test_a_pool_reports_that_a_manager_cannot_be_pickled() -> None:
    """The call fails in this process: no worker waits, and none is waited for."""
    with (
        MemoryManager(0.001, 0.001, 0.01) as manager,
        multiprocessing.get_context("spawn").Pool(1) as pool,
        pytest.raises(UnsupportedTypeError, match="give it a storage_path"),
    ):
        pool.map_async(number_of_keys, [manager]).get(60)


def test_pickling_says_what_the_other_process_does_not_see(tmp_path: Path) -> None:
    """Values that are only in RAM would be absent there, without a word."""
    with make(tmp_path / "store") as manager:
        manager.store_many({"a": 1, "b": 2}, "warm")
        with pytest.warns(UserWarning, match="2 values are only in RAM: call flush") as warned:
            pickled = pickle.dumps(manager)
        assert [__file__] == [one.filename for one in warned]
        with pickle.loads(pickled) as reader:
            assert [] == list(reader)
        manager.flush()
        with pickle.loads(pickle.dumps(manager)) as reader:
            assert ["a", "b"] == list(reader)
