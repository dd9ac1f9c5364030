"""Who holds something, and whether that work is still under way.

An interrupt can strike at any line, that of the `finally` which would have given the thing up
included. So what is held for the length of a call says for which call: when its frame is no longer
on the stack of its thread, the call is over, and what it held may be taken back.
"""

from __future__ import annotations

import gc
import sys
from threading import get_ident
from types import FrameType

LOOKS = 3


def thread_frames() -> dict[int, FrameType]:
    """Return the innermost frame of every thread, by its number.

    Before Python 3.13 this holds a lock of the interpreter, and a finalizer that the collector runs
    meanwhile may wait for it for ever. So the collector runs just before, and is not due again.
    """
    gc.collect(0)
    return sys._current_frames()


class CallOwner:
    """A call that is under way in some thread."""

    __slots__ = ("_frame", "thread")

    def __init__(self, depth: int = 1) -> None:
        """Stand for the call that makes this object, or for one of its callers."""
        self.thread = get_ident()
        self._frame: FrameType | None = sys._getframe(depth)

    @property
    def alive(self) -> bool:
        """Return whether the call has not ended, in one way or another."""
        # Another thread goes on while its frames are walked: a generator that stops meanwhile, and
        # leads nowhere then, is no proof that the call has ended. Two more looks are.
        return any(self._is_on_stack() for _ in range(LOOKS))

    def _is_on_stack(self) -> bool:
        mine = self.thread == get_ident()
        frame = sys._getframe(1) if mine else thread_frames().get(self.thread)
        while frame is not None and self._frame is not None:
            if frame is self._frame:
                return True
            frame = frame.f_back
        return False

    def end(self) -> None:
        """Say that the call is over; its frame and what that refers to are let go of."""
        self._frame = None
