"""`manager.cache` with many callers: one computes for all, and its failure is its own."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import inspect
import linecache
import math
import random
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from tests.support.forking import in_child
from tests.support.interrupting import isolated
from tests.support.waiting import until

from memories import MemoryManager, UnsupportedTypeError
from memories.core import identity, memoize, single_flight
from memories.core.single_flight import Computation, SingleFlight

LIMIT = 60  # Seconds after which a wait is taken for one without an end.


@pytest.fixture
def manager() -> Iterator[MemoryManager]:
    """Return a manager with room to spare."""
    with MemoryManager("10 MB", "10 MB", "100 MB") as made:
        yield made


def threads(*calls: Callable[[], Any]) -> list[Any]:
    """Return what each call returned or raised, each in a thread of its own."""
    found: list[Any] = [None] * len(calls)

    def run(place: int, call: Callable[[], Any]) -> None:
        try:
            found[place] = call()
        except BaseException as error:
            found[place] = error

    started = [threading.Thread(target=run, args=item, daemon=True) for item in enumerate(calls)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join(LIMIT)
        assert not thread.is_alive(), "a caller waits for ever"
    return found


def memo_of(function: Any) -> memoize.Memo:
    """Return what a decorated function remembers."""
    memo = function.cache_key.__self__
    assert isinstance(memo, memoize.Memo)
    return memo


class Others:
    """Threads that a computation waits for, until they wait for it."""

    def __init__(self, count: int) -> None:
        self._count = count

    def wait_for(self, memo: memoize.Memo) -> None:
        """Return once so many threads wait for the one computation in progress."""
        (computation,) = memo.single_flight._running.values()
        until(lambda: len(computation._waiters) == self._count)


def test_a_cancelled_task_cancels_no_other(manager: MemoryManager) -> None:
    """One request times out, its client is gone; the next computes, and all others share that."""
    calls: list[int] = []

    go_on = asyncio.Event()

    @manager.cache
    async def slow(x: int) -> list[int]:
        calls.append(x)
        await go_on.wait()
        return [x]

    async def request(patience: float) -> Any:
        try:
            return await asyncio.wait_for(slow(1), patience)
        except TimeoutError:
            return "timeout"

    async def main() -> list[Any]:
        first = [asyncio.create_task(slow(2)) for _ in range(3)]
        await asyncio.sleep(0.05)
        first[0].cancel()
        first[1].cancel()
        requests = [asyncio.create_task(request(patience)) for patience in (0.1, *[LIMIT] * 5)]
        await requests[0]
        go_on.set()
        found = await asyncio.gather(*requests)
        return [*found, *await asyncio.gather(*first, return_exceptions=True)]

    found = asyncio.run(main())
    assert ["timeout", *[[1]] * 5] == found[:6]
    assert [asyncio.CancelledError] * 2 == [type(error) for error in found[6:8]]
    assert [2] == found[8]
    assert [1, 1, 2, 2] == sorted(calls)
    assert len({id(result) for result in found[1:6]}) == 5, "every caller has a list of its own"
    assert asyncio.iscoroutinefunction(slow)
    assert inspect.iscoroutinefunction(slow)


def test_an_event_loop_that_stops_stops_no_other(manager: MemoryManager) -> None:
    """Its tasks never end, nor do they fail; tasks of another loop must not wait for them."""
    calls: list[int] = []

    @manager.cache
    async def slow(x: int) -> int:
        calls.append(x)
        await asyncio.sleep(0.2 if len(calls) > 1 else 10 * LIMIT)
        return x

    dying = asyncio.new_event_loop()
    task = dying.create_task(slow(1))
    dying.run_until_complete(asyncio.sleep(0.1))

    async def other() -> list[int]:
        return await asyncio.wait_for(asyncio.gather(slow(1), slow(1)), LIMIT)

    assert [1, 1] == asyncio.run(other())
    assert [1, 1] == calls
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        dying.run_until_complete(task)
    dying.close()
    assert {} == memo_of(slow).single_flight._running


def test_a_call_that_starts_changes_the_key_of_no_other(
    manager: MemoryManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thread 1 hashes the function, then runs it; that changes what thread 2 hashes meanwhile."""
    calls: list[int] = []

    @manager.cache
    def slow(x: int) -> int:
        calls.append(x)
        until(lambda: len(calls) > 1 or any(one._waiters for one in running.values()))
        return x

    running = memo_of(slow).single_flight._running
    compute, hashing, second = identity.Identity._compute, list[int](), threading.Event()
    other = threading.Thread(target=slow, args=(1,), daemon=True)

    def computed(one: identity.Identity) -> str:
        hashing.append(1)
        if len(hashing) == 1:
            other.start()
            second.wait(0.3)
        else:
            second.set()
            until(lambda: calls)
        return compute(one)

    monkeypatch.setattr(identity.Identity, "_compute", computed)
    assert slow(1) == 1
    other.join(LIMIT)
    assert [1] == calls


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit, TimeoutError, RecursionError])
def test_an_interrupted_thread_interrupts_no_other(
    manager: MemoryManager, stop: type[BaseException]
) -> None:
    """Ctrl-C, an alarm, a stack that was deep already: the caller's own affair."""
    pilots: list[int] = []

    @manager.cache
    def slow(x: int) -> list[int]:
        pilots.append(threading.get_ident())
        for _ in range(20 * LIMIT if len(pilots) == 1 else 2):
            time.sleep(0.05)
        return [x]

    def interrupt() -> None:
        until(lambda: pilots)
        time.sleep(0.1)
        thread = ctypes.c_ulong(pilots[0])
        assert 1 == ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(stop))

    found = threads(*[lambda: slow(1)] * 6, interrupt)[:6]
    assert [stop] == [type(item) for item in found if item != [1]]
    assert 2 == len(pilots)
    lists = [item for item in found if item == [1]]
    assert 5 == len(lists) == len(set(map(id, lists)))


