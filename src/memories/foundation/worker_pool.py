"""Threads that do tasks at once which their caller waits for: requests to many nodes, many ranges.

Not work in the background, which is `periodic`. The one idea: whoever wants a result that nobody
has begun with does the task himself. So a thread that could not be started, or has gone home, costs
its help and nothing else, and a task may wait for others without a thread of its own.

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
from memories.foundation.fork_lock import new_lock
from memories.foundation.logging import logger
from memories.foundation.periodic import STOP_SECONDS, Ended, Runner

IDLE_SECONDS = 10.0
LOOK_SECONDS = 1.0  # So often whoever waits looks whether somebody is still at work.

T = TypeVar("T")
R = TypeVar("R")


class Task(Generic[R]):
    """Something to be done once, by whoever comes first."""

    __slots__ = ("_by", "_done", "_error", "_value", "_work")

    def __init__(self, work: Callable[[], R]) -> None:
        self._work: Callable[[], R] | None = work
        self._by: dict[None, threading.Thread] = {}  # Who does it: its `setdefault` is atomic.
        self._done = Ended()
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

    def cancel(self) -> None:
        """Let nobody begin with it any more."""
        if self._by.setdefault(None, threading.current_thread()) is threading.current_thread():
            self._work = None
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
            raise self._error
        if not self._done.is_set():
            raise RuntimeError("the thread that was at work died")
        return self._value  # type: ignore[return-value]


class Workers:
    """Up to `count` threads, started as they are needed; they go home when there is nothing to do.

    Safe to use from any number of threads. A forked child has none of its parent's threads, and its
    tasks are done by whoever asks for their results.
    """

    def __init__(self, count: int, name: str) -> None:
        self._count = count
        self._name = name
        self._tasks: SimpleQueue[Task[Any] | None] = SimpleQueue()
        self._lock = new_lock()
        self._present: set[Runner] = set()
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
        task = Task(lambda: work(*args))
        with self._lock:
            if self._pid == os.getpid():
                self._idle -= 1
                if self._idle < 0 and len(self._present) < self._count:
                    self._hire()
                self._tasks.put(task)
        return task

    def map(self, work: Callable[[T], R], items: Iterable[T], *, ahead: int) -> Iterator[R]:
        """Yield `work(item)` in order, at most `ahead` of them begun before they are asked for.

        When one fails, or nobody wants the rest, those not begun are given up, and those at work
        are waited for.
        """
        waiting: deque[Task[R]] = deque()
        try:
            for item in items:
                if len(waiting) >= ahead:
                    yield waiting.popleft().result()
                waiting.append(self.submit(work, item))
            while waiting:
                yield waiting.popleft().result()
        finally:
            for task in waiting:
                task.cancel()
            for task in waiting:
                task.wait()

    def close(self, seconds: float = STOP_SECONDS) -> bool:
        """Give up what nobody has begun, and end the threads; whether they did in `seconds` each.

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
        ended = [thread.finish(seconds) for thread in present]
        return all(ended)

    def _hire(self) -> None:
        thread = Runner(self._serve, self._name)
        try:
            thread.start()
        except (RuntimeError, MemoryError) as error:
            # Then the others do it, or the caller himself.
            logger.debug("memories-%s helps no more: %s", self._name, error)
        else:
            self._present.add(thread)

    def _serve(self) -> None:
        me = threading.current_thread()
        assert isinstance(me, Runner)
        with self._lock:
            self._present.add(me)
            self._idle += 1
        idle = True
        try:
            while (task := self._next(me)) is not None:
                idle = False
                task.run()
                del task  # What it was about must not live until the next one.
                with self._lock:
                    self._idle += 1
                idle = True
        finally:
            with self._lock:
                if me in self._present:
                    self._present.discard(me)
                    self._idle -= idle

    def _next(self, me: Runner) -> Task[Any] | None:
        while True:
            try:
                return self._tasks.get(timeout=IDLE_SECONDS)
            except Empty:
                with self._lock:
                    if self._tasks.empty():  # Else one came in between.
                        self._present.discard(me)
                        self._idle -= 1
                        return None
