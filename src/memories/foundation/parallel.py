"""Long work on many chunks, shared with a few helping threads.

Not a pool for tasks: nothing is ever queued behind anything. The one idea: whoever asks works
himself, and helpers that happen to be free take chunks from the same heap, so that a helper who is
busy, gone or lost in a fork costs nothing but its help.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from memories.foundation.fork_lock import new_lock
from memories.foundation.periodic import STOP_SECONDS, Ended, Runner

T = TypeVar("T")
R = TypeVar("R")

_MIN_NBYTES = 3 << 20  # Below it, waking a helper takes longer than what it would save.
_MAX_HELPERS = 3  # Memory is busy with that many; the rest of the cores is the program's own.
_IDLE_SECONDS = 2.0
_LOOK_SECONDS = 1.0  # So often whoever waits looks whether his helpers live.


def each(work: Callable[[T], R], items: Sequence[T], nbytes: int) -> list[R]:
    """Return `[work(item) for item in items]`, where the items are `nbytes` of memory in all.

    `work` must be mostly compiled code that lets go of the interpreter, and safe to call from many
    threads, which may finish in any order. What it raises is raised here, once nobody works.
    """
    helpers = min(_count(), len(items) - 1) if nbytes >= _MIN_NBYTES else 0
    if helpers < 1:
        return [work(item) for item in items]
    heap = _Heap(work, items)
    _crew().call(heap, helpers)
    return heap.finish()


def dismiss() -> None:
    """Send the helpers home and wait for them; the next long work calls others."""
    crew = _current
    if crew is not None and crew.pid == os.getpid():
        crew.dismiss()


class _Heap:
    """Items to work on, and what became of them. Each is taken once, by whoever comes first."""

    def __init__(self, work: Callable[[Any], Any], items: Sequence[Any]) -> None:
        self._work = work
        self._items = items
        self._results: list[Any] = [None] * len(items)
        self._error: BaseException | None = None
        # `next` of a counter is atomic, so that no lock is taken for an item.
        self._take = itertools.count().__next__
        self._done = itertools.count(1).__next__
        self._finished = Ended()
        self._helpers: list[threading.Thread] = []

    def help(self) -> None:
        """Work on what another has asked for."""
        self._helpers.append(threading.current_thread())
        self.work()

    def work(self) -> None:
        """Take items until there are none left."""
        while (index := self._take()) < len(self._items):
            try:
                if self._error is None:
                    self._results[index] = self._work(self._items[index])
            except BaseException as error:
                self._error = error  # Raised by `finish`, in the thread that asked.
            if self._done() == len(self._items):
                self._finished.set()

    def finish(self) -> list[Any]:
        """Work too, wait for items that helpers have begun, and return all results."""
        self.work()
        while not self._finished.wait(_LOOK_SECONDS):
            if not any(helper.is_alive() for helper in list(self._helpers)):
                raise MemoryError("the threads that helped have died, for want of memory")
        if self._error is not None:
            raise self._error
        return self._results


class _Crew:
    """The helping threads of this process; they go home when nobody has called them for a while."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._calls: SimpleQueue[_Heap | None] = SimpleQueue()  # None sends one helper home.
        self._present: set[threading.Thread] = set()
        self._lock = new_lock()

    def call(self, heap: _Heap, helpers: int) -> None:
        """Let up to `helpers` threads help with `heap`, when they can."""
        with self._lock:
            while len(self._present) < helpers and self._hire():
                pass
            for _ in range(min(helpers, len(self._present))):
                self._calls.put(heap)

    def _hire(self) -> bool:
        helper = Runner(self._help, "crew")
        try:
            helper.start()
        except (RuntimeError, MemoryError):  # No more threads, or the end: then without help.
            return False
        self._present.add(helper)
        return True

    def dismiss(self) -> None:
        """End every helper, after what he is at."""
        with self._lock:
            present, self._present = self._present, set()
            for _ in present:
                self._calls.put(None)
        for helper in present:
            helper.join(STOP_SECONDS)

    def _help(self) -> None:
        while True:
            try:
                heap = self._calls.get(timeout=_IDLE_SECONDS)
            except Empty:
                with self._lock:
                    # A call that came in between would keep alive what it is about.
                    if not self._calls.empty():
                        continue
                    self._present.discard(threading.current_thread())
                return
            if heap is None:
                return
            heap.help()
            del heap  # What it worked on must not live until the next call.


_current: _Crew | None = None


def _crew() -> _Crew:
    """Return the crew of this process; a forked child has none of its parent's threads."""
    global _current
    crew = _current
    if crew is None or crew.pid != os.getpid():
        crew = _current = _Crew()
    return crew


def _count() -> int:
    """Return how many helpers this process has cores for."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return min(cores - 1, _MAX_HELPERS)