def test_an_alarm_reaches_the_waiting_thread(manager: MemoryManager) -> None:
    """A caller's own time-out ends its own wait, and no other."""

    end = threading.Event()

    @manager.cache
    def slow(x: int) -> int:
        end.wait(LIMIT)
        return x

    def ring(number: int, frame: FrameType | None) -> None:
        raise TimeoutError("the caller's own")

    with ThreadPoolExecutor(2) as pool:
        others = [pool.submit(slow, 1) for _ in range(2)]
        until(lambda: memo_of(slow).single_flight._running)
        before = signal.signal(signal.SIGALRM, ring)
        try:
            with pytest.raises(TimeoutError, match="own"):
                signal.setitimer(signal.ITIMER_REAL, 0.1)
                slow(1)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
            end.set()
        assert [1, 1] == [other.result(LIMIT) for other in others]
    assert 1 == slow.cache_info().misses


def test_an_error_of_the_function_reaches_all_waiting_callers(manager: MemoryManager) -> None:
    """Or a hundred requests to what is broken would try it one after another."""
    calls: list[int] = []
    others = Others(4)

    @manager.cache
    def broken(x: int) -> int:
        calls.append(x)
        others.wait_for(memo_of(broken))
        raise ValueError("broken")

    @manager.cache
    def opened(x: int) -> Any:
        calls.append(x)
        others.wait_for(memo_of(opened))
        return threading.Lock()

    for function, kind in ((broken, ValueError), (opened, UnsupportedTypeError)):
        calls.clear()
        found = threads(*[lambda function=function: function(1)] * 5)  # type: ignore[misc]
        assert [kind] * 5 == [type(error) for error in found]
        assert [1] == calls
        del found


def test_a_failed_call_lets_go_of_its_arguments(manager: MemoryManager) -> None:
    """Without the collector: an error must not keep a gigabyte until it comes."""

    class Large:
        """An argument."""

    @manager.cache(ignore=["large"])
    def broken(large: Large) -> int:
        raise ValueError("broken")

    @manager.cache(ignore=["large"])
    async def also(large: Large) -> int:
        raise ValueError("broken")

    def call() -> weakref.ref[Large]:
        large = Large()
        with contextlib.suppress(ValueError):
            broken(large)
        return weakref.ref(large)

    async def call_also() -> weakref.ref[Large]:
        large = Large()
        with contextlib.suppress(ValueError):
            await also(large)
        return weakref.ref(large)

    gc.disable()
    try:
        assert call()() is None
        assert asyncio.run(call_also())() is None
    finally:
        gc.enable()


LOCAL = threading.local()
BARRIER = threading.Barrier(2)


