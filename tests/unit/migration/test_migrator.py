"""What the migrator leaves to other threads while it works: the interpreter, and no measurement."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from memories import MemoryManager, MigrationSettings
from memories.core import wiring
from memories.core.lifecycle import Lifecycle
from memories.core.wiring import assemble
from memories.engine.budget import RENEWAL_SECONDS, ROOM_SECONDS
from memories.engine.payload import Payload
from memories.migration import migrator as migrator_module
from memories.migration.key_cursor import MIN_SLICE
from memories.migration.migrator import LOOKED_AT_ONCE, PAUSE_SECONDS
from memories.migration.planner import Move
from memories.model.record import Terms
from memories.model.tiers import TierName
from memories.testing.clock import ManualClock

HOST_ROOM = 1 << 30


class Sleeper:
    """The `time.sleep` of the migrator: each pause advances the clock by what it really takes."""

    def __init__(self, clock: ManualClock) -> None:
        self.pauses = 0
        self.takes = PAUSE_SECONDS
        self._clock = clock

    def __call__(self, seconds: float) -> None:
        self.pauses += 1
        self._clock.advance(max(seconds, self.takes))


class Bench:
    """A manager whose migrator works only when it is called, on a clock of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch, self.clock = monkeypatch, ManualClock()
        self.measured: list[float] = []  # When.
        monkeypatch.setattr(wiring, "host_room", self._host_room)
        settings = MigrationSettings(interval_seconds=3600)
        with MemoryManager("1 MB", "8 MB", "8 MB", migration=False, prefetch="off") as manager:
            self.lifecycle: Lifecycle = assemble(manager._services.settings, settings, self.clock)
        services = self.lifecycle.services
        assert services.migrator is not None
        self.migrator, self.hierarchy = services.migrator, services.hierarchy
        self.migrator.stop()  # Its thread; the tests call it.
        self.sleeper = Sleeper(self.clock)
        monkeypatch.setattr(migrator_module, "time", SimpleNamespace(sleep=self.sleeper))

    def work_for(self, seconds: float) -> None:
        """Let the planner take so long for the keys between two pauses."""
        plan = self.migrator.planner.plan

        def slow(*entries: Any, **state: Any) -> Iterator[Move]:
            self.clock.advance(seconds)
            return plan(*entries, **state)

        self.monkeypatch.setattr(self.migrator.planner, "plan", slow)

    def _host_room(self) -> int:
        self.measured.append(self.clock.monotonic())
        return HOST_ROOM

    def fill(self, count: int) -> None:
        """Store so many values in hot."""
        for number in range(count):
            payload = Payload.of(b"v")
            self.hierarchy.put(f"{number:05d}", payload, tier=TierName.HOT, terms=Terms())


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """Return a bench that is closed afterwards."""
    bench = Bench(monkeypatch)
    yield bench
    bench.lifecycle.close(flush=False)


def test_a_store_finds_free_memory_measured(bench: Bench) -> None:
    """It waited for the interpreter after every call of the system with which it is measured."""
    bench.fill(1)
    for _ in range(20):
        bench.clock.advance(RENEWAL_SECONDS)
        bench.migrator.tick()
        before = list(bench.measured)
        bench.fill(1)
        assert before == bench.measured
    bench.clock.advance(ROOM_SECONDS)
    bench.fill(1)
    assert bench.measured[-1] == bench.clock.monotonic(), "and measures where no other thread did"


def test_free_memory_is_measured_in_the_middle_of_a_long_turn(bench: Bench) -> None:
    """A turn may take longer than a measurement is valid."""
    bench.fill(MIN_SLICE)
    bench.migrator.tick()
    bench.clock.advance(4.0)  # All of them are idle.
    bench.sleeper.takes = RENEWAL_SECONDS
    bench.measured.clear()
    bench.migrator.tick()
    assert {TierName.WARM} == {entry.tier for entry in bench.hierarchy.catalog.entries.values()}
    gaps = [after - at for at, after in zip(bench.measured, bench.measured[1:], strict=False)]
    assert len(gaps) > 10
    assert max(gaps) < ROOM_SECONDS


@pytest.mark.parametrize(("takes", "pauses"), [(PAUSE_SECONDS, 8), (0.005, 1)])
def test_a_look_that_moves_nothing_pauses_too(bench: Bench, takes: float, pauses: int) -> None:
    """It went through 50,000 keys while every other thread waited for the interpreter.

    Beside a thread that never waits, each pause lasts until that thread must give up the
    interpreter; then pauses take half of the time at most.
    """
    assert MIN_SLICE == 8 * LOOKED_AT_ONCE
    bench.fill(MIN_SLICE)
    bench.work_for(0.0005)
    bench.sleeper.takes = takes
    bench.migrator.tick()
    assert pauses == bench.sleeper.pauses
