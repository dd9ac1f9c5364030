"""The call that owns a lock, a reservation or a file, and whether that call is still running.

An interrupt can come at any line, also inside the `finally` that would release the resource. So a
resource that is owned for the length of a call names its call: when the frame of the call is no
longer on the stack of its thread, the call is over, and another thread may take the resource.
"""

from __future__ import annotations

import gc
import sys
from threading import get_ident
from types import FrameType

LOOKS = 3


def thread_frames() -> dict[int, FrameType]:
    """Return the innermost frame of every thread, by its identifier.

    Before Python 3.13 `sys._current_frames` holds a lock of the interpreter, and a finalizer that
    the garbage collector runs during the call could wait for that lock for ever. A collection just
    before the call makes another one during it unlikely to be due.
    """
    gc.collect(0)
    return sys._current_frames()


class CallOwner:
    """A call that runs in some thread."""

    __slots__ = ("_frame", "thread")

    def __init__(self, depth: int = 1) -> None:
        """Name the call that makes this object, or with a larger `depth` one of its callers."""
        self.thread = get_ident()
        self._frame: FrameType | None = sys._getframe(depth)

    @property
    def alive(self) -> bool:
        """Return whether the call is still running."""
        # Another thread goes on while its frames are walked. A generator that suspends in between
        # ends the walk early, so a call counts as over only after several walks did not find it.
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
        """Mark the call as over and release its frame, with everything that it refers to."""
        self._frame = None
