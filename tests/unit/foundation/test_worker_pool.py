"""Tasks run once, in a thread of the pool or in the thread that asks for the result."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from tests.support.forking import in_child
from tests.support.waiting import until

from memories.errors import ClosedError
from memories.foundation import worker_pool as module
from memories.foundation.periodic import BackgroundThread
from memories.foundation.worker_pool import WorkerPool, is_abandoned

LONG = 60.0  # Only what hangs takes so long.


@pytest.fixture
def workers() -> Iterator[WorkerPool]:
    made = WorkerPool(4, "test")
    yield made
    assert made.close(LONG)
    # A thread that had nothing to do has left its pool a moment before it ends.
    until(lambda: not any(one.name == "memories-test" for one in threading.enumerate()))


def test_tasks_are_done_at_once(workers: WorkerPool) -> None:
    """None of four slow nodes waits for another."""
    together = threading.Barrier(4)
    tasks = [workers.submit(together.wait, LONG) for _ in range(4)]
    assert [0, 1, 2, 3] == sorted(task.result() for task in tasks)


def test_threads_are_reused_and_end_when_idle(
    workers: WorkerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that asked its nodes once does not keep threads for it."""
    monkeypatch.setattr(module, "IDLE_SECONDS", 0.05)
    for number in range(50):
        task = workers.submit(abs, -number)
        assert number == task.result()
    until(lambda: not workers._threads)
    assert 0 == workers._idle + workers._tasks.qsize()
    assert 7 == workers.submit(abs, -7).result()


def test_a_failure_is_raised_where_the_result_is_wanted(workers: WorkerPool) -> None:
    """And the thread goes on: the next task of another caller is not lost."""
    task = workers.submit(int, "no number")
    with pytest.raises(ValueError, match="no number"):
        task.result()
    assert 5 == workers.submit(int, "5").result()


def test_without_any_thread_the_caller_does_it(
    workers: WorkerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that is out of threads still asks its nodes, one after the other."""

    def refuse(_: BackgroundThread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(BackgroundThread, "start", refuse)
    assert list(range(20)) == list(workers.map(abs, range(20), ahead=8))


def test_a_task_may_wait_for_tasks_of_its_own(workers: WorkerPool) -> None:
    """More of them than there are threads would wait for each other for ever."""

    def outer(number: int) -> int:
        return sum(workers.submit(abs, -number).result() for _ in range(5))

    assert [5 * n for n in range(16)] == list(workers.map(outer, range(16), ahead=16))


def test_tasks_whose_results_are_not_wanted_do_not_begin(workers: WorkerPool) -> None:
    """The first that fails ends it, once those at work have ended."""
    begun: list[int] = []

    def work(number: int) -> None:
        begun.append(number)
        time.sleep(0.01)
        if number == 2:
            raise ValueError(number)

    with pytest.raises(ValueError, match="2"):
        list(workers.map(work, range(1000), ahead=8))
    count = len(begun)
    assert count < 20
    time.sleep(0.05)
    assert count == len(begun)


def test_a_thread_that_dies_at_its_work_is_noticed(
    workers: WorkerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that waits for its result gets an error within seconds."""
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.05)
    task = workers.submit(abs, -1)
    task.result()
    lost = module.Task(lambda: 1)
    dead = threading.Thread(target=int)
    dead.start()
    dead.join()
    lost._by[None] = dead  # As if it had died between taking the task and its end.
    with pytest.raises(RuntimeError, match="died"):
        lost.result()


def test_an_interrupt_in_the_callers_own_work_reaches_the_caller(workers: WorkerPool) -> None:
    """The caller raises it, as if it had run the task outside a pool."""

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        workers.submit(interrupted).result()


@contextmanager
def interrupted_after(
    ready: threading.Event, pressed: threading.Event | None = None
) -> Iterator[None]:
    """Press Ctrl-C in the block, once it is ready for that; set `pressed` afterwards."""

    def press() -> None:
        assert ready.wait(LONG)
        time.sleep(0.05)  # Until it waits, which cannot be observed.
        os.kill(os.getpid(), signal.SIGINT)
        if pressed is not None:
            pressed.set()

    pressing = threading.Thread(target=press)
    pressing.start()
    with pytest.raises(KeyboardInterrupt):
        yield
    pressing.join()


