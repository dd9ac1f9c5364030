"""Background threads: they survive exceptions, end with their owner, and are started again."""

from __future__ import annotations

import gc
import logging
import signal
import subprocess
import sys
import threading
import time
from textwrap import dedent

import pytest
from tests.support.forking import in_child
from tests.support.waiting import until

from memories.errors import ClosedError
from memories.foundation.periodic import AutoResetEvent, BackgroundThread, Latch, Periodic

LONG = 60.0  # Only what hangs takes so long.


class Owner:
    """Counts calls, and raises the given errors in turn."""

    def __init__(self, *errors: BaseException, **options: float | None) -> None:
        self.calls = 0
        self.errors = list(errors)
        self.thread = Periodic(self.work, "test", retry_seconds=0.01, **options)  # type: ignore[arg-type]

    def work(self) -> None:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)


def test_it_calls_when_woken_and_at_its_interval() -> None:
    """A thread without an interval sleeps until it is woken."""
    sleepy, busy = Owner(), Owner(seconds=0.01)
    busy.thread.start()
    until(lambda: busy.calls > 3)
    assert 0 == sleepy.calls
    sleepy.thread.wake()
    until(lambda: sleepy.calls == 1)
    assert sleepy.thread.stop() and busy.thread.stop()


def test_it_pauses_between_two_calls_however_often_it_is_woken() -> None:
    """A disk that is synced after every write does nothing else; no wake-up is lost."""
    owner = Owner(rest_seconds=LONG)
    owner.thread.wake()
    until(lambda: owner.calls == 1)
    for _ in range(10):
        owner.thread.wake()
    time.sleep(0.05)
    assert 1 == owner.calls
    assert owner.thread.stop(), "and it is stopped while it rests"


@pytest.mark.parametrize(
    "error",
    [ValueError("a fault of ours"), MemoryError(), SystemExit(), KeyboardInterrupt(), OSError(5)],
    ids=repr,
)
def test_it_survives_every_exception(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """Callers that depend on the thread would wait for ever if one failure ended it."""
    owner = Owner(error)
    with caplog.at_level(logging.WARNING, "memories"):
        owner.thread.wake()
        until(lambda: owner.calls == 2 and owner.thread.failure is None)
    said = [one for one in caplog.records if one.threadName == "memories-test"]
    assert 1 == len(said), "it is said, and once"
    owner.thread.stop()


def test_a_failure_is_kept_until_a_call_succeeds_and_keeps_nothing_alive() -> None:
    """Frames of the traceback would keep alive a store that the program has released."""
    owner = Owner(*[OSError("again")] * 1000)
    thread = owner.thread
    thread.wake()
    until(lambda: thread.failure is not None)
    assert "again" == str(thread.failure)
    del owner
    until(lambda: gc.collect() is not None and thread.stopped)
    assert thread.stop()


def test_it_ends_when_its_owner_is_closed_or_garbage() -> None:
    """An object without references can no longer call `stop`."""
    closed = Owner(ClosedError("it was cleaned up"))
    closed.thread.wake()
    until(lambda: closed.thread.stopped)
    owner = Owner()
    thread, runner = owner.thread, None
    thread.wake()
    until(lambda: thread.thread is not None)
    runner = thread.thread
    del owner
    gc.collect()
    assert runner is not None and runner.join_within(LONG)


def test_threads_that_share_an_event_all_end() -> None:
    """One thread may consume the wake-up that was meant for another."""
    event = AutoResetEvent()
    owners = [Owner() for _ in range(4)]
    threads = [Periodic(owner.work, "shared", wake_event=event) for owner in owners]
    for thread in threads:
        thread.start()
    event.add()
    for thread in threads:
        thread.stop(0.0)
    assert [True] * 4 == [thread.stop(LONG) for thread in threads]


def test_one_that_could_not_be_started_is_started_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without memory for a thread may have it a moment later."""
    running, late = Owner(seconds=0.01), Owner()
    running.thread.start()
    with monkeypatch.context() as patch:
        patch.setattr(BackgroundThread, "start", _refuse)
        late.thread.wake()
        assert isinstance(late.thread.failure, RuntimeError)
    until(lambda: late.calls == 1)
    running.thread.stop()
    late.thread.stop()


def _refuse(_: BackgroundThread) -> None:
    raise RuntimeError("can't start new thread")


def test_one_that_died_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even an exception that no handler catches must not end a store's background work."""
    running, owner, deaths = Owner(seconds=0.01), Owner(), list[object]()
    monkeypatch.setattr(threading, "excepthook", deaths.append)
    running.thread.start()
    owner.thread.wake()
    until(lambda: owner.calls == 1)
    first, whole = owner.thread.thread, owner.thread._wake_event
    owner.thread._wake_event = Broken()
    owner.thread._retry_seconds = -1.0  # So that what keeps it alive fails, too.
    whole.set()
    until(lambda: deaths and owner.thread.thread is not first)
    owner.thread._wake_event, owner.thread._retry_seconds = whole, 0.01
    calls = owner.calls
    owner.thread.wake()
    until(lambda: owner.calls > calls)
    running.thread.stop()
    owner.thread.stop()


class Broken(AutoResetEvent):
    """Raises in every thread that waits for it."""

    def wait(self, seconds: float | None = None) -> bool:
        raise MemoryError


def test_a_thread_that_has_no_memory_at_its_start_is_not_awaited_for_ever() -> None:
    """`Thread.start` waits until the new one runs, which it never does: a store hung in it."""
    code = """
        import _thread, threading
        from memories.foundation import periodic

        periodic.START_SECONDS = 0.2
        for name in ("_start_new_thread", "_start_joinable_thread"):  # Since Python 3.13.
            if hasattr(threading, name):
                start = lambda *_, **__: _thread.start_new_thread(int, ("0",))
                setattr(threading, name, start)
        try:
            periodic.BackgroundThread(print, "stillborn").start()
        except RuntimeError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", dedent(code)], capture_output=True, text=True, timeout=LONG
    )
    assert "can't start new thread: it had no memory" in done.stdout, done.stderr


def test_no_thread_is_started_in_a_forked_child() -> None:
    """The child may not write, and the thread's work belongs to the parent."""
    owner = Owner(seconds=0.01)
    owner.thread.start()
    until(lambda: owner.calls)

    def in_the_child() -> tuple[int, bool]:
        owner.thread.wake()
        return threading.active_count(), owner.thread.stop(0.0)

    assert "(1, True)" == in_child(in_the_child)
    calls = owner.calls
    until(lambda: owner.calls > calls)
    owner.thread.stop()


def test_a_signal_never_loses_a_set_event() -> None:
    """`threading.Event` can stay locked when a signal handler raises in `set`."""
    event, ended, armed, rung = AutoResetEvent(), Latch(), [], 0

    def interrupt(*_: object) -> None:
        if armed:
            armed.clear()
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 1e-4, 1e-4)
    try:
        while rung < 500:
            try:
                armed.append(True)
                while True:
                    event.set()
                    event.wait(0.0)
                    ended.wait(0.0)
            except KeyboardInterrupt:
                rung += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    event.set()
    assert event.wait(0.0)
    ended.set()
    assert ended.wait(0.0) and ended.wait(0.0)
