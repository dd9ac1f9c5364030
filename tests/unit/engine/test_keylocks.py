"""One lock per key, and no deadlock between two that need each other's."""

from __future__ import annotations

import sys
import threading

import pytest
from tests.support.waiting import LONG_SECONDS, until

from memories import BusyError
from memories.engine.keylocks import KeyLocks
from memories.engine.operations import Operation


def test_a_holder_may_hold_again_but_not_attempt_its_own() -> None:
    """modify() stores under its own lock; eviction must not pick the key that is being stored."""
    locks = KeyLocks()
    with locks.lock("a"), locks.lock("a"):
        with locks.try_lock("a") as free:
            assert not free
        with locks.try_lock("b") as free:
            assert free
            with locks.try_lock("b") as again:
                assert not again
    with locks.try_lock("a") as free:
        assert free
    assert {} == locks.held


def test_another_thread_waits_to_hold_and_does_not_wait_to_attempt() -> None:
    """Attempts never block, so lock order cannot matter."""
    locks = KeyLocks()
    seen = []
    held = threading.Event()

    def other() -> None:
        with locks.try_lock("a") as free:
            seen.append(free)
        held.set()
        with locks.lock("a"):
            seen.append("held")

    with locks.lock("a"):
        thread = threading.Thread(target=other)
        thread.start()
        assert held.wait(LONG_SECONDS)
        assert [False] == seen
    thread.join(LONG_SECONDS)
    assert [False, "held"] == seen
    assert {} == locks.held


def test_a_circle_of_waits_is_refused_at_once() -> None:
    """Two functions passed to modify() that store each other's key must not hang for good."""
    locks = KeyLocks()
    meeting = threading.Barrier(2)
    outcomes: list[str] = []

    def work(first: str, second: str) -> None:
        try:
            with locks.lock(first):
                meeting.wait(LONG_SECONDS)
                with locks.lock(second):
                    outcomes.append("done")
        except BusyError as error:
            outcomes.append("refused")
            assert isinstance(error, TimeoutError)

    threads = [threading.Thread(target=work, args=pair) for pair in (("a", "b"), ("b", "a"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG_SECONDS)
        assert not thread.is_alive()
    assert ["done", "refused"] == sorted(outcomes)
    assert ({}, {}) == (locks.held, locks._waits)


def test_no_wait_is_without_a_limit() -> None:
    """The error says what was waited for, and the lock is as it was."""
    locks = KeyLocks(wait_seconds=0.05)
    holding, done = threading.Event(), threading.Event()

    def hold() -> None:
        with locks.lock("slow"):
            holding.set()
            done.wait(LONG_SECONDS)

    thread = threading.Thread(target=hold)
    thread.start()
    assert holding.wait(LONG_SECONDS)
    with pytest.raises(BusyError, match="slow"), locks.lock("slow"):
        raise AssertionError("must not be held")
    done.set()
    thread.join(LONG_SECONDS)
    with locks.try_lock("slow") as free:
        assert free
    assert ({}, {}) == (locks.held, locks._waits)


def test_all_unused_keys_are_held_at_once() -> None:
    """Bulk work takes many locks for the price of one, and waits for none."""
    locks = KeyLocks()
    with locks.lock("busy"), locks.try_lock_all(["a", "busy", "b"]) as held:
        assert {"a", "b"} == held
        for key in ("a", "b", "busy"):
            with locks.try_lock(key) as free:
                assert not free
    for key in ("a", "b", "busy"):
        with locks.try_lock(key) as free:
            assert free
    assert {} == locks.held


def test_a_thread_that_waits_for_a_key_held_among_many_gets_it() -> None:
    """A store of one of these keys waits, and goes on as soon as they are released."""
    locks, got = KeyLocks(), threading.Event()

    def work() -> None:
        with locks.lock("a"):
            got.set()

    thread = threading.Thread(target=work)
    with locks.try_lock_all(["a", "b"]):
        thread.start()
        until(lambda: locks._waits)
        assert not got.is_set()
    thread.join()
    assert got.is_set()
    assert {} == locks.held


def test_the_lock_of_a_call_that_is_over_is_taken_over() -> None:
    """An interrupt may end a call before the line that would release its locks."""
    calls: dict[int, Operation] = {}
    locks = KeyLocks(calls.get)

    def call() -> None:
        calls[threading.get_ident()] = within()
        locks.lock("a").__enter__()

    def within() -> Operation:
        made = Operation()
        made._frame = sys._getframe(1)
        return made

    thread = threading.Thread(target=lambda: (call(), waiting.wait(60)))
    waiting = threading.Event()
    thread.start()
    until(lambda: "a" in locks.held)
    with locks.lock("a"):
        assert thread.is_alive(), "it was not waited for"
    waiting.set()
    thread.join()
    assert {} == locks.held


def test_the_locks_of_a_thread_that_is_gone_are_taken_over() -> None:
    """Without a call, too: SystemExit may have ended it anywhere."""
    locks = KeyLocks()
    thread = threading.Thread(target=lambda: locks.lock("a").__enter__())
    thread.start()
    thread.join()
    with locks.lock("a"):
        assert locks.is_held_here("a")
    assert {} == locks.held
