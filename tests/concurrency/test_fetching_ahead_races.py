"""The watch over the notes of readers: no note is left unread, and no thread is woken in vain."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from tests.support.waiting import until

from memories import MemoryManager
from memories.migration import prefetching
from memories.migration.prefetching import Prefetching
from memories.policies.predictors import Prefetcher, StridePredictor, SuccessorPredictor

KEYS = [f"frame/{number}" for number in range(200)]


@pytest.fixture
def manager() -> Iterator[MemoryManager]:
    with MemoryManager("1 B", "1 MB", "100 MB", migration=False, prefetch="off") as made:
        for number, key in enumerate(KEYS):
            made.store(key, np.full(100, number), "cold")
        yield made


class WatchedFlag:
    """Stops the thread that ends its watch, between the last look at the notes and the end."""

    def __init__(self, service: Prefetching) -> None:
        self.reached, self.go_on = threading.Event(), threading.Event()
        self._value = service._watched

    def __get__(self, service: Prefetching, kind: type) -> bool:
        return self._value

    def __set__(self, service: Prefetching, value: bool) -> None:
        ends = self._value and not value
        if ends and not self.reached.is_set():
            self.reached.set()
            assert self.go_on.wait(60)
        self._value = value


def test_a_note_left_while_the_watch_ends_is_read(
    manager: MemoryManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that sees a watch wakes no thread: the watch must still look once more."""
    prefetcher = Prefetcher([SuccessorPredictor()], budget_bytes=0)
    service = Prefetching(manager._hierarchy, prefetcher, workers=1, worth_seconds=0.0)
    flag = WatchedFlag(service)
    monkeypatch.setattr(Prefetching, "_watched", flag, raising=False)
    try:
        manager[KEYS[0]]
        manager._hierarchy.events.flush()  # It may wait for the next event.
        assert flag.reached.wait(60), "the watch ends once nothing is left to learn"
        manager[KEYS[1]]
        manager._hierarchy.events.flush()
        assert service._notes, "no thread has seen them yet"
        flag.go_on.set()
        until(lambda: not service._notes)
    finally:
        flag.go_on.set()
        service.stop()


def test_random_reads_wake_no_thread_for_each(
    manager: MemoryManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that is woken for every read costs the reader more than the read."""
    monkeypatch.setattr(prefetching, "BATCH_SECONDS", 0.5)
    prefetcher = Prefetcher([SuccessorPredictor(), StridePredictor()], budget_bytes=0)
    service = Prefetching(manager._hierarchy, prefetcher, workers=1, worth_seconds=0.0)
    looks = 0
    work = service._work

    def count() -> float:
        nonlocal looks
        looks += 1
        return work()

    service._work = count  # type: ignore[method-assign]
    chance = np.random.default_rng(5)
    started = time.monotonic()
    for _ in range(1500):
        manager[f"frame/{chance.integers(200)}"]
    until(lambda: looks)  # All may have been read within the time of one batch.
    seconds = time.monotonic() - started
    service.stop()
    assert 0 < looks <= 10 + seconds / prefetching.BATCH_SECONDS, "and not one for each of 1,500"


def test_with_evidence_every_note_wakes_and_a_walk_meets_its_values_in_ram(
    manager: MemoryManager,
) -> None:
    """Batches suit managers that predict nothing: a guess is worth little a few reads later."""
    prefetcher = Prefetcher([StridePredictor()], budget_bytes=0)
    service = Prefetching(manager._hierarchy, prefetcher, workers=2, worth_seconds=0.0)
    working, work = set[int](), service._work

    def noted() -> float:
        working.add(threading.get_ident())
        try:
            return work()
        finally:
            working.discard(threading.get_ident())

    service._work = noted  # type: ignore[method-assign]
    met = 0
    for key in KEYS:
        met += manager.get_tier(key) == "warm"
        manager[key]
        manager._hierarchy.events.flush()  # However soon the reads follow each other here.
        until(lambda: not (service._notes or working or service._jobs))
    service.stop()
    assert met > 150