def test_two_functions_that_call_each_other_do_not_wait_for_ever(manager: MemoryManager) -> None:
    """Each thread computes what the other one needs: one of them has to do both."""
    calls: list[str] = []

    def called(name: str) -> bool:
        """Return whether this thread is on its way for the third time."""
        calls.append(name)
        LOCAL.depth = getattr(LOCAL, "depth", 0) + 1
        if LOCAL.depth == 1:
            BARRIER.wait(LIMIT)
        return bool(LOCAL.depth > 2)

    @manager.cache(ignore=["LOCAL"])
    def ping(x: int) -> int:
        return x if called("ping") else pong(x) + 1

    @manager.cache(ignore=["LOCAL"])
    def pong(x: int) -> int:
        return x if called("pong") else ping(x) + 1

    found = threads(lambda: ping(0), lambda: pong(0))
    assert all(isinstance(result, int) for result in found)
    assert {} == memo_of(ping).single_flight._running == memo_of(pong).single_flight._running


def test_a_flight_is_identified_by_its_caller_not_by_the_thread(manager: MemoryManager) -> None:
    """A task that waits for its own child, which waits for what the task computes."""
    depth = [0]

    @manager.cache
    async def outer(x: int) -> int:
        depth[0] += 1
        return x if depth[0] > 1 else (await asyncio.gather(inner(x)))[0] + 1

    @manager.cache
    async def inner(x: int) -> int:
        return await outer(x) + 1

    async def main() -> int:
        return await asyncio.wait_for(outer(0), LIMIT)

    assert 2 == asyncio.run(main())


