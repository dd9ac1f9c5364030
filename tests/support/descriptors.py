"""Finds descriptors that are closed twice: the second close hits whatever has got the number since.

A stranger's file is then closed, and fails somewhere else. Most often nothing has the number yet,
and the system says so; all code of these tests closes through `watched_close`, which keeps that.
"""

from __future__ import annotations

import errno
import os
import sys
from types import FrameType

_FRAMES = 12
_close = os.close
_closed_by: dict[int, list[str]] = {}  # By number: who has closed it last.
closed_twice: list[str] = []  # What was found since the last test.


def watched_close(fd: int) -> None:
    """Close a descriptor as `os.close` does, and note where that was."""
    try:
        _close(fd)
    except OSError as error:
        if error.errno == errno.EBADF:
            before = " <- ".join(_closed_by.get(fd, ["unknown"]))
            closed_twice.append(
                f"descriptor {fd} is closed by {' <- '.join(_stack())}; before it was closed by "
                f"{before}"
            )
        raise
    _closed_by[fd] = _stack()


def watch() -> None:
    """Have `os.close` note what it closes, from now on."""
    os.close = watched_close


def _stack() -> list[str]:
    """Return the innermost lines of this thread; cheap, because it runs at every close."""
    frame: FrameType | None = sys._getframe(2)
    lines: list[str] = []
    while frame is not None and len(lines) < _FRAMES:
        name = frame.f_code.co_filename.rpartition("/")[2]
        lines.append(f"{name}:{frame.f_lineno}")
        frame = frame.f_back
    return lines
