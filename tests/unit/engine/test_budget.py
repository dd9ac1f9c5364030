"""Charges: what is held, what may be held, and for how long."""

from __future__ import annotations

import gc
from collections.abc import Callable
from threading import Thread

import numpy as np

from memories.engine.budget import (
    HOST_SHARE,
    RENEWAL_SECONDS,
    ROOM_SECONDS,
    BackendBudget,
    Budget,
)
from memories.foundation.units import MAX_BYTES
from memories.testing.clock import ManualClock


def test_two_tiers_on_one_medium_share_its_room() -> None:
    """Hot and warm of a machine without a GPU must not promise the same byte twice."""
    clock = ManualClock()
    host = Budget(MAX_BYTES, room=lambda: 1000, monotonic=clock.monotonic)
    hot = Budget(800, monotonic=clock.monotonic, parent=host)
    warm = Budget(800, monotonic=clock.monotonic, parent=host)
    room = int(1000 * HOST_SHARE)
    assert hot.reserve(700)
    assert not warm.reserve(300)
    assert warm.reserve(room - 700)
    assert (700, room - 700) == (hot.used, warm.used)
    assert (0, 0) == (hot.headroom, warm.headroom)
    hot.release(700)
    assert 700 == warm.headroom + host.used - warm.used or warm.headroom > 0
    assert warm.reserve(500)


def test_a_refused_charge_leaves_none_behind() -> None:
    """It is charged neither in the tier nor in the medium that the tier shares."""
    clock = ManualClock()
    host = Budget(MAX_BYTES, room=lambda: 10**6, monotonic=clock.monotonic)
    hot = Budget(100, monotonic=clock.monotonic, parent=host)
    assert not hot.reserve(101)
    assert (0, 0) == (hot.used, host.used)


def test_room_is_measured_again_after_a_while() -> None:
    """Another process took the memory; the tier must notice."""
    clock = ManualClock()
    rooms = [1000, 10]
    budget = Budget(5000, room=lambda: rooms[0], monotonic=clock.monotonic)
    assert 900 == budget.effective
    rooms.pop(0)
    assert 900 == budget.effective
    clock.advance(1.0)
    assert 9 == budget.effective


def test_what_is_renewed_is_not_measured_by_the_next_charge() -> None:
    """A store measured under the lock that every other store needs."""
    clock = ManualClock()
    times: list[float] = []

    def room() -> int:
        times.append(clock.monotonic())
        return 1000

    host = Budget(MAX_BYTES, room=room, monotonic=clock.monotonic)
    hot = Budget(800, monotonic=clock.monotonic, parent=host)
    hot.renew(clock.monotonic())
    hot.renew(clock.monotonic())
    assert hot.reserve(100)
    assert 1 == len(times)
    clock.advance(ROOM_SECONDS - 0.01)
    hot.renew(clock.monotonic())
    clock.advance(ROOM_SECONDS - 0.01)
    assert hot.reserve(100)
    assert 2 == len(times)


def test_a_budget_is_free_while_its_medium_is_measured() -> None:
    """What comes meanwhile counts as if it had come after, what goes as if it had gone before."""
    clock = ManualClock()
    meanwhile: list[Callable[[], object]] = []

    def room() -> int:
        for call in meanwhile:
            thread = Thread(target=call)  # It would wait for ever if the lock were held.
            thread.start()
            thread.join()
        return 1000

    budget = Budget(MAX_BYTES, room=room, monotonic=clock.monotonic)
    assert budget.reserve(500)
    for call, held in ((lambda: budget.reserve(100), 500), (lambda: budget.release(200), 400)):
        clock.advance(RENEWAL_SECONDS)
        meanwhile[:] = [call]
        budget.renew(clock.monotonic())
        assert held + 900 == budget.effective


def test_bytes_stay_charged_until_the_last_owner_dies() -> None:
    """Several owners of one value count as one charge."""
    clock = ManualClock()
    budget = Budget(1000, monotonic=clock.monotonic)
    assert budget.reserve(300)
    first, second = np.zeros(1), np.zeros(2)
    budget.release_with([first, second, b"bytes are never waited for"], 300)
    assert 300 == budget.used
    del first
    gc.collect()
    assert 300 == budget.used
    view = second[:1]
    del second
    gc.collect()
    assert 300 == budget.used
    del view
    gc.collect()
    assert 0 == budget.used


def test_what_cannot_be_held_is_uncharged_at_once() -> None:
    """The last holder of bytes cannot be observed, so the manager stops counting them."""
    budget = Budget(1000, monotonic=ManualClock().monotonic)
    budget.reserve(300)
    budget.release_with([b"abc"], 300)
    assert 0 == budget.used


def test_a_durable_tier_counts_what_is_on_its_way() -> None:
    """Two writers must not both be promised the last bytes."""
    held = [600]
    budget = BackendBudget(1000, measure=lambda: (held[0], 10_000))
    assert budget.reserve(300)
    assert not budget.reserve(200)
    held[0] = 900
    budget.release(300)
    assert (900, 100) == (budget.used, budget.headroom)
    full = BackendBudget(1000, measure=lambda: (600, 50))
    assert 650 == full.effective


def test_a_durable_tier_that_was_just_written_does_not_hold_more_than_it_may() -> None:
    """A value is on the medium before its charge is removed, and upkeep moves others meanwhile."""
    held, taken = [600], 900
    budget = BackendBudget(1000, measure=lambda: (held[0], 10_000), taken=lambda: taken)
    assert budget.reserve(300)
    held[0] = 900
    assert (1000, 0) == (budget.used, budget.headroom)
    budget.release(300)
    held[0] = 1100  # Copies, and what they were made of, which is not deleted yet.
    assert 1000 == budget.used
    taken = 1050
    assert 1050 == budget.used, "what lies on the medium is not hidden"
    archive = BackendBudget(1000, measure=lambda: (1100, 0))
    assert 1100 == archive.used