def test_a_recursion_may_be_nearly_as_deep_as_without(manager: MemoryManager) -> None:
    """Four hundred calls fit on the stack; what does not fit fails with the words of Python."""

    @manager.cache
    def factorial(n: int) -> int:
        return 1 if n < 2 else n * factorial(n - 1)

    limit, deep = sys.getrecursionlimit(), len(inspect.stack(0))
    depth = min(400, (limit - deep - 100) // 2)
    assert math.factorial(depth) == factorial(depth)
    factorial.cache_clear()
    with pytest.raises(RecursionError, match="maximum recursion depth"):
        factorial(limit)
    assert 120 == factorial(5)
    assert {} == memo_of(factorial).single_flight._running


def test_what_cannot_be_kept_is_returned_all_the_same(tmp_path: Path) -> None:
    """Too large, by a reader, in a forked child: an hour's work is not thrown away."""
    calls: list[int] = []

    def compute(size: int) -> Any:
        calls.append(size)
        if size == 20_000_000:
            Others(2).wait_for(memo_of(large))
        return np.zeros(size, "u1")

    with MemoryManager("1 MB", "1 MB", "5 MB", storage_path=tmp_path) as small:
        large = small.cache(compute, ignore="large")
        found = threads(*[lambda: large(20_000_000)] * 3)
        assert [20_000_000] * 3 == [array.size for array in found]
        assert [20_000_000] == calls
        assert not any(array.flags.writeable for array in found), "as every other result"
        with MemoryManager("1 MB", "1 MB", storage_path=tmp_path, read_only=True) as reader:
            assert 9 == reader.cache(compute)(9).size
        assert "8" == in_child(lambda: large(8).size)


def test_a_child_does_not_wait_for_threads_of_its_parent(manager: MemoryManager) -> None:
    """They went on there; here no thread will ever compute what they had begun."""
    begun, end = threading.Event(), threading.Event()
    calls: list[int] = []

    @manager.cache
    def slow(x: int) -> int:
        calls.append(x)
        begun.set()
        end.wait(0.1 if len(calls) > 1 else LIMIT)
        return x

    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(slow, 1)
        assert begun.wait(LIMIT)
        assert "1" == in_child(lambda: slow(1))
        end.set()
        assert 1 == other.result(LIMIT)


def test_a_result_that_cannot_be_read_is_computed_anew(tmp_path: Path) -> None:
    """A store of results that are damaged is a store without them."""

    def compute(x: int) -> bytes:
        return random.Random(x).randbytes(1000)

    with MemoryManager("1 MB", "1 MB", "20 MB", storage_path=tmp_path) as first:
        kept = first.cache(compute, tier="cold")(1)
    for segment in tmp_path.rglob("*"):
        data = segment.read_bytes() if segment.is_file() else b""
        place = data.find(kept)
        if place >= 0:
            segment.write_bytes(data[: place + 100] + b"\0\0" + data[place + 102 :])
    with MemoryManager("1 MB", "1 MB", "20 MB", storage_path=tmp_path) as again:
        cached = again.cache(compute, tier="cold")
        assert [kept, kept] == [cached(1), cached(1)]
        assert (1, 1) == cached.cache_info()[:2]


FILES = {inspect.getsourcefile(module) for module in (single_flight, identity, memoize)}


def interrupted_at(step: int, call: Callable[[], Any]) -> str | None:
    """Run `call` and raise KeyboardInterrupt before line `step` of ours; None if it has no more."""
    count, where = 0, None

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count, where
        if frame.f_code.co_filename not in FILES:
            return trace if event == "call" else None
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
        # The line of a `with` comes again at its end, where no signal is looked for: an exception
        # in between the body and the release of a lock is possible for a tracer only.
        if event == "line" and not line.startswith("with "):
            count += 1
            if count == step:
                where = line
                raise KeyboardInterrupt(where)
        return trace

    apart = isolated(call)
    sys.settrace(trace)
    try:
        next(apart)
    except KeyboardInterrupt:
        assert where is not None
    except ValueError:  # Of the function itself.
        return where
    finally:
        sys.settrace(None)
    return where


def asked_within(step: int, call: Callable[[], Any]) -> tuple[Any, Any]:
    """Return `call()`, and what it returns when asked again at line `step` of ours within it."""
    lines, inner = 0, None

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal lines, inner
        if event == "line" and frame.f_code.co_filename in FILES:
            lines += 1
            if lines == step:
                inner = call()
        return trace

    sys.settrace(trace)
    try:
        outer = call()
        return outer, inner
    finally:
        sys.settrace(None)


def test_a_signal_handler_may_ask_for_the_same_at_any_line(manager: MemoryManager) -> None:
    """It runs in the middle of a call, and that does not go on before the handler has ended."""

    @manager.cache
    def double(x: int) -> int:
        return x * 2

    for step in range(1, 1000):
        outer, inner = asked_within(step, lambda step=step: double(step))  # type: ignore[misc]
        assert step * 2 == outer
        if inner is None:
            break
        assert step * 2 == inner
    assert step > 80, "so many lines were reached"
    assert {} == memo_of(double).single_flight._running


@pytest.mark.parametrize("kind", ["computed", "stored", "failing"])
def test_an_interrupt_at_any_line_leaves_no_caller_waiting(
    manager: MemoryManager, kind: str
) -> None:
    """Before, within and after the computation: the next caller has it, at once."""
    calls: list[int] = []

    @manager.cache
    def double(x: int) -> int:
        calls.append(x)
        if kind == "failing" and calls.count(x) == 1:
            raise ValueError(x)
        return x * 2

    memo, step, lines = memo_of(double), 0, set[str]()
    while True:
        step += 1
        if kind == "stored":
            double(step)
        where = interrupted_at(step, lambda step=step: double(step))  # type: ignore[misc]
        if where is None:
            break
        lines.add(where)
        # Where a tracer raises at the very line of `finally`, only the next call finds out.
        assert len(memo._identity._running) <= 1, where
        if kind == "failing" and step not in calls:
            threads(lambda step=step: double(step))  # type: ignore[misc]
        assert [step * 2] == threads(lambda step=step: double(step)), where  # type: ignore[misc]
    assert not memo._identity._running
    assert len(lines) > (10 if kind == "stored" else 60), "so many lines were reached"


def test_a_walk_of_frames_that_ends_early_takes_nothing_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The computing thread goes on meanwhile: a frame that has returned has no caller any more."""
    walk, walks = single_flight._stack_of, 0

    def early(thread: threading.Thread) -> set[int]:
        nonlocal walks
        walks += 1
        return set() if walks == 1 else walk(thread)

    monkeypatch.setattr(single_flight, "_stack_of", early)
    computation = Computation()
    assert computation.is_alive()
    assert [] == single_flight.dead_among([computation])
    assert 3 == walks


def test_a_result_that_came_after_the_look_is_found(
    manager: MemoryManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thread 1 finds none. Thread 2 computes and stores it. Thread 1 begins to compute."""
    calls: list[int] = []
    others: list[threading.Thread] = []

    @manager.cache
    def square(x: int) -> int:
        calls.append(x)
        return x * x

    register = SingleFlight.register

    def late(self: SingleFlight, key: str, computation: Computation) -> Computation | None:
        if not others:
            others.append(threading.Thread(target=square, args=[3]))
            others[0].start()
            others[0].join(30)
        return register(self, key, computation)

    monkeypatch.setattr(SingleFlight, "register", late)
    assert 9 == square(3)
    assert [3] == calls
    assert (1, 1) == square.cache_info()[:2]
