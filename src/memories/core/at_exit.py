"""Closes managers that nothing else closes when the interpreter exits."""

from __future__ import annotations

import atexit
import os
from typing import Protocol


class Closable(Protocol):
    """A manager."""

    def cleanup(self) -> None:
        """Write what must survive, and close."""


def close_at_exit(manager: Closable) -> None:
    """Close `manager` at the exit of this process, and not at that of a forked child."""
    atexit.register(_close, os.getpid(), manager)


def _close(pid: int, manager: Closable) -> None:
    if pid == os.getpid():
        manager.cleanup()