def test_an_interrupted_caller_abandons_tasks_that_wait_for_another_machine() -> None:
    """It goes on at once, new threads replace theirs, and the tasks and their parts can tell."""
    workers = WorkerPool(2, "test", remote=True)
    answer, begun, abandoned = threading.Event(), threading.Event(), []
    asking = set[int]()

    def ask(number: int) -> int:
        if threading.current_thread() is not threading.main_thread():  # It may help, if it is fast.
            asking.add(threading.get_ident())
        if len(asking) == 2:
            begun.set()
        assert answer.wait(LONG)
        abandoned.append(is_abandoned())
        return number

    def in_parts(number: int) -> int:
        return sum(workers.map(ask, [number], ahead=1))

    for work in (ask, in_parts):
        asking.clear()
        begun.clear()
        began = time.monotonic()
        with interrupted_after(begun):
            list(workers.map(work, range(8), ahead=8))
        assert time.monotonic() - began < LONG / 2
        together = threading.Barrier(2)
        others = [workers.submit(together.wait, LONG) for _ in range(2)]
        for one in others:
            one.wait()
        assert [0, 1] == sorted(task.result() for task in others)
        assert not is_abandoned()
    answer.set()
    until(lambda: len(abandoned) == 4)
    assert all(abandoned)
    assert workers.close(LONG)
    until(lambda: not any(one.name == "memories-test" for one in threading.enumerate()))
    assert 0 == workers._tasks.qsize() and not workers._threads


def test_an_interrupted_caller_waits_for_tasks_that_use_what_it_closes(workers: WorkerPool) -> None:
    """Threads that read a file must not go on after its descriptor has become another's."""
    begun, pressed, at_work = threading.Event(), threading.Event(), set[int]()

    def read(number: int) -> None:
        at_work.add(number)
        try:
            if threading.current_thread() is not threading.main_thread():
                begun.set()
            assert pressed.wait(LONG)
            time.sleep(0.1)  # It goes on for a while.
        finally:
            at_work.discard(number)

    with interrupted_after(begun, pressed):
        list(workers.map(read, range(8), ahead=8))
    assert not at_work


def test_the_arguments_of_a_task_are_released(workers: WorkerPool) -> None:
    """The memory of a value must not live until the next call."""
    array = np.zeros(10)
    gone = weakref.ref(array)
    workers.submit(len, array).result()
    del array
    until(lambda: gone() is None)


def test_what_a_task_failed_with_needs_no_collector(workers: WorkerPool) -> None:
    """A connection that an error refers to is to be closed by the end, not some time later."""

    def fail(array: np.ndarray) -> None:
        raise ValueError(array.size)

    array = np.zeros(10)
    gone = weakref.ref(array)
    gc.disable()
    try:
        for task in (workers.submit(fail, array), module.Task(lambda array=array: fail(array))):
            with pytest.raises(ValueError, match="10"):
                task.result()
        del array, task
        until(lambda: gone() is None)
    finally:
        gc.enable()


def test_a_thread_that_waits_for_an_abandoned_task_gets_the_error() -> None:
    """The end of an archive must not wait for an answer that may take a minute."""
    workers = WorkerPool(1, "test", remote=True)
    answer, begun = threading.Event(), threading.Event()

    def ask() -> None:
        begun.set()
        assert answer.wait(LONG)

    task = workers.submit(ask)
    assert begun.wait(LONG)
    threading.Timer(0.05, task.fail, [ClosedError("closed")]).start()
    with pytest.raises(ClosedError, match="closed"):
        task.result()
    assert workers.close(0.0)
    answer.set()


def test_after_the_end_there_are_no_tasks(workers: WorkerPool) -> None:
    """A late caller gets an error, and does not wait."""
    assert workers.close(LONG)
    with pytest.raises(ClosedError):
        workers.submit(abs, 1)


def test_a_forked_child_does_its_tasks_itself(workers: WorkerPool) -> None:
    """It has none of its parent's threads, and must not wait for them."""
    workers.submit(abs, 1).result()
    assert "[0, 1, 2]" == in_child(lambda: list(workers.map(abs, range(3), ahead=3)))
