"""Results of `manager.cache` that forked workers compute are kept by their parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.forking import in_child
from tests.support.holdings import nothing_left
from tests.support.waiting import until

from memories import MemoryManager
from memories.core import worker_results

pytestmark = pytest.mark.filterwarnings("ignore:This process.*fork:DeprecationWarning")


class Config:
    """An object that only pickle can store."""

    def __init__(self, size: int) -> None:
        self.size = size


@contextmanager
def workers(count: int = 2) -> Iterator[Pool]:
    with multiprocessing.get_context("fork").Pool(count) as pool:
        yield pool
        pool.close()  # They end by themselves: the end of `with` kills them.
        pool.join()


@pytest.fixture
def calls(tmp_path: Path) -> Callable[[], int]:
    """Return a function that counts the calls of `counted` of all processes."""
    (tmp_path / "calls").touch()
    return lambda: (tmp_path / "calls").stat().st_size


def counted(path: Path, make: Callable[[int], Any]) -> Callable[[int], Any]:
    def compute(number: int) -> Any:
        with (path / "calls").open("ab", buffering=0) as file:
            file.write(b".")
        return make(number)

    return compute


_function: Any = None  # Pools find what they call by its name in a module.


def call(number: int) -> Any:
    return _function(number)


def slowly(
    manager: MemoryManager, monkeypatch: pytest.MonkeyPatch, wait: Callable[[], object]
) -> None:
    """Let `wait` come before each store of what a worker has sent."""
    results: Any = manager._worker_results
    store = results._store
    monkeypatch.setattr(results, "_store", lambda *result: (wait(), store(*result)))


@pytest.fixture
def cached(tmp_path: Path) -> Iterator[Callable[..., MemoryManager]]:
    """Return a function that opens a manager and caches a function, for `call`."""
    opened: list[MemoryManager] = []

    def open_with(make: Callable[[int], Any], *, path: Path | None = None) -> MemoryManager:
        global _function
        manager = MemoryManager("20 MB", "20 MB", "200 MB", storage_path=path)
        opened.append(manager)
        _function = manager.cache(version=1)(counted(tmp_path, make))
        return manager

    yield open_with
    for manager in opened:
        manager.cleanup()


def test_each_result_is_computed_once_by_all_workers_together(
    cached: Callable[..., MemoryManager], calls: Callable[[], int]
) -> None:
    """The first epoch of a data set computes, and the workers of the second find the results."""
    manager = cached(lambda number: np.full(50_000, number))
    for _ in range(3):
        with workers() as pool:
            found = pool.map(call, range(40), chunksize=1)
        assert all(np.array_equal(np.full(50_000, n), array) for n, array in enumerate(found))
        manager.flush()  # It waits for what workers have sent.
    assert 40 == calls()
    assert 40 == _function.cache_info().results
    assert np.array_equal(np.full(50_000, 7), call(7))
    assert 40 == calls()


@pytest.mark.parametrize("named", [True, False])
def test_workers_that_stay_find_each_others_results(
    cached: Callable[..., MemoryManager], calls: Callable[[], int], tmp_path: Path, named: bool
) -> None:
    """As with `persistent_workers=True`: they were forked before there was any result."""
    cached(lambda number: [number] * 100, path=tmp_path / "store" if named else None)

    def finds_all() -> bool:
        before = calls()
        assert [[n] * 100 for n in range(20)] == pool.map(call, range(20), chunksize=1)
        return before == calls()

    with workers() as pool:
        until(finds_all)


def test_results_of_workers_are_durable_when_the_manager_ends(
    cached: Callable[..., MemoryManager],
    calls: Callable[[], int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was sent just before the end is stored."""
    for expected in (0, 12):
        manager = cached(lambda number: {"config": [number] * 3}, path=tmp_path / "store")
        assert expected == _function.cache_info().results
        slowly(manager, monkeypatch, lambda: time.sleep(0.05))
        with workers() as pool:
            assert [{"config": [n] * 3} for n in range(12)] == pool.map(call, range(12))
        manager.flush()
        assert 12 == _function.cache_info().results
        manager.cleanup()
    assert 12 == calls()


