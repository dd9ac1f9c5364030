"""Entry table: a short change acquires its lock without a place in the queue."""

from __future__ import annotations

import threading

from tests.support.waiting import until

from memories.engine.entry_table import EntryTable


def test_a_turn_is_taken_when_the_lock_is_free_and_ended_once() -> None:
    """To end a turn twice, or without one, releases nothing that another call acquired."""
    table = EntryTable()
    table.end_turn()
    table.take_turn()
    assert table.lock._is_owned()  # type: ignore[attr-defined]
    table.end_turn()
    table.end_turn()
    assert not table.lock._is_owned()  # type: ignore[attr-defined]


def test_a_turn_waits_for_a_thread_that_holds_the_lock_for_long() -> None:
    """After so many tries it queues up, and sleeps until it is its turn."""
    table, taken = EntryTable(), []

    def take() -> None:
        table.take_turn()
        taken.append(threading.get_ident())
        table.end_turn()

    with table.lock:
        thread = threading.Thread(target=take)
        thread.start()
        thread.join(0.05)
        assert thread.is_alive() and not taken
    until(lambda: bool(taken))
    thread.join()
    assert table.lock.acquire(False), "no thread has it"
    table.lock.release()
