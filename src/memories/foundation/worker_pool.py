"""A pool of threads for tasks whose callers wait for the results, such as requests to many nodes.

A thread that asks for the result of a task that has not begun runs the task itself. So a pool that
could start no thread only makes the calls slower, and a task may wait for other tasks of the same
pool without a deadlock. Periodic background work belongs in `periodic`.

Some tasks wait for another machine in code that a signal does not interrupt. When their caller is
interrupted it abandons them: their threads no longer count, and new ones take their places.

`concurrent.futures` is not used because of its locks: an interrupt in the main thread can leave one
locked, and then the pool's threads wait for ever.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from memories.errors import ClosedError
from memories.foundation.clock import SystemClock
from memories.foundation.fork_lock import new_lock
from memories.foundation.logging import logger
from memories.foundation.periodic import STOP_SECONDS, BackgroundThread, Latch

IDLE_SECONDS = 10.0
LOOK_SECONDS = 1.0  # How often a waiting thread checks that the task's thread is alive.

_monotonic = SystemClock().monotonic

T = TypeVar("T")
R = TypeVar("R")


class Task(Generic[R]):
    """A call that is made once, by the first thread that gets to it."""

    __slots__ = (
        "_abandoned",
        "_by",
        "_done",
        "_error",
        "_on_abandon",
        "_part_of",
        "_value",
        "_work",
    )

    def __init__(
        self, work: Callable[[], R], on_abandon: Callable[[threading.Thread], None] | None = None
    ) -> None:
        self._work: Callable[[], R] | None = work
        self._on_abandon = on_abandon  # Called with the thread that runs it when it is abandoned.
        self._part_of = _current_task()
        self._abandoned = False
        self._by: dict[
            None, threading.Thread
        ] = {}  # The thread that runs it: `setdefault` is atomic.
        self._done = Latch()
        self._value: R | None = None
        self._error: BaseException | None = None

    def run(self) -> None:
        """Run it, unless another thread has begun."""
        me = threading.current_thread()
        try:
            if self._by.setdefault(None, me) is not me or self._done.is_set():
                return
            work, self._work = self._work, None
            assert work is not None, "a task runs once"
            self._value = work()
        except BaseException as error:
            if self._by.get(None) is not me:
                raise
            self._error = error  # Raised by `result`, in the thread that calls it.
        finally:
            if self._by.get(None) is me:
                self._done.set()
            del self  # The error refers to this frame: only the collector would free it.

    def cancel(self) -> None:
        """Prevent it from beginning; a task that has begun goes on."""
        if self._by.setdefault(None, threading.current_thread()) is threading.current_thread():
            self._work = None
            self._done.set()

    @property
    def abandoned(self) -> bool:
        """Return whether it was abandoned, or the task was that submitted it."""
        return self._abandoned or (self._part_of is not None and self._part_of.abandoned)

    def abandon(self) -> None:
        """Cancel it, and stop waiting for it if it has begun.

        The thread that runs it can check `abandoned` to end early.
        """
        self.cancel()
        if not self._done.is_set():
            self._abandoned = True
            if self._on_abandon is not None:
                self._on_abandon(self._by[None])

    def fail(self, error: Exception) -> None:
        """Abandon it and raise `error` in every thread that waits for its result."""
        self.abandon()
        if not self._done.is_set():
            self._error = error
            self._done.set()

    def wait(self) -> None:
        """Return once no thread runs it."""
        while not self._done.wait(LOOK_SECONDS):
            by = self._by.get(None)
            if by is None or by is threading.current_thread() or not by.is_alive():
                return

    def result(self) -> R:
        """Return its result, or raise its exception; run it here if it has not begun.

        Raises:
            RuntimeError: the thread that ran it died, for lack of memory.
        """
        self.run()
        self.wait()
        if self._error is not None:
            try:
                raise self._error
            finally:
                del self  # As in `run`.
        if not self._done.is_set():
            raise RuntimeError("the thread that ran the task died")
        return self._value  # type: ignore[return-value]


class Worker(BackgroundThread):
    """A thread of `WorkerPool`."""

    task: Task[Any] | None = None  # The task that it runs.


def is_abandoned() -> bool:
    """Return whether the task that this thread runs was abandoned."""
    task = _current_task()
    return task is not None and task.abandoned


def _current_task() -> Task[Any] | None:
    me = threading.current_thread()
    return me.task if isinstance(me, Worker) else None


class WorkerPool:
    """Up to `count` threads, started when they are needed and ended when they are idle.

    Safe to use from any number of threads. In a forked child the pool has no threads, and each task
    runs in the thread that asks for its result.

    Args:
        count: The maximum number of threads, not counting those of abandoned tasks.
        name: The name of the threads, after `memories-`.
        remote: Whether tasks wait for other machines and use nothing that their caller closes: an
            interrupted caller then abandons them, instead of waiting until they have ended.
    """

    def __init__(self, count: int, name: str, *, remote: bool = False) -> None:
        self._count = count
        self._name = name
        self._remote = remote
        self._tasks: SimpleQueue[Task[Any] | None] = SimpleQueue()
        self._lock = new_lock()
        self._threads: set[Worker] = set()
        self._idle = 0  # Threads that wait for a task, minus tasks in the queue.
        self._closed = False
        self._pid = os.getpid()

    def submit(self, work: Callable[..., R], *args: Any) -> Task[R]:
        """Return a task that calls `work(*args)`, soon and in some thread.

        Raises:
            ClosedError: the pool is closed.
        """
        if self._closed:
            raise ClosedError(f"the thread pool {self._name} is closed")
        task = Task(lambda: work(*args), self._on_abandon)
        with self._lock:
            if self._pid == os.getpid():
                self._idle -= 1
                if self._idle < 0 and len(self._threads) < self._count:
                    self._start_worker()
                self._tasks.put(task)
        return task

    def map(self, work: Callable[[T], R], items: Iterable[T], *, ahead: int) -> Iterator[R]:
        """Yield `work(item)` in order, with at most `ahead` tasks submitted in advance.

        When one fails, tasks that have not begun are cancelled and running ones are waited for.
        When the caller is interrupted, or closes the generator, running remote ones are abandoned.
        """
        waiting: deque[Task[R]] = deque()
        try:
            for item in items:
                if len(waiting) >= ahead:
                    yield self._first_of(waiting)
                waiting.append(self.submit(work, item))
            while waiting:
                yield self._first_of(waiting)
        except BaseException as error:
            self.cancel_all(waiting, error)
            raise

    @staticmethod
    def _first_of(waiting: deque[Task[R]]) -> R:
        result = waiting[0].result()
        del waiting[0]  # Only now: an interrupt before would leave a running task unknown.
        return result

    def cancel_all(self, tasks: Iterable[Task[Any]], error: BaseException) -> None:
        """Cancel `tasks` because of `error`, and wait for running ones as `map` does."""
        if self._remote and not isinstance(error, Exception):
            for task in tasks:
                task.abandon()
            return
        for task in tasks:
            task.cancel()
        try:
            for task in tasks:
                task.wait()
        except BaseException:
            if self._remote:
                for task in tasks:
                    task.abandon()
            raise

    @property
    def has_threads(self) -> bool:
        """Return whether the pool has a thread; at the exit and in a child none can be started."""
        return bool(self._threads) and self._pid == os.getpid()

    def close(self, seconds: float = STOP_SECONDS) -> bool:
        """Cancel tasks that have not begun and end the threads.

        Idempotent. Returns whether all threads ended within `seconds`.
        """
        self._closed = True
        with self._lock:
            present = list(self._threads)
        while True:
            try:
                task = self._tasks.get_nowait()
            except Empty:
                break
            if task is not None:
                task.cancel()
        for _ in present:
            self._tasks.put(None)
        end = _monotonic() + seconds
        ended = [thread.join_within(max(0.0, end - _monotonic())) for thread in present]
        return all(ended)

    def _start_worker(self) -> None:
        thread = Worker(self._serve, self._name)
        try:
            thread.start()
        except (RuntimeError, MemoryError) as error:
            # The other threads, or the caller, run the task.
            logger.debug("memories-%s could not be started: %s", self._name, error)
        else:
            self._threads.add(thread)

    def _serve(self) -> None:
        me = threading.current_thread()
        assert isinstance(me, Worker)
        with self._lock:
            self._threads.add(me)
            self._idle += 1
        idle = True
        try:
            while (task := self._next(me)) is not None:
                idle = False
                me.task = task
                task.run()
                me.task = None
                del task  # Its arguments must not live until the next task.
                with self._lock:
                    if me not in self._threads:
                        return  # The task was abandoned, and this thread with it.
                    self._idle += 1
                idle = True
        finally:
            with self._lock:
                if me in self._threads:
                    self._threads.discard(me)
                    self._idle -= idle

    def _on_abandon(self, thread: threading.Thread) -> None:
        """Stop counting a thread whose task was abandoned."""
        with self._lock:
            self._threads.discard(thread)

    def _next(self, me: Worker) -> Task[Any] | None:
        while True:
            try:
                return self._tasks.get(timeout=IDLE_SECONDS)
            except Empty:
                with self._lock:
                    if self._tasks.empty():  # Otherwise one was submitted in between.
                        self._threads.discard(me)
                        self._idle -= 1
                        return None
