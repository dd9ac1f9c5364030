"""Results of a shared store: of all processes that need one at the same time, one computes it."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

import pytest
from tests.support.waiting import until

from memories import SharedMemoryManager
from memories.core.single_flight import Computation
from memories.sharing.computation_locks import FILE_NAME, ComputationLocks

SIZES: dict[str, Any] = {
    "hot_memory_size": "20MB", "warm_memory_size": "20MB", "cold_memory_size": "100MB",
}  # fmt: skip
LIMIT = 90  # Only what hangs takes so long.
LARGE = 99
CONTEXT = multiprocessing.get_context("fork")


def serve(
    asked: Connection, folder: Path, seconds: float, argument: int, compute_seconds: float
) -> None:
    """Call a cached function each time it is asked, and answer with the size of what it gets."""
    manager = SharedMemoryManager(folder / "store", compute_seconds=compute_seconds, **SIZES)

    @manager.cache(version=1, ignore=["folder", "seconds"])
    def slow(x: int) -> Any:
        descriptor = os.open(folder / "calls", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        os.close(descriptor)
        end = time.monotonic() + seconds
        while time.monotonic() < end and not (folder / "enough").exists():
            time.sleep(0.005)
        if x < 0:
            raise ValueError("it fails")
        return bytes(110_000_000) if x == LARGE else [x]

    asked.send("ready")
    while asked.poll(LIMIT):
        asked.recv()
        try:
            asked.send(len(slow(argument)))
        except (ValueError, KeyboardInterrupt) as error:
            asked.send(str(error) or "interrupted")


class Processes:
    """Processes that have a cached function in common."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[tuple[ForkProcess, Connection]] = []

    def start(
        self, count: int, *, seconds: float, argument: int = 1, compute_seconds: float = 600.0
    ) -> None:
        """Start processes, and wait until each has the store open."""
        for _ in range(count):
            here, there = CONTEXT.Pipe()
            values = (there, self.folder, seconds, argument, compute_seconds)
            process = CONTEXT.Process(target=serve, args=values, daemon=True)
            process.start()
            there.close()
            self.started.append((process, here))
        assert ["ready"] * count == [self.answer(one) for one in range(-count, 0)]

    def ask(self, number: int) -> None:
        """Let a process call the function."""
        self.started[number][1].send(None)

    def answer(self, number: int) -> Any:
        """Return what a process answers next."""
        connection = self.started[number][1]
        assert connection.poll(LIMIT), "it never answers"
        return connection.recv()

    def calls(self) -> list[int]:
        """Return the processes that began to compute, in their order."""
        path = self.folder / "calls"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def let_compute(self) -> None:
        """Let every computation end now, however long it was to take."""
        (self.folder / "enough").touch()

    def kill(self, pid: int) -> None:
        """End a process at once."""
        process = next(process for process, _ in self.started if process.pid == pid)
        process.kill()
        process.join(LIMIT)


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Return what starts processes, and ends them after the test."""
    made = Processes(tmp_path)
    yield made
    for process, connection in made.started:
        process.kill()
        process.join(LIMIT)
        process.close()
        connection.close()


def test_one_process_computes_for_all(processes: Processes) -> None:
    """Workers of a server that all miss the same result: one computes, and all have it."""
    processes.start(4, seconds=0.5)
    for one in range(4):
        processes.ask(one)
    assert [1] * 4 == [processes.answer(one) for one in range(4)]
    assert 1 == len(processes.calls())


def test_a_killed_process_is_replaced_by_one(processes: Processes) -> None:
    """The kernel releases the lock with the process; of those that wait, one computes."""
    processes.start(1, seconds=0.1, argument=5)  # The writer, which computes nothing.
    processes.start(3, seconds=LIMIT)
    for one in (1, 2, 3):
        processes.ask(one)
    until(lambda: len(processes.calls()) == 1)
    for turn in (2, 3):
        processes.kill(processes.calls()[-1])
        until(lambda turn=turn: len(processes.calls()) == turn)  # type: ignore[misc]
    assert 3 == len(set(processes.calls()))


def test_an_interrupted_computation_is_taken_over(processes: Processes) -> None:
    """Ctrl-C ends the call and not the process, which finds the result of the other one later."""
    processes.start(1, seconds=0.1, argument=5)  # The writer.
    processes.start(2, seconds=LIMIT)
    for one in (1, 2):
        processes.ask(one)
    until(lambda: len(processes.calls()) == 1)
    os.kill(processes.calls()[0], signal.SIGINT)
    until(lambda: len(processes.calls()) == 2)
    processes.let_compute()
    answers = {one: processes.answer(one) for one in (1, 2)}
    assert {"interrupted", 1} == set(answers.values())
    again = next(one for one, answer in answers.items() if answer == "interrupted")
    processes.ask(again)
    assert 1 == processes.answer(again)
    assert 2 == len(set(processes.calls())) == len(processes.calls())


def test_a_writer_that_is_killed_while_it_computes(processes: Processes) -> None:
    """The next process takes over the store, and one computes."""
    processes.start(1, seconds=LIMIT)
    processes.ask(0)
    until(lambda: len(processes.calls()) == 1)
    processes.start(2, seconds=0.5)
    for one in (1, 2):
        processes.ask(one)
    time.sleep(0.3)
    assert 1 == len(processes.calls())
    processes.kill(processes.calls()[0])
    assert [1] * 2 == [processes.answer(one) for one in (1, 2)]
    assert 2 == len(processes.calls())


def test_a_process_that_hangs_is_waited_for_within_bounds(processes: Processes) -> None:
    """A process that is stopped holds its lock; after `compute_seconds` another one computes."""
    processes.start(1, seconds=0.1, argument=5)  # The writer.
    processes.start(1, seconds=LIMIT)
    processes.ask(1)
    until(lambda: len(processes.calls()) == 1)
    hanging = processes.calls()[0]
    os.kill(hanging, signal.SIGSTOP)
    processes.start(1, seconds=0.1, compute_seconds=0.3)
    processes.ask(2)
    assert 1 == processes.answer(2)
    assert 2 == len(processes.calls())
    processes.let_compute()
    os.kill(hanging, signal.SIGCONT)
    assert 1 == processes.answer(1)


@pytest.mark.parametrize(("argument", "answer"), [(-1, "it fails"), (LARGE, 110_000_000)])
def test_without_a_result_each_computes(processes: Processes, argument: int, answer: Any) -> None:
    """A call that raises, or a result that is too large to be kept, releases the next process."""
    processes.start(3, seconds=0.05, argument=argument)
    for one in range(3):
        processes.ask(one)
    assert [answer] * 3 == [processes.answer(one) for one in range(3)]
    assert 3 == len(set(processes.calls()))


@pytest.fixture
def locks(tmp_path: Path) -> Iterator[Callable[[], ComputationLocks]]:
    """Return what makes locks of one directory."""
    made: list[ComputationLocks] = []

    def make() -> ComputationLocks:
        made.append(ComputationLocks(tmp_path, 600.0, 30.0))
        return made[-1]

    yield make
    for one in made:
        one.close()


def in_child(work: Callable[[], bool]) -> bool:
    """Return what a forked child gets."""
    pid = os.fork()
    if not pid:
        os._exit(0 if work() else 1)
    return os.waitpid(pid, 0)[1] == 0


def test_a_forked_child_does_not_hold_the_locks_of_its_parent(
    locks: Callable[[], ComputationLocks],
) -> None:
    """It must neither compute beside its parent, nor keep the lock once the parent is gone."""
    mine, computation = locks(), Computation()
    assert mine.acquire("a", computation)
    assert not in_child(lambda: mine.acquire("a", Computation()))
    assert in_child(lambda: mine.acquire("b", Computation()))
    assert mine.acquire("b", computation), "the child is gone, and with it its lock"
    mine.release("a", computation)
    mine.release("a", computation)
    assert in_child(lambda: mine.acquire("a", Computation()))


def test_copies_of_a_function_in_one_process_take_turns(
    locks: Callable[[], ComputationLocks],
) -> None:
    """Threads of a dask worker unpickle a function for each task; the kernel knows one process."""
    mine, first, second = locks(), Computation(), Computation()
    assert mine.acquire("a", first) and mine.acquire("a", first)
    assert not mine.acquire("a", second)
    mine.release("a", second)
    assert not mine.acquire("a", second)
    mine.release("a", first)
    assert mine.acquire("a", second)


def test_the_lock_of_an_ended_thread_is_taken_over(
    locks: Callable[[], ComputationLocks],
) -> None:
    """An interrupt may end a call before it releases anything."""
    mine, others = locks(), []
    thread = threading.Thread(target=lambda: others.append(Computation()))
    thread.start()
    thread.join()
    assert mine.acquire("a", others[0])
    assert mine.acquire("a", Computation())


@pytest.mark.parametrize("kind", ["directory", "fifo", "link"])
def test_something_else_in_the_place_of_the_file_fails_no_call(
    locks: Callable[[], ComputationLocks], tmp_path: Path, kind: str, caplog: Any
) -> None:
    """Nothing is waited for, followed or changed; results may be computed twice."""
    path = tmp_path / FILE_NAME
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to(tmp_path / "elsewhere")
    mine, computation = locks(), Computation()
    assert mine.acquire("a", computation)
    assert "may be computed twice" in caplog.text
    mine.release("a", computation)
    assert not (tmp_path / "elsewhere").exists()


def hold(locks: ComputationLocks, key: str, held: Path) -> None:
    """Hold a lock until the process is killed."""
    if locks.acquire(key, Computation()):
        held.touch()
    time.sleep(LIMIT)


def test_a_task_waits_without_blocking_its_loop(tmp_path: Path) -> None:
    """Another process computes meanwhile; a task that is cancelled leaves no lock."""
    with SharedMemoryManager(tmp_path / "store", **SIZES) as manager:

        @manager.cache(version=1)
        async def slow(x: int) -> int:
            return x

        locks, held = manager._membership.locks, tmp_path / "held"
        holder = CONTEXT.Process(target=hold, args=(locks, slow.cache_key(3), held), daemon=True)
        holder.start()
        until(held.exists)

        async def main() -> int:
            cancelled = asyncio.create_task(slow(3))
            task = asyncio.create_task(slow(3))
            for _ in range(20):
                await asyncio.sleep(0.01)
            assert not task.done()
            cancelled.cancel()
            holder.kill()
            return await asyncio.wait_for(task, LIMIT)

        assert 3 == asyncio.run(main())
        holder.join(LIMIT)
        assert {} == locks._held
