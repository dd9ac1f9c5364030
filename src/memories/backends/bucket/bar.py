"""A line on the standard error that says how far a long transfer is.

Not a log: it is written over itself, and only in a terminal. A transfer that takes less than a
second is not shown.
"""

from __future__ import annotations

import sys
import threading
import time

from memories.units import format_size

_PATIENCE_SECONDS = 1.0
_PAUSE_SECONDS = 0.2
_WIDTH = 24


class ProgressBar:
    """Shows the transfers that are under way, the latest report last. For any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._begun: dict[str, float] = {}
        self._shown = 0.0

    def __call__(self, key: str, done: int, total: int) -> None:
        """Learn that `done` of `total` bytes of `key` have been transferred."""
        now = time.monotonic()
        with self._lock:
            begun = self._begun.setdefault(key, now)
            ended = done >= total
            if ended:
                del self._begun[key]
            due = now - begun >= _PATIENCE_SECONDS and (ended or now - self._shown > _PAUSE_SECONDS)
            if due and sys.stderr is not None and sys.stderr.isatty():
                self._shown = now
                sys.stderr.write("\r" + line(key, done, total, now - begun) + "\n" * ended)
                sys.stderr.flush()


def line(key: str, done: int, total: int, seconds: float) -> str:
    """Return what is shown of one transfer."""
    filled = _WIDTH * done // max(1, total)
    bar = "#" * filled + "." * (_WIDTH - filled)
    rate = format_size(int(done / max(seconds, 1e-3)))
    name = ascii(key)[1:-1]
    short = name if len(name) <= 30 else f"{name[:14]}..{name[-14:]}"
    return f"{short:<30} [{bar}] {format_size(done)} of {format_size(total)}, {rate}/s "
