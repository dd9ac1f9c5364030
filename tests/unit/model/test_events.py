"""Observers get every event, in order, and reads in batches."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from memories import ClosedError, InvalidKeyError, KeyNotFoundError, MemoryManager
from memories.model.events import (
    READS_AT_ONCE,
    READS_SECONDS,
    Event,
    EventBus,
    Missed,
    Moved,
    ReadBatch,
    Removed,
    Retrieved,
    Stored,
    StoredAtRest,
    Written,
)
from memories.model.record import Record
from memories.model.tiers import Cause, TierName


def read(number: int, at: float) -> Retrieved:
    key = f"k{number}"
    record = Record(key=key, version=1, tier=TierName.COLD, size=1, stored_at=0.0)
    return Retrieved(key, at, TierName.COLD, 1, 1e-5, record)


@pytest.fixture
def bus() -> EventBus:
    return EventBus()


@pytest.fixture
def reported(bus: EventBus) -> list[list[str]]:
    """The keys of the reads, in the batches in which they were reported."""
    reported: list[list[str]] = []
    bus.subscribe_reads(lambda reads: reported.append([read.key for read in reads]))
    return reported


def test_a_read_after_a_while_is_reported_at_once(bus: EventBus, reported: list[list[str]]) -> None:
    """The next key of a slow reader is predicted from its last read."""
    for number in range(3):
        bus.emit_soon(read(number, 1.0 + 2 * number * READS_SECONDS))
    assert [["k0"], ["k1"], ["k2"]] == reported


def test_reads_in_quick_succession_are_reported_together(
    bus: EventBus, reported: list[list[str]]
) -> None:
    """Reporting each read would cost more than the read."""
    for number in range(READS_AT_ONCE):
        bus.emit_soon(read(number, 1.0))
    assert [["k0"]] == reported
    bus.emit_soon(read(READS_AT_ONCE, 1.0))
    assert [1, READS_AT_ONCE] == [len(reads) for reads in reported]
    assert [f"k{number}" for number in range(1, READS_AT_ONCE + 1)] == reported[1]


def test_reads_are_reported_before_later_events(bus: EventBus) -> None:
    """An observer of a key must not see it stored anew before it was read."""
    order: list[str] = []
    bus.subscribe(lambda event: order.append(type(event).__name__))
    bus.subscribe_reads(lambda reads: order.append(f"{len(reads)} read"))
    for number in range(3):
        bus.emit_soon(read(number, 1.0))
    bus.emit(Missed("absent", 1.0))
    assert ["1 read", "2 read", "Missed"] == order


def stored(number: int, at: float) -> StoredAtRest:
    return StoredAtRest(read(number, at).record, at, 4e-5, 3e-5)


def test_stores_at_rest_are_reported_together_and_in_the_order_of_each_key(bus: EventBus) -> None:
    """As `Written` and `Stored`, each with its duration, in between the reads of the key."""
    names: list[str] = []
    bus.subscribe(lambda event: names.append(f"{type(event).__name__} {event.key}"))
    bus.subscribe_reads(lambda reads: names.extend(f"read {one.key}" for one in reads))
    seconds: list[float] = []
    bus.subscribe(
        lambda event: seconds.append(event.seconds if isinstance(event, Stored) else 0.0),
        kinds=(Stored,),
    )
    bus.emit_soon(stored(0, 1.0))
    assert ["Written k0", "Stored k0"] == names
    names.clear()
    for event in (stored(1, 1.0), stored(2, 1.0), read(1, 1.0), stored(1, 1.0), stored(1, 1.0)):
        bus.emit_soon(event)
    assert [] == names
    bus.emit(Missed("absent", 1.0))
    assert names == [
        "Written k1", "Written k2", "Stored k1", "Stored k2",
        "read k1",
        "Written k1", "Stored k1",
        "Written k1", "Stored k1",
        "Missed absent",
    ]  # fmt: skip
    assert [4e-5] * 5 == seconds


def test_an_event_waits_for_those_before_it(bus: EventBus) -> None:
    """A thread delivers a store, slowly; another one removes the key, and must not be faster."""
    order: list[str] = []
    begun, go_on = threading.Event(), threading.Event()

    def observe(event: Event) -> None:
        if isinstance(event, Written):
            begun.set()
            go_on.wait(60)
        order.append(type(event).__name__)

    bus.subscribe(observe)
    first = threading.Thread(target=lambda: bus.emit_soon(stored(0, 1.0)))
    first.start()
    assert begun.wait(60)
    second = threading.Thread(target=lambda: bus.emit(Missed("k0", 1.0)))
    second.start()
    second.join(0.05)
    assert second.is_alive()
    go_on.set()
    first.join(60)
    second.join(60)
    assert ["Written", "Stored", "Missed"] == order


def test_what_leaves_ram_is_reported_together_and_in_the_order_of_each_key(bus: EventBus) -> None:
    """A result that is dropped and stored again must not look as if it were gone."""
    batches: list[Sequence[Event]] = []
    bus.subscribe(lambda event: None, batches.append, kinds=(Stored, Moved, Removed))
    size, now = 1, 1.0
    bus.emit_soon(read(0, now))  # Delivered at once, so that the others wait.
    for key in ("a", "b"):
        bus.emit_soon(Stored(key, now, TierName.WARM, size, 1e-5))
    bus.emit_soon(Removed("a", now, TierName.WARM, size, Cause.CAPACITY))
    bus.emit_soon(Moved("b", now, TierName.WARM, TierName.HOT, size, Cause.CAPACITY, 1e-5))
    bus.emit_soon(Stored("a", now, TierName.HOT, size, 1e-5))
    bus.emit_soon(Removed("b", now, TierName.HOT, size, Cause.CAPACITY))
    assert [] == batches
    bus.flush()
    names = [[f"{type(event).__name__} {event.key}" for event in batch] for batch in batches]
    assert [
        ["Stored a", "Stored b"], ["Moved b"], ["Removed a"], ["Stored a"], ["Removed b"]
    ] == names  # fmt: skip


def test_an_event_apart_waits_for_nothing(bus: EventBus) -> None:
    """A miss changes nothing for its key, and would end every batch."""
    seen: list[str] = []
    bus.subscribe(lambda event: seen.append(type(event).__name__))
    bus.emit_soon(read(0, 1.0))
    bus.emit_soon(stored(1, 1.0))
    bus.emit_apart(Missed("absent", 1.0))
    assert ["Missed"] == seen
    bus.flush()
    assert ["Missed", "Written", "Stored"] == seen


def test_an_interrupt_loses_no_store(bus: EventBus) -> None:
    """What was being delivered is delivered again: the counters are never short."""
    counted: list[str] = []
    interrupts = iter([KeyboardInterrupt()])

    def observe(event: Event) -> None:
        if (error := next(interrupts, None)) is not None:
            raise error
        counted.append(f"{type(event).__name__} {event.key}")

    bus.emit_soon(stored(0, 1.0))
    for number in range(1, 4):
        bus.emit_soon(stored(number, 1.0))
    bus.subscribe(observe)
    with pytest.raises(KeyboardInterrupt):
        bus.flush()
    bus.emit(Missed("absent", 1.0))
    keys = ["k1", "k2", "k3"]
    assert [f"Written {key}" for key in keys] + [f"Stored {key}" for key in keys] == counted[:6]
    assert ["Missed absent"] == counted[6:]


def test_an_observer_may_ask_what_waits(bus: EventBus) -> None:
    """It would wait for itself, or get the same event again."""
    seen: list[str] = []

    def observe(event: Event) -> None:
        bus.flush()
        seen.append(type(event).__name__)

    bus.subscribe(observe)
    bus.emit_soon(stored(0, 1.0))
    assert ["Written", "Stored"] == seen


def test_reads_that_were_made_together_are_events_like_others(bus: EventBus) -> None:
    """An observer may look at each of them; one that counts needs only their number."""
    seen: list[Sequence[Retrieved]] = []
    bus.subscribe_reads(seen.append)
    singly = [read(number, 2.0) for number in range(3)]
    bus.emit_soon(read(7, 1.0))
    bus.emit_soon(read(8, 1.0))
    bus.emit_reads(ReadBatch([one.record for one in singly], 2.0, TierName.COLD, 1e-5))
    assert [["k7"], ["k8"], ["k0", "k1", "k2"]] == [[one.key for one in reads] for reads in seen]
    assert singly == list(seen[2])
    assert (singly[1], singly[1:]) == (seen[2][1], seen[2][1:])


def test_a_batch_of_stores_reaches_those_who_take_batches(bus: EventBus) -> None:
    """One call for the frames, and one for the versions."""
    batches: list[Sequence[Event]] = []
    bus.subscribe(lambda event: None, batches.append, kinds=(Written, Stored))
    for number in range(READS_AT_ONCE + 1):
        bus.emit_soon(stored(number, 1.0))
    assert [1, 1, READS_AT_ONCE, READS_AT_ONCE] == [len(batch) for batch in batches]
    assert [Written, Stored, Written, Stored] == [type(batch[0]) for batch in batches]


def test_an_observer_that_raises_is_dropped_and_the_others_go_on(
    bus: EventBus, reported: list[list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    """The engine owes its caller a value, not a working observer."""
    calls = 0

    def fails(event: Event | Sequence[Retrieved]) -> None:
        nonlocal calls
        calls += 1
        raise ZeroDivisionError

    bus.subscribe(fails)
    bus.subscribe_reads(fails)
    with caplog.at_level(logging.ERROR):
        for number in range(2):
            bus.emit(Missed("absent", 1.0))
            bus.emit_soon(read(number, 1.0 + number))
    assert 2 == calls
    assert [["k0"], ["k1"]] == reported
    assert 2 == len(caplog.records)


def test_an_observer_that_finds_no_memory_goes_on_observing(
    bus: EventBus, caplog: pytest.LogCaptureFixture
) -> None:
    """The counters would stand still for the rest of the program after one moment of want."""
    received: list[Event] = []
    wants = iter([MemoryError("short"), RecursionError("deep")])

    def observe(event: Event) -> None:
        if (error := next(wants, None)) is not None:
            raise error
        received.append(event)

    bus.subscribe(observe)
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            bus.emit(Missed("absent", 1.0))
    assert [Missed("absent", 1.0)] == received
    assert 2 == len(caplog.records)


def test_no_read_is_lost_or_reported_twice_by_many_threads(
    bus: EventBus, reported: list[list[str]]
) -> None:
    """The counters are exact, whichever thread reports the reads."""

    def note(first: int) -> None:
        for number in range(first, first + 5_000):
            bus.emit_soon(read(number, number * 1e-5))

    threads = [threading.Thread(target=note, args=(5_000 * at,)) for at in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    bus.flush()
    assert {f"k{number}" for number in range(20_000)} == {key for keys in reported for key in keys}
    assert 20_000 == sum(map(len, reported))


def test_the_counters_know_every_read_when_they_are_asked(tmp_path: Path) -> None:
    """A thousand reads within a moment, most of them not reported yet."""
    with MemoryManager(
        "1 B", "1 B", "10 MB", storage_path=tmp_path, migration=False, prefetch="off"
    ) as manager:
        manager.store("key", b"value", tier="cold")
        for _ in range(1_000):
            manager["key"]
        assert 1_000 == manager.stats().tiers[TierName.COLD].hits


def test_the_shortest_read_takes_no_key_that_is_none(tmp_path: Path) -> None:
    """It asks the index before any check; an invalid key still raises `InvalidKeyError`."""
    manager = MemoryManager(
        "1 B", "1 B", "10 MB", storage_path=tmp_path, migration=False, prefetch="off"
    )
    manager.store("key", b"value", tier="cold")
    for wrong in (7, None, b"key", ("key",), ["key"], "", "\ud800", "\0key"):
        with pytest.raises(InvalidKeyError):
            manager.retrieve(wrong)  # type: ignore[arg-type]
    with pytest.raises(KeyNotFoundError):
        manager["absent"]
    assert "nothing" == manager.retrieve("absent", "nothing")
    assert 2 == manager.stats().misses, "each is counted once"
    manager.cleanup()
    with pytest.raises(ClosedError, match="cleaned up"):
        manager["key"]
