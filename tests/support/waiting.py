"""Wait for a condition, with a limit."""

from __future__ import annotations

import time
from collections.abc import Callable

LONG_SECONDS = 60.0  # Only a wait that hangs takes so long.


def comes_true(condition: Callable[[], object], seconds: float = LONG_SECONDS) -> bool:
    """Return whether `condition` comes true within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return bool(condition())
        time.sleep(0.005)
    return True


def until(condition: Callable[[], object], seconds: float = LONG_SECONDS) -> None:
    """Return once `condition` is true; fail if that takes longer than `seconds`."""
    assert comes_true(condition, seconds), f"the condition is still false after {seconds} s"
