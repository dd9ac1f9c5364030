"""Parallel work on many chunks is done once, in order, with help or without."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from tests.support.waiting import LONG_SECONDS, until

from memories import codecs
from memories.foundation import parallel
from memories.frames import writer
from memories.frames.reader import open_frame
from memories.testing.codecs import identical

LARGE = 64 << 20


@pytest.fixture(autouse=True)
def two_helpers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Use helpers on a machine of one core too."""
    monkeypatch.setattr(parallel, "_count", lambda: 2)
    yield


def slowly(item: int) -> int:
    """Work as compiled code does: without the GIL."""
    time.sleep(0.002)
    return item * item


def test_results_are_in_the_order_of_the_items() -> None:
    """A checksum in the wrong place is damage."""
    assert [i * i for i in range(40)] == parallel.map_items(slowly, range(40), LARGE)


def test_helpers_help() -> None:
    """Otherwise all of it is for nothing."""
    together = threading.Barrier(2)

    def work(item: int) -> int:
        if item < 2:
            together.wait(LONG_SECONDS)  # Who has the first item does not get the second.
        return threading.get_ident()

    assert 1 < len(set(parallel.map_items(work, range(60), LARGE))) <= 3


def test_small_work_wakes_no_thread() -> None:
    """A small value must not pay for a thread."""
    workers = parallel.map_items(lambda _: threading.get_ident(), range(60), 1000)
    assert {threading.get_ident()} == set(workers)


def test_a_fault_is_raised_where_it_was_asked_once_all_is_quiet() -> None:
    """No thread may still write into memory that the caller releases."""
    working: list[int] = []

    def fail(item: int) -> None:
        working.append(item)
        time.sleep(0.002)
        working.remove(item)
        if item == 7:
            raise ValueError("seven")

    with pytest.raises(ValueError, match="seven"):
        parallel.map_items(fail, range(30), LARGE)
    assert [] == working


def test_the_next_item_is_made_while_one_is_used() -> None:
    """All come, in order, and another thread makes them where the caller is not done."""
    makers: list[int] = []
    second = threading.Event()

    def items() -> Iterator[int]:
        for number in range(20):
            makers.append(threading.get_ident())
            if number == 1:
                second.set()
            yield number

    found = []
    for item in parallel.made_ahead(items(), LARGE):
        found.append(item)
        assert second.wait(30), "the second is not made before the first is done with"
    assert [*range(20)] == found
    assert makers[1] != threading.get_ident()
    makers.clear()
    assert [*range(20)] == list(parallel.made_ahead(items(), 1000))
    assert {threading.get_ident()} == set(makers), "a small value must not pay for a thread"


def test_an_item_that_cannot_be_made_is_an_error_where_it_is_asked_for() -> None:
    """What was made before it is used; nothing comes after it."""

    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise ValueError("three")

    ahead = parallel.made_ahead(items(), LARGE)
    assert (1, 2) == (next(ahead), next(ahead))
    with pytest.raises(ValueError, match="three"):
        next(ahead)
    assert [] == list(ahead)


def test_nothing_is_kept_alive() -> None:
    """The buffers of a value are gone when it is, not at the next call."""
    array = np.zeros(10)
    gone = weakref.ref(array)
    parallel.map_items(lambda item: (item, time.sleep(0.001)), [array] * 9, LARGE)
    del array
    until(lambda: gone() is None)  # A late helper finds no items left and releases the call.


def test_helpers_go_home() -> None:
    """A program that stores once does not keep threads for it: forks with threads are warned of."""
    parallel.map_items(slowly, range(9), LARGE)
    until(lambda: not helpers(), parallel._IDLE_SECONDS + LONG_SECONDS)
    assert [0, 1, 4] == parallel.map_items(slowly, range(3), LARGE)


def test_without_any_helper_the_work_is_done_all_the_same() -> None:
    """Where no thread can be started, at the interpreter's end say."""

    class Alone(parallel._Helpers):
        def _start_helper(self) -> bool:
            return False

    shared = parallel._SharedWork(slowly, range(5))
    Alone().call(shared, 2)
    assert [0, 1, 4, 9, 16] == shared.results()


def test_a_helper_that_dies_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller that waits for its item would wait for ever."""
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    monkeypatch.setattr(parallel, "_LOOK_SECONDS", 0.05)
    shared = parallel._SharedWork(slowly, range(5))
    shared._count_done = Deadly(shared._count_done)  # type: ignore[assignment]
    helper = threading.Thread(target=shared.help)
    helper.start()
    helper.join()
    with pytest.raises(MemoryError, match="have died"):
        shared.results()


class Deadly:
    """Ends the thread that calls it first, between an item and saying so."""

    def __init__(self, count: Callable[[], int]) -> None:
        self.count, self.called = count, False

    def __call__(self) -> int:
        if self.called:
            return self.count()
        self.called = True
        raise MemoryError


def test_a_forked_child_has_helpers_of_its_own() -> None:
    """It inherits neither the threads nor the locks of its parent."""
    parallel.map_items(slowly, range(9), LARGE)
    child = os.fork()
    if child == 0:
        right = parallel.map_items(slowly, range(9), LARGE) == [i * i for i in range(9)]
        os._exit(0 if right else 1)
    assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("compression", ["none", "fast", "high"])
def test_large_values_survive_threads_of_threads(compression: str) -> None:
    """Many callers share the helpers, and none gets a chunk of another's."""
    values = [np.arange(i, i + 700_000, dtype="i8") for i in range(4)]
    wrong: list[Any] = []

    def work(value: Any) -> None:
        for _ in range(3):
            parts = codecs.encode(value)
            data = writer.pack(parts, key="k", version=1, compression=compression).join()
            got = codecs.decode(open_frame(data).parts())
            wrong.extend([] if identical(value, got) else [value])

    threads = [threading.Thread(target=work, args=(value,)) for value in values]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [] == wrong


def helpers() -> list[threading.Thread]:
    """Return the helping threads there are."""
    return [thread for thread in threading.enumerate() if thread.name == "memories-helper"]
