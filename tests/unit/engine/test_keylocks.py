"""One lock per key, and no deadlock between two that need each other's."""

from __future__ import annotations

import threading

import pytest

from memories import BusyError
from memories.engine.keylocks import KeyLocks


def test_a_holder_may_hold_again_but_not_attempt_his_own() -> None:
    """modify() stores under its own lock; eviction must not pick the key that is being stored."""
    locks = KeyLocks()
    with locks.hold("a"), locks.hold("a"):
        with locks.attempt("a") as free:
            assert not free
        with locks.attempt("b") as free:
            assert free
            with locks.attempt("b") as again:
                assert not again
    with locks.attempt("a") as free:
        assert free
    assert {} == locks._locks


def test_another_thread_waits_to_hold_and_does_not_wait_to_attempt() -> None:
    """Attempts never block, so lock order cannot matter."""
    locks = KeyLocks()
    seen = []
    held = threading.Event()

    def other() -> None:
        with locks.attempt("a") as free:
            seen.append(free)
        held.set()
        with locks.hold("a"):
            seen.append("held")

    with locks.hold("a"):
        thread = threading.Thread(target=other)
        thread.start()
        assert held.wait(5)
        assert [False] == seen
    thread.join(5)
    assert [False, "held"] == seen
    assert {} == locks._locks


def test_a_circle_of_waits_is_refused_at_once() -> None:
    """Two functions passed to modify() that store each other's key must not hang for good."""
    locks = KeyLocks()
    meeting = threading.Barrier(2)
    outcomes: list[str] = []

    def work(first: str, second: str) -> None:
        try:
            with locks.hold(first):
                meeting.wait(5)
                with locks.hold(second):
                    outcomes.append("done")
        except BusyError as error:
            outcomes.append("refused")
            assert isinstance(error, TimeoutError)

    threads = [threading.Thread(target=work, args=pair) for pair in (("a", "b"), ("b", "a"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert ["done", "refused"] == sorted(outcomes)
    assert ({}, {}) == (locks._locks, locks._waits)


def test_no_wait_is_without_a_limit() -> None:
    """The error says what was waited for, and the lock is as it was."""
    locks = KeyLocks(wait_seconds=0.05)
    holding, done = threading.Event(), threading.Event()

    def hold() -> None:
        with locks.hold("slow"):
            holding.set()
            done.wait(5)

    thread = threading.Thread(target=hold)
    thread.start()
    assert holding.wait(5)
    with pytest.raises(BusyError, match="slow"), locks.hold("slow"):
        raise AssertionError("must not be held")
    done.set()
    thread.join(5)
    with locks.attempt("slow") as free:
        assert free
    assert ({}, {}) == (locks._locks, locks._waits)
