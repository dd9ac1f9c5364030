"""What the file system still takes, asked rarely: the question costs as much as a small write.

What this store itself has written since is taken off; what others wrote is known a moment later,
and a write that no longer fits fails as on any full disk. Where little is free it is asked always.
"""

from __future__ import annotations

import time
from collections.abc import Callable

ASK_SECONDS = 0.1
PLENTY_BYTES = 4 << 30


class FreeSpace:
    """The free bytes of one file system, as `ask` says; any thread may ask."""

    def __init__(self, ask: Callable[[], int]) -> None:
        self._ask = ask
        self._known = (float("-inf"), 0, 0)  # When it was asked, what was free and what was held.

    def __call__(self, held: int) -> int:
        """Return what is free, where this store holds `held` bytes by now."""
        asked, free, then = self._known
        now = time.monotonic()
        if now - asked >= ASK_SECONDS or free - (held - then) < PLENTY_BYTES:
            then, free = held, self._ask()
            self._known = (now, free, then)
        return max(0, free - max(0, held - then))
