"""The logger: silent by itself, and a flood of one warning is a few lines and a count."""

from __future__ import annotations

import logging
import subprocess
import sys

from memories.foundation.logging import BURST, PERIOD_SECONDS, RateLimit


def record(message: str, at: float, level: int = logging.WARNING) -> logging.LogRecord:
    """Return a record of the time `at`."""
    made = logging.LogRecord("memories", level, __file__, 1, message, (), None)
    made.created = at
    return made


def test_a_kind_of_warning_is_heard_only_so_often() -> None:
    """A full disk fails for a million keys."""
    limit = RateLimit()
    heard = [limit.filter(record("full", at / 10)) for at in range(100)]
    assert [True] * BURST + [False] * (100 - BURST) == heard
    assert limit.filter(record("another", 1.0))


def test_the_next_one_says_how_many_were_kept() -> None:
    """The log must not suggest that there were only ten."""
    limit = RateLimit()
    for at in range(BURST + 5):
        limit.filter(record("full", at / 10))
    late = record("full", PERIOD_SECONDS + 1)
    assert limit.filter(late)
    assert "5 more like it" in late.getMessage()


def test_words_that_are_no_warning_pass() -> None:
    """A user who asked for them wants all of them."""
    limit = RateLimit()
    assert all(limit.filter(record("x", 0.0, logging.INFO)) for _ in range(100))


def test_without_a_configuration_nothing_is_printed() -> None:
    """A library that writes to the terminal spoils its user's output."""
    code = "from memories.foundation.logging import logger; logger.error('x'); logger.warning('y')"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=True)
    assert (b"", b"") == (run.stdout, run.stderr)
