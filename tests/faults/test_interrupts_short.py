"""Ctrl-C in a store or a delete by the short way, and in what settles it later.

The cases and their checks are those of `test_interrupts`, which strikes at few lines of each call
and, in the torture campaign, at all. The short way has few lines, so more of them are taken here.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.faults.test_interrupts import ABSENT, CASES, Bench, Case, after, handled, interrupt
from tests.support.interrupting import Interrupter

from memories.compiled import core
from memories.model.events import Event, Removed, Stored
from memories.observe.counters import Stats

pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.skipif(
        core().compiled, reason="compiled code has no lines; `make test` runs this interpreted"
    ),
]

SHORT = [
    "store into hot", "store into warm", "store into auto", "store into hot over hot",
    "store into hot over warm", "store into warm over hot", "delete from hot", "delete from warm",
]  # fmt: skip
WAITING = 5  # Keys whose changes are settled by one question.
STEP = 5  # Of the lines of a settlement, one in so many.


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Give a store whose calls are interrupted."""
    made = Bench(tmp_path)
    gc.collect()
    gc.freeze()  # A repair collects garbage: it need not look at the modules of all tests.
    yield made
    made.manager.cleanup()
    gc.unfreeze()


@pytest.mark.parametrize("name", SHORT)
def test_these_calls_take_the_short_way(bench: Bench, name: str) -> None:
    """Otherwise the tests below would prove nothing about it."""
    interrupter = Interrupter()
    one = CASES[name](bench)
    interrupter.run(one.call)
    assert any("engine/residency.py" in line for line in interrupter.trail)
    assert not any("engine/mover.py" in line for line in interrupter.trail)
    bench.conclude(one)


def some(name: str, step: int) -> Iterator[int]:
    """Yield one in so many line numbers, other ones for each call."""
    return iter(range(1 + sum(name.encode()) % step, 10**6, step))


@pytest.mark.parametrize("name", SHORT)
def test_an_interrupt_at_some_lines(bench: Bench, name: str) -> None:
    """The call is done or not done, nothing is left behind, and reopening agrees."""
    assert interrupt(bench, name, some(name, 2), KeyboardInterrupt) > 10


@pytest.mark.parametrize("name", SHORT)
def test_no_memory_at_some_lines(bench: Bench, name: str) -> None:
    """The same for a failure that may end a call anywhere."""
    assert interrupt(bench, name, some(name, 7), MemoryError)


@pytest.mark.parametrize("name", SHORT)
def test_a_signal_handler_at_some_lines(bench: Bench, name: str) -> None:
    """It reads, and it stores or raises that its thread is busy; it never waits for itself."""
    handled(bench, name, some(name, 3))


def waiting(bench: Bench) -> Case:
    """Store, overwrite and delete without a question, and return the question as the case."""
    bench.manager.stats()
    may_hold = {}
    for number in range(WAITING):
        key, old, new = bench.fresh()
        bench.manager.store(key, old, "hot")
        may_hold[key] = [old]
        if number % 2:
            bench.manager.store(key, new, "warm")
            may_hold[key] = [new]
        if number % 3 == 2:
            bench.manager.delete(key)
            may_hold[key] = [ABSENT]
    return Case(bench.manager.stats, may_hold)


MADE = (WAITING + WAITING // 2, WAITING // 3)  # What `waiting` stores and deletes.


def made(before: Stats, after: Stats) -> tuple[int, int]:
    """Return how many stores and removals were counted, each of them by all of its counters."""
    stored = after.stored - before.stored
    samples = [
        sum(latency.samples for (what, _), latency in stats.latencies.items() if what == "store")
        for stats in (before, after)
    ]
    assert stored == samples[1] - samples[0]
    return stored, sum(after.removed.values()) - sum(before.removed.values())


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_a_settlement_is_interrupted(bench: Bench, error: type[BaseException]) -> None:
    """What it left is settled by the next question: nothing is lost, and counters stay exact.

    An observer may get twice what is delivered to it at once.
    """
    events: Counter[tuple[type[Event], str]] = Counter()

    def note(event: Event) -> None:
        if isinstance(event, Stored | Removed):
            events[type(event), event.key] += 1

    interrupter = Interrupter(error)
    for line in range(1, 10**6, STEP):
        bench.manager._hierarchy.events.subscribe(note)
        before = bench.manager.stats()
        one = waiting(bench)
        ended = interrupter.run(one.call, line)
        with after(f"line {line} of a settlement", interrupter):
            bench.manager._hierarchy.operations._retry_at = 0.0  # As if a second had passed.
            if error is KeyboardInterrupt:
                assert MADE == made(before, bench.manager.stats())
            bench.conclude(one)
            for number, key in enumerate(one.may_hold):
                stored = 2 if number % 2 else 1
                if error is KeyboardInterrupt:  # Without memory an observer misses an event.
                    assert stored <= events[Stored, key], f"{key} was not reported"
                assert events[Stored, key] <= 2 * stored, f"{key} was reported again and again"
        bench.manager._hierarchy.events.unsubscribe(note)
        if not ended and interrupter.lines < line:
            break
    assert line > 50 * STEP
    bench.reopen()
