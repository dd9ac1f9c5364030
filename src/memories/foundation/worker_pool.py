"""Threads that do tasks at once which their caller waits for: requests to many nodes, many ranges.

Not work in the background, which is `periodic`. The one idea: whoever wants a result that nobody
has begun with does the task himself. So a thread that could not be started, or has gone home, costs
its help and nothing else, and a task may wait for others without a thread of its own.

Some tasks wait for the answer of another machine, in code that no signal reaches. Who is
interrupted while he waits for those gives them up: their threads count as gone, and others take
their places.

`concurrent.futures` would do but for its locks, which an interrupt in the main thread can leave
taken, so that the threads behind it wait for ever.
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
LOOK_SECONDS = 1.0  # So often whoever waits looks whether somebody is still at work.

_monotonic = SystemClock().monotonic

T = TypeVar("T")
R = TypeVar("R")


class Task(Generic[R]):
    """Something to be done once, by whoever comes first."""

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
        self._on_abandon = on_abandon  # Told of a thread that is at work on it when it is given up.
        self._part_of = _at_work()
        self._abandoned = False
        self._by: dict[None, threading.Thread] = {}  # Who does it: its `setdefault` is atomic.
        self._done = Latch()
        self._value: R | None = None
        self._error: BaseException | None = None

    def run(self) -> None:
        """Do it, unless somebody has begun."""
        me = threading.current_thread()
        try:
            if self._by.setdefault(None, me) is not me or self._done.is_set():
                return
            work, self._work = self._work, None
            assert work is not None, "it is done once"
            self._value = work()
        except BaseException as error:
            if self._by.get(None) is not me:
                raise
            self._error = error  # Raised by `result`, in the thread that asks.
        finally:
            if self._by.get(None) is me:
                self._done.set()
            del self  # The error refers to this frame: only the collector would free it.

    def cancel(self) -> None:
        """Let nobody begin with it any more."""
        if self._by.setdefault(None, threading.current_thread()) is threading.current_thread():
            self._work = None
            self._done.set()

    @property
    def abandoned(self) -> bool:
        """Return whether nobody wants its result any more, or that of what it is a part of."""
        return self._abandoned or (self._part_of is not None and self._part_of.abandoned)

    def abandon(self) -> None:
        """Want its result no more: nobody begins with it, and who is at work on it is left behind.

        He may see by `abandoned` that he need not go on.
        """
        self.cancel()
        if not self._done.is_set():
            self._abandoned = True
            if self._on_abandon is not None:
                self._on_abandon(self._by[None])

    def fail(self, error: Exception) -> None:
        """Give it up for everybody: whoever waits for its result is told `error` at once."""
        self.abandon()
        if not self._done.is_set():
            self._error = error
            self._done.set()

    def wait(self) -> None:
        """Return once nobody is at work on it."""
        while not self._done.wait(LOOK_SECONDS):
            by = self._by.get(None)
            if by is None or by is threading.current_thread() or not by.is_alive():
                return

    def result(self) -> R:
        """Return what came of it, done here if nobody has begun; raises what it raised.

        Raises:
            RuntimeError: the thread that was at work died, for want of memory.
        """
        self.run()
        self.wait()
        if self._error is not None:
            try:
                raise self._error
            finally:
                del self  # As in `run`.
        if not self._done.is_set():
            raise RuntimeError("the thread that was at work died")
        return self._value  # type: ignore[return-value]


class Worker(BackgroundThread):
    """A thread of `WorkerPool`."""

    task: Task[Any] | None = None  # What it is at work on.


def is_abandoned() -> bool:
    """Return whether nobody waits any more for what this thread is at work on."""
    task = _at_work()
    return task is not None and task.abandoned


def _at_work() -> Task[Any] | None:
    me = threading.current_thread()
    return me.task if isinstance(me, Worker) else None


class WorkerPool:
    """Up to `count` threads, started as they are needed; they go home when there is nothing to do.

    Safe to use from any number of threads. A forked child has none of its parent's threads, and its
    tasks are done by whoever asks for their results.

    Args:
        count: How many, besides those that were left behind.
        name: What they are called, `memories-` in front of it.
        remote: Whether tasks wait for other machines and touch nothing that their caller closes:
            an interrupted caller gives them up, and otherwise waits until nobody is at work.
    """

    def __init__(self, count: int, name: str, *, remote: bool = False) -> None:
        self._count = count
        self._name = name
        self._remote = remote
        self._tasks: SimpleQueue[Task[Any] | None] = SimpleQueue()
        self._lock = new_lock()
        self._present: set[Worker] = set()
        self._idle = 0  # Threads that wait for a task, less those that one was given to.
        self._closed = False
        self._pid = os.getpid()

    def submit(self, work: Callable[..., R], *args: Any) -> Task[R]:
        """Have `work(*args)` done soon.

        Raises:
            ClosedError: they were closed.
        """
        if self._closed:
            raise ClosedError(f"the threads {self._name} were closed")
        task = Task(lambda: work(*args), self._on_abandon)
        with self._lock:
            if self._pid == os.getpid():
                self._idle -= 1
                if self._idle < 0 and len(self._present) < self._count:
                    self._start_worker()
                self._tasks.put(task)
        return task

    def map(self, work: Callable[[T], R], items: Iterable[T], *, ahead: int) -> Iterator[R]:
        """Yield `work(item)` in order, at most `ahead` of them begun before they are asked for.

        When one fails, those not begun are given up, and those at work are waited for. When the
        caller is interrupted, or wants no more of them, remote ones are not.
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
        del waiting[0]  # Not before: an interrupt would leave it at work, and nobody would know.
        return result

    def cancel_all(self, tasks: Iterable[Task[Any]], error: BaseException) -> None:
        """Want the results of `tasks` no more, because of `error`, and wait as `map` does."""
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
        """Return whether there is any thread; one that ends, or is in a child, cannot get one."""
        return bool(self._present) and self._pid == os.getpid()

    def close(self, seconds: float = STOP_SECONDS) -> bool:
        """Give up what nobody has begun, and end the threads; whether all did in `seconds`.

        Idempotent.
        """
        self._closed = True
        with self._lock:
            present = list(self._present)
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
            # Then the others do it, or the caller himself.
            logger.debug("memories-%s helps no more: %s", self._name, error)
        else:
            self._present.add(thread)

    def _serve(self) -> None:
        me = threading.current_thread()
        assert isinstance(me, Worker)
        with self._lock:
            self._present.add(me)
            self._idle += 1
        idle = True
        try:
            while (task := self._next(me)) is not None:
                idle = False
                me.task = task
                task.run()
                me.task = None
                del task  # What it was about must not live until the next one.
                with self._lock:
                    if me not in self._present:
                        return  # It was left behind meanwhile.
                    self._idle += 1
                idle = True
        finally:
            with self._lock:
                if me in self._present:
                    self._present.discard(me)
                    self._idle -= idle

    def _on_abandon(self, thread: threading.Thread) -> None:
        """Count a thread as gone that is at work on what nobody waits for."""
        with self._lock:
            self._present.discard(thread)

    def _next(self, me: Worker) -> Task[Any] | None:
        while True:
            try:
                return self._tasks.get(timeout=IDLE_SECONDS)
            except Empty:
                with self._lock:
                    if self._tasks.empty():  # Else one came in between.
                        self._present.discard(me)
                        self._idle -= 1
                        return None
