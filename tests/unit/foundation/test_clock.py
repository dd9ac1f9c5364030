"""The wall clock, however the machine's clock is set."""

from __future__ import annotations

import random
import time

import pytest

from memories.foundation.clock import BELIEF_SECONDS, STEP_SECONDS, SystemClock, WallClock

DAY = 86_400.0


class Machine:
    """A machine whose clock can be set."""

    def __init__(self) -> None:
        self.uptime = 100.0
        self.offset = 1_800_000_000.0

    def system(self) -> float:
        return self.uptime + self.offset

    def steady(self) -> float:
        return self.uptime


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.mark.parametrize("jump", [10 * DAY, -10 * DAY, 60.0, -60.0])
def test_a_clock_that_was_wrong_for_a_moment_changes_nothing(machine: Machine, jump: float) -> None:
    """A key with ttl=1 lived for ten days after the clock had been ten days ahead."""
    wall = WallClock(machine.system, machine.steady)
    began = wall.read()
    machine.offset += jump
    for _ in range(int(BELIEF_SECONDS) - 5):
        machine.uptime += 1
        wall.read()
    machine.offset -= jump
    machine.uptime += 1
    assert BELIEF_SECONDS - 4 == pytest.approx(wall.read() - began)


@pytest.mark.parametrize("jump", [10 * DAY, -10 * DAY, 60.0, -60.0])
def test_a_clock_that_stays_set_is_followed(machine: Machine, jump: float) -> None:
    """A machine that starts with a wrong clock gets the right time a minute later."""
    wall = WallClock(machine.system, machine.steady)
    machine.offset += jump
    for _ in range(int(BELIEF_SECONDS) + 2):
        machine.uptime += 1
        wall.read()
    assert machine.system() == pytest.approx(wall.read())


def test_a_clock_set_by_little_is_followed_at_once_or_waited_for(machine: Machine) -> None:
    """The daily corrections of a time server must not make an age negative."""
    wall = WallClock(machine.system, machine.steady)
    began = wall.read()
    machine.offset += 0.5
    assert 0.5 == pytest.approx(wall.read() - began)
    machine.offset -= 0.4
    held = wall.read()
    assert 0.5 == pytest.approx(held - began)
    machine.uptime += 0.2
    assert held == wall.read()
    machine.uptime += 0.5
    assert machine.system() == pytest.approx(wall.read())


def test_time_never_runs_backwards_but_to_follow(machine: Machine) -> None:
    """However the clock is set, the error of an age is limited to `BELIEF_SECONDS`."""
    source = random.Random(5)
    wall = WallClock(machine.system, machine.steady)
    latest, agreed, followed = wall.read(), machine.uptime, 0
    for _ in range(5000):
        machine.uptime += source.choice((0.0, 0.01, 1.0))
        if source.random() < 0.02:
            machine.offset += source.choice((0.3, -0.3, 0.4, -0.4))
        if source.random() < 0.02:
            machine.offset += source.choice((DAY, -DAY, 5.0, -5.0))
        now = wall.read()
        if now < latest:
            followed += 1
            assert machine.uptime - agreed >= BELIEF_SECONDS - 2
        if abs(machine.system() - now) < STEP_SECONDS:
            agreed = machine.uptime
        latest = now
    assert followed


def test_all_parts_of_a_process_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """A manager that is made while the clock is wrong would give what it stores another age."""
    before = SystemClock().wall()
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 10 * DAY)
    assert 60 > SystemClock().wall() - before >= 0
