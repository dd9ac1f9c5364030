"""One lock per key, and no deadlock between two that need each other's."""

from __future__ import annotations

import threading

from memories.keylocks import KeyLocks


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
