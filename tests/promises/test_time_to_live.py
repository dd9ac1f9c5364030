"""A time to live holds, whatever the clock does, and what has expired is in nobody's way."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from tests.promises.conftest import Make

from memories import KeyNotFoundError, MemoryManager
from memories.core.assembly import assemble
from memories.entry import Terms, TierName
from memories.parcel import Parcel
from memories.testing.clock import ManualClock

DAYS = 10 * 86_400.0


def test_a_clock_that_was_ahead_for_a_moment_keeps_nothing_alive(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was ten days ahead, and ttl=1 meant ten days for as long as the process lived."""
    real = time.time
    manager = make()
    manager.store("before", 1, ttl=1000)
    monkeypatch.setattr(time, "time", lambda: real() + DAYS)
    assert manager.exists("before")
    manager.store("during", 1, ttl=0.4)
    monkeypatch.undo()
    for tier in ("hot", "warm", "cold", "glacier"):
        manager.store(tier, 1, tier, ttl=0.4)
    time.sleep(0.5)
    assert ["before"] == list(manager)
    manager.cleanup()
    assert ["before"] == list(make())


def test_what_was_stored_in_the_future_lives_no_longer_than_it_was_given(tmp_path: Path) -> None:
    """A process that ran while the clock was wrong has left values, and their times, behind."""
    code = """
        import sys, time
        real = time.time
        time.time = lambda: real() + 864000.0
        from memories import MemoryManager
        with MemoryManager("5 MB", "5 MB", "20 MB", storage_path=sys.argv[1]) as manager:
            manager.store("short", 1, "cold", ttl=0.5)
            manager.store("long", 1, "cold", ttl=1000)
            manager.store("ram", 1, ttl=0.5)
            assert manager.exists("short")
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "store")]
    subprocess.run(command, check=True, timeout=60)
    with MemoryManager("5 MB", "5 MB", "20 MB", storage_path=tmp_path / "store") as manager:
        time.sleep(0.6)
        assert "long" in manager
        for key in ("short", "ram"):
            assert key not in manager
            with pytest.raises(KeyNotFoundError):
                manager.retrieve(key)


def test_a_clock_set_back_for_good_keeps_nothing_alive() -> None:
    """The manager was made while the clock was ten days ahead, and lives on after it was mended."""
    clock = ManualClock()
    with MemoryManager("5 MB", "5 MB", "20 MB", migration=False) as plain:
        engine = assemble(plain._engine.settings, False, clock)
    hierarchy = engine.hierarchy
    terms = Terms(expires_at=clock.wall() + 5)
    for tier in (TierName.HOT, TierName.COLD):
        hierarchy.put(tier, Parcel.of(1), tier=tier, terms=terms)
    clock._wall -= DAYS
    assert [1, 1] == [hierarchy.get("hot"), hierarchy.get("cold")]
    clock.advance(5)
    for key in ("hot", "cold"):
        with pytest.raises(KeyNotFoundError):
            hierarchy.get(key)
    engine.close()
