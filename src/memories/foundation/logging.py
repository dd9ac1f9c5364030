"""The one logger: silent unless the program listens, and never a flood.

Not a configuration of logging: levels, handlers and formats are the program's own.
"""

from __future__ import annotations

import logging

BURST = 10
PERIOD_SECONDS = 60.0


class RateLimit(logging.Filter):
    """Lets through so many warnings or errors of a kind in a minute, and says how many it kept.

    A kind is a message before its arguments: a disk that is full fails for every key alike.
    """

    def __init__(self, burst: int = BURST, period_seconds: float = PERIOD_SECONDS) -> None:
        super().__init__()
        self._burst = burst
        self._period_seconds = period_seconds
        self._kinds: dict[str, tuple[float, int]] = {}  # Since when, and how many since then.

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether `record` is to be heard."""
        if record.levelno < logging.WARNING:
            return True
        kind = str(record.msg)
        since, count = self._kinds.get(kind, (record.created, 0))
        if record.created - since >= self._period_seconds:
            kept = count - self._burst
            since, count = record.created, 0
            if kept > 0:
                record.msg = f"{record.msg} ({kept} more like it since the last were not logged)"
        self._kinds[kind] = (since, count + 1)
        return count < self._burst


logger = logging.getLogger("memories")
logger.addHandler(logging.NullHandler())
logger.addFilter(RateLimit())
