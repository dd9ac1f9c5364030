"""The library's logger: silent unless the program configures logging, and limited in its rate.

Levels, handlers and formats are left to the program.
"""

from __future__ import annotations

import logging

BURST = 10
PERIOD_SECONDS = 60.0


class RateLimit(logging.Filter):
    """Passes a limited number of warnings of a kind in a period, and counts the suppressed ones.

    The kind is the message before its arguments are filled in: a full disk fails for every key.
    """

    def __init__(self, burst: int = BURST, period_seconds: float = PERIOD_SECONDS) -> None:
        super().__init__()
        self._burst = burst
        self._period_seconds = period_seconds
        self._kinds: dict[
            str, tuple[float, int]
        ] = {}  # The begin of the period, and the count in it.

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether `record` is logged."""
        if record.levelno < logging.WARNING:
            return True
        kind = str(record.msg)
        since, count = self._kinds.get(kind, (record.created, 0))
        if record.created - since >= self._period_seconds:
            suppressed = count - self._burst
            since, count = record.created, 0
            if suppressed > 0:
                record.msg = (
                    f"{record.msg} ({suppressed} more like it since the last were not logged)"
                )
        self._kinds[kind] = (since, count + 1)
        return count < self._burst


logger = logging.getLogger("memories")
logger.addHandler(logging.NullHandler())
logger.addFilter(RateLimit())
