"""A signal handler, a destructor or a callback of a weak reference that calls the manager.

It may run in the middle of any code, also while its thread holds a lock. It gets `BusyError` then,
at once, or what it asked for; no thread ever waits for a lock of a thread that waits for it.
"""

from __future__ import annotations

import gc
import os
import random
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np
import pytest
from tests.faults.test_interrupts import CASES, Bench, after
from tests.support.children import handler_child
from tests.support.interrupting import Interrupter
from tests.support.waiting import LONG_SECONDS

from memories import BusyError, MemoryManager
from memories.foundation import fork_lock

CHILD = Path(handler_child.__file__)
SIGNALS = 40
RUNS = {"cleanup": 2, "flush": 1, "store": 1, "read": 1}


def signalled(what: str, folder: Path, seed: int) -> list[str]:
    """Send SIGTERM to a child at many moments; return how each call of the handler ended."""
    folder.mkdir()
    chance = random.Random(seed)
    command = [sys.executable, str(CHILD), what, str(folder), str(seed)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert "ready\n" == child.stdout.readline()
    for _ in range(SIGNALS):
        time.sleep(chance.uniform(0.0, 0.015))
        child.send_signal(signal.SIGTERM)
    with suppress(ProcessLookupError):
        child.send_signal(signal.SIGUSR1)
    out, errors = child.communicate(timeout=2 * handler_child.HANG_SECONDS)
    assert (0, "") == (child.returncode, errors)
    *handled, end = out.splitlines()
    assert "ended" == end
    assert max(float(line.split()[1]) for line in handled) < LONG_SECONDS
    with MemoryManager(
        "1 MB", "1 MB", "20 MB", True,
        storage_path=folder / "store", glacier_url=str(folder / "bucket"), migration=False,
    ) as manager:  # fmt: skip
        assert b"since the beginning" == manager.retrieve("durable")
        assert [] == manager.check()
    return [line.split()[0] for line in handled]


@pytest.mark.parametrize("what", RUNS)
def test_a_handler_of_sigterm_that_calls_the_manager(what: str, tmp_path: Path) -> None:
    """It ends at once by `BusyError`, or does it; the process goes on, and nothing is torn."""
    outcomes = [
        one for seed in range(RUNS[what]) for one in signalled(what, tmp_path / str(seed), seed)
    ]
    assert {"done", "busy"} >= set(outcomes)
    assert "done" in outcomes


@pytest.mark.torture
@pytest.mark.parametrize("what", RUNS)
def test_handlers_of_sigterm_hundreds_of_times(what: str, tmp_path: Path) -> None:
    """The same in hundreds of processes."""
    for seed in range(10, 210):
        signalled(what, tmp_path / str(seed), seed)


def locks_of(manager: MemoryManager) -> list[RLock]:
    """Return the locks of a manager that a thread may hold when a signal handler runs."""
    held = manager._hierarchy.operations.holds_lock.__self__  # type: ignore[attr-defined]
    return [test.__self__ for test in held._tests]


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[MemoryManager]:
    """Return a manager with a value in each tier."""
    with MemoryManager(
        "1 MB", "1 MB", "20 MB", True,
        storage_path=tmp_path / "store", glacier_url=str(tmp_path / "bucket"),
    ) as manager:  # fmt: skip
        for tier in ("hot", "warm", "cold", "glacier"):
            manager.store(tier, b"value " * 40, tier)
        yield manager


def test_who_holds_any_lock_is_refused_at_once(manager: MemoryManager) -> None:
    """What might wait for another lock, whose holder might wait for this one, does not begin."""
    held = locks_of(manager)
    assert len(held) > 30
    refused: tuple[Callable[[], object], ...] = (
        lambda: manager.store("new", b"value", "cold"),
        lambda: manager.store("cold", b"value", "hot"),
        lambda: manager.delete("cold"),
        lambda: manager.migrate("warm", "cold"),
        lambda: manager.retrieve("glacier"),
        manager.flush,
        manager.cleanup,
        manager.stats,
        manager.check,
        lambda: len(manager),
        lambda: list(manager),
        lambda: manager.create_snapshot("never.memories"),
    )
    for lock in held:
        with lock:
            for call in refused:
                with pytest.raises(BusyError, match="in the middle of another call"):
                    call()
            # What is in RAM, and small values on the disk, can be read without a lock.
            assert b"value " * 40 == manager["hot"] == manager["warm"] == manager["cold"]
            assert manager.retrieve("absent", None) is None
    assert b"value " * 40 == manager["glacier"]
    assert 4 == len(manager)


def test_a_plain_value_is_stored_beside_a_thread_that_waits(
    manager: MemoryManager, tmp_path: Path
) -> None:
    """The lock of the entries is the last one: its holder never waits for what a handler holds.

    A snapshot once acquired it, and waited for the commit that the handler had interrupted; the
    handler waited for the snapshot, and both for ever.
    """
    entries = manager._hierarchy.catalog.lock
    for lock in locks_of(manager):
        if lock is entries:
            continue
        others = [
            threading.Thread(target=one, daemon=True)
            for one in (
                lambda: manager.create_snapshot(tmp_path / "snapshot"),
                lambda: len(manager),
                lambda: manager.store("other", b"value", "cold"),
                manager.stats,
                manager.flush,
            )
        ]
        with lock:
            for other in others:
                other.start()
            done = threading.Event()
            for _ in range(3):
                time.sleep(0.002)
                assert_returns(lambda: manager["hot"], done)
                with suppress(BusyError):  # Flushed meanwhile, it is not plain any more.
                    assert_returns(lambda: manager.store("new", b"value", "hot"), done)
        for other in others:
            other.join(LONG_SECONDS)
            assert not other.is_alive()


def assert_returns(call: Callable[[], object], done: threading.Event) -> None:
    """Call; a watching thread ends the process if that takes for ever, since nothing else can."""
    done.clear()
    watcher = threading.Thread(target=lambda: done.wait(LONG_SECONDS) or os.abort(), daemon=True)
    watcher.start()
    try:
        call()
    finally:
        done.set()
        watcher.join()


def test_a_function_of_the_caller_does_not_end_the_manager(manager: MemoryManager) -> None:
    """The call that it belongs to has not ended, and would find everything closed."""

    def end(value: bytes) -> bytes:
        manager.cleanup()
        return value

    with pytest.raises(BusyError, match="in the middle of another call"):
        manager.modify("cold", end)
    assert b"value " * 40 == manager["cold"]


class _Recording:
    """A lock that records which others a thread holds when it acquires this one."""

    under: set[tuple[str, str]] = set()
    held = threading.local()

    def __init__(self) -> None:
        self._lock = threading.RLock()
        frame = sys._getframe(1)
        while frame.f_code.co_filename == fork_lock.__file__ and frame.f_back is not None:
            frame = frame.f_back
        self.place = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"

    def acquire(self, blocking: bool = True) -> bool:
        mine = self.held.__dict__.setdefault("places", [])
        # The recount after an interrupted call runs alone, and under all locks.
        alone = any(other.place.startswith("operations.py") for other in mine)
        if not self._is_owned() and not alone:
            self.under.update((other.place, self.place) for other in mine)
        acquired = self._lock.acquire(blocking)
        if acquired:
            mine.append(self)
        return acquired

    def release(self) -> None:
        self.held.places.remove(self)
        self._lock.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def _is_owned(self) -> bool:
        return self._lock._is_owned()  # type: ignore[attr-defined, no-any-return]

    def _at_fork_reinit(self) -> None:
        self._lock = threading.RLock()


class _Threading:
    RLock = _Recording

    def __getattr__(self, name: str) -> Any:
        return getattr(threading, name)


def test_locks_have_one_order_and_that_of_the_entries_is_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In every call of the face, with its background threads."""
    monkeypatch.setattr(fork_lock, "threading", _Threading())
    _Recording.under.clear()
    bench = Bench(tmp_path)
    for make in CASES.values():
        make(bench).call()
    bench.manager.create_snapshot(tmp_path / "snapshot")
    bench.manager.stats()
    len(bench.manager)
    bench.manager.cleanup()
    under = set(_Recording.under)
    assert len(under) > 30
    entries = {place for pair in under for place in pair if place.startswith("entry_table.py")}
    assert 1 == len(entries)
    assert not {pair for pair in under if pair[0] in entries}
    while under:
        outer = {first for first, _ in under} - {second for _, second in under}
        assert outer, f"a circle among {under}"
        under = {pair for pair in under if pair[0] not in outer}


class _Dropped:
    """Calls the manager when it is collected."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call
        self.itself = self  # Only the garbage collector ends it.

    def __del__(self) -> None:
        self._call()


def collected(bench: Bench, name: str, lines: Iterator[int]) -> None:
    """At each of `lines` let the collector call a destructor and a callback."""
    outcomes: list[str] = []

    def attempt(*_: object) -> None:
        manager = bench.manager
        assert bench.held["bystander/warm"] is not None
        assert np.array_equal(manager["bystander/warm"], bench.held["bystander/warm"])
        calls: list[Callable[[], object]] = [manager.flush, manager.stats, manager.cleanup]
        calls += [lambda tier=tier: manager.store("dropped", "by it", tier) for tier in TIERS]
        for call in calls if inside() else calls[3:]:
            try:
                call()
            except BusyError:
                outcomes.append("refused")
            else:
                outcomes.append("done")
                bench.held["dropped"] = manager.retrieve("dropped", None)

    def inside() -> bool:
        """Return whether a call of the manager is under way, which `cleanup` must not end."""
        operation = bench.manager._hierarchy.operations._running.get(threading.get_ident())
        return operation is not None and operation.alive

    def collect() -> None:
        dropped = _Dropped(attempt)
        reference = weakref.ref(dropped, attempt)
        del dropped
        gc.collect(0)
        assert reference() is None

    interrupter = Interrupter(collect)
    for line in lines:
        one = CASES[name](bench)
        interrupter.run(one.call, line)
        with after(f"line {line} of {name!r}", interrupter):
            bench.held = {key: bench.manager.retrieve(key) for key in bench.held}
            bench.conclude(one)
        if interrupter.lines < line:
            break
    bench.reopen()
    assert {"refused", "done"} == set(outcomes)


TIERS = ("auto", "hot", "cold")
COLLECTED = {  # At one line in so many.
    "store into hot": 3,
    "store into cold over hot": 37,
    "migrate from warm to cold": 37,
    "flush": 37,
}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Return a store whose calls are interrupted."""
    bench = Bench(tmp_path)
    yield bench
    bench.manager.cleanup()


@pytest.fixture
def collector_by_hand() -> Iterator[None]:
    """Let the collector run only where a test calls it.

    A run of its own, just before the test's, moves an object that is still held to the next
    generation, where `gc.collect(0)` does not look; and inside a run the collector does nothing.
    """
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("name", COLLECTED)
@pytest.mark.usefixtures("collector_by_hand")
def test_a_destructor_and_a_callback_that_call_the_manager(bench: Bench, name: str) -> None:
    """They store, or raise that their thread is busy; nothing is torn."""
    collected(bench, name, iter(range(1 + sum(name.encode()) % 7, 10**6, COLLECTED[name])))


@pytest.mark.torture
@pytest.mark.parametrize("name", CASES)
@pytest.mark.usefixtures("collector_by_hand")
def test_a_destructor_at_every_line(bench: Bench, name: str) -> None:
    """The same at all lines of every call."""
    collected(bench, name, count(1))
