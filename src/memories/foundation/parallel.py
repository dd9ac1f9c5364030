"""Shares long work on many chunks of memory with a few helper threads.

The calling thread works, too. It and the helpers take chunks from one shared counter, so a helper
that is busy, has ended, or does not exist in a forked child only makes the call slower. Nothing is
queued: for tasks that wait for something else there is `worker_pool`.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from memories.foundation.fork_lock import new_lock
from memories.foundation.periodic import STOP_SECONDS, BackgroundThread, Latch
from memories.foundation.system import usable_processors

T = TypeVar("T")
R = TypeVar("R")

_MIN_NBYTES = 3 << 20  # Below this size, waking a helper takes longer than it saves.
_MAX_HELPERS = 3  # This many saturate the memory bus; the other cores belong to the program.
_IDLE_SECONDS = 2.0
_LOOK_SECONDS = 1.0  # How often a waiting caller checks that its helpers are alive.


def map_items(work: Callable[[T], R], items: Sequence[T], nbytes: int) -> list[R]:
    """Return `[work(item) for item in items]`, where the items are `nbytes` of memory in all.

    `work` must be mostly compiled code that releases the GIL, and safe to call from many threads,
    which may finish in any order. An exception of `work` is raised here, after all threads have
    stopped working on `items`.
    """
    helpers = min(_count(), len(items) - 1) if nbytes >= _MIN_NBYTES else 0
    if helpers < 1:
        return [work(item) for item in items]
    shared = _SharedWork(work, items)
    _helpers().call(shared, helpers)
    return shared.results()


def made_ahead(items: Iterator[T], nbytes: int) -> Iterator[T]:
    """Yield what `items` yields; a helper makes the next one while the caller uses one.

    So an item must stay as it is while the next one is made. They are `nbytes` of memory in all.
    """
    if nbytes < _MIN_NBYTES or _count() < 1:
        yield from items
        return
    end = object()
    work = _SharedWork(partial(next, items), [end])
    while (item := work.results()[0]) is not end:
        work = _SharedWork(partial(next, items), [end])
        _helpers().call(work, 1)
        yield item


def stop_helpers() -> None:
    """End the helper threads and wait for them; the next long work starts new ones."""
    helpers = _current
    if helpers is not None and helpers.pid == os.getpid():
        helpers.stop()


class _SharedWork:
    """The items of one call and their results; each item is processed once, by any thread."""

    def __init__(self, work: Callable[[Any], Any], items: Sequence[Any]) -> None:
        self._work = work
        self._items = items
        self._results: list[Any] = [None] * len(items)
        self._error: BaseException | None = None
        # `next` of a counter is atomic, so no lock is needed for an item.
        self._next_index = itertools.count().__next__
        self._count_done = itertools.count(1).__next__
        self._finished = Latch()
        self._helpers: list[threading.Thread] = []

    def help(self) -> None:
        """Process items in a helper thread."""
        self._helpers.append(threading.current_thread())
        self.work()

    def work(self) -> None:
        """Process items until none is left."""
        while (index := self._next_index()) < len(self._items):
            try:
                if self._error is None:
                    self._results[index] = self._work(self._items[index])
            except BaseException as error:
                self._error = error  # Raised by `results`, in the calling thread.
            if self._count_done() == len(self._items):
                self._finished.set()

    def results(self) -> list[Any]:
        """Process items, wait for those that helpers have begun, and return all results."""
        self.work()
        while not self._finished.wait(_LOOK_SECONDS):
            if not any(helper.is_alive() for helper in list(self._helpers)):
                raise MemoryError("the helper threads have died, probably for lack of memory")
        if self._error is not None:
            raise self._error
        return self._results


class _Helpers:
    """The helper threads of this process; each ends after it was idle for a while."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._calls: SimpleQueue[_SharedWork | None] = SimpleQueue()  # None ends one helper.
        self._threads: set[threading.Thread] = set()
        self._lock = new_lock()

    def call(self, shared: _SharedWork, helpers: int) -> None:
        """Have up to `helpers` threads help with `shared`, as soon as they are free."""
        with self._lock:
            while len(self._threads) < helpers and self._start_helper():
                pass
            for _ in range(min(helpers, len(self._threads))):
                self._calls.put(shared)

    def _start_helper(self) -> bool:
        helper = BackgroundThread(self._help, "helper")
        try:
            helper.start()
        except (RuntimeError, MemoryError):  # No more threads, or the interpreter ends.
            return False
        self._threads.add(helper)
        return True

    def stop(self) -> None:
        """End every helper after its current call."""
        with self._lock:
            threads, self._threads = self._threads, set()
            for _ in threads:
                self._calls.put(None)
        for helper in threads:
            helper.join(STOP_SECONDS)

    def _help(self) -> None:
        while True:
            try:
                shared = self._calls.get(timeout=_IDLE_SECONDS)
            except Empty:
                with self._lock:
                    # A call that was queued in between must be processed: it refers to memory.
                    if not self._calls.empty():
                        continue
                    self._threads.discard(threading.current_thread())
                return
            if shared is None:
                return
            shared.help()
            del shared  # The memory of this call must not live until the next one.


_current: _Helpers | None = None


def _helpers() -> _Helpers:
    """Return the helpers of this process; a forked child has none of its parent's threads."""
    global _current
    helpers = _current
    if helpers is None or helpers.pid != os.getpid():
        helpers = _current = _Helpers()
    return helpers


def _count() -> int:
    """Return how many helpers this process has cores for."""
    return min(usable_processors() - 1, _MAX_HELPERS)
