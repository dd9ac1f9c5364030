"""Lets time pass for times to live, at once: no value expires early on a busy machine."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from memories.foundation import clock

PassTime = Callable[[float], None]


@pytest.fixture
def pass_time(monkeypatch: pytest.MonkeyPatch) -> PassTime:
    """Return a function that advances the wall clock of this process by so many seconds."""
    system, steady, passed = clock._wall._system, clock._wall._steady, [0.0]
    # It never runs back: afterwards it must not remember the time that has passed here.
    monkeypatch.setattr(clock._wall, "_latest", clock._wall._latest)
    monkeypatch.setattr(clock._wall, "_system", lambda: system() + passed[0])
    monkeypatch.setattr(clock._wall, "_steady", lambda: steady() + passed[0])

    def advance(seconds: float) -> None:
        passed[0] += seconds

    return advance