def test_objects_that_are_pickled_come_back(
    cached: Callable[..., MemoryManager], calls: Callable[[], int]
) -> None:
    """The worker signs them with the key of the user, and the parent verifies the signature."""
    manager = cached(Config)
    with workers(1) as pool:
        assert 5 == pool.apply(call, (5,)).size
    manager.flush()
    assert (5, 1) == (call(5).size, calls())


def test_nothing_is_left_of_a_manager_whose_workers_sent_results(tmp_path: Path) -> None:
    """No thread, socket or lock; and a manager without cached functions does not listen."""
    others = set(threading.enumerate())  # A manager that another test keeps open may listen.
    with nothing_left(seconds=30.0):
        manager = MemoryManager("20 MB", "20 MB", "200 MB", storage_path=tmp_path / "store")
        double = manager.cache(version=1)(lambda number: [number] * 2)
        assert "[1, 1]" == in_child(lambda: double(1))
        assert "[2, 2]" == in_child(lambda: double(2))
        manager.cleanup()
        assert "memories-worker-results" not in _new_threads(others)
    with MemoryManager("20 MB", "20 MB", "200 MB") as manager:
        in_child(lambda: manager.get("absent"))
        assert "memories-worker-results" not in _new_threads(others)


def _new_threads(others: set[threading.Thread]) -> set[str]:
    return {one.name for one in set(threading.enumerate()) - others}


def test_a_large_result_stays_with_its_worker(
    cached: Callable[..., MemoryManager],
    calls: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It would be in RAM twice until it is stored."""
    monkeypatch.setattr(worker_results, "MAX_RESULT", 1000)
    manager = cached(lambda number: np.zeros(number))
    for _ in range(2):
        with workers() as pool:
            assert [10, 1000] == [len(array) for array in pool.map(call, (10, 1000))]
        manager.flush()
    assert 3 == calls()


def test_workers_go_on_where_the_parent_does_not_take_their_results(
    cached: Callable[..., MemoryManager],
    calls: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its disk hangs, for example: a worker waits for a moment, and returns what it computed."""
    monkeypatch.setattr(worker_results, "SEND_SECONDS", 0.01)
    manager, hangs = cached(lambda number: [number] * 10), threading.Event()
    slowly(manager, monkeypatch, lambda: hangs.wait(60))
    with workers() as pool:
        assert [[n] * 10 for n in range(600)] == pool.map(call, range(600))
    hangs.set()
    until(lambda: 0 < _function.cache_info().results)
    manager.flush()
    assert _function.cache_info().results < 600 == calls()


def test_a_worker_outlives_its_parent(tmp_path: Path) -> None:
    """No process reads what it sends: it notices, and goes on."""
    done = tmp_path / "done"

    def parent() -> None:
        manager = MemoryManager("20 MB", "20 MB", "200 MB", storage_path=tmp_path / "store")
        double = manager.cache(version=1)(lambda number: [number] * 2)
        if os.fork() == 0:
            until(lambda: os.getppid() != leader)
            results = [double(number) for number in range(1000)]
            done.write_text(str(sum(map(sum, results))))
            os._exit(0)

    leader = os.fork()
    if leader == 0:
        leader = os.getpid()
        parent()
        os.kill(leader, signal.SIGKILL)
    os.waitpid(leader, 0)
    until(done.exists)
    until(lambda: done.read_text() == str(1000 * 999))


def test_a_killed_worker_leaves_the_parent_whole(
    cached: Callable[..., MemoryManager], tmp_path: Path
) -> None:
    """At any moment: what it had sent is kept or not, and others are served."""
    manager = cached(lambda number: np.full(100_000, number))
    for delay in (0.0, *np.linspace(0.001, 0.2, 11)):
        worker = os.fork()
        if worker == 0:
            for number in range(10**6):
                call(number)
        if delay:
            time.sleep(delay)
        else:
            until(lambda: 0 < _function.cache_info().results)
        os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)
        manager.flush()
    assert all(np.array_equal(np.full(100_000, n), call(n)) for n in range(20))
    assert [] == manager.check()
