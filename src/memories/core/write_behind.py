"""Durable copies of results, written behind the back of who computed them.

Not a promise: a result can be computed again, so nobody waits for its copy, and one that finds no
room goes without. What is still to be written when the manager ends is written then.
"""

from __future__ import annotations

from queue import Empty, SimpleQueue

from memories.engine.hierarchy import Hierarchy
from memories.foundation.periodic import Periodic


class WriteBehind:
    """Writes versions to a durable tier, one after the other, in a thread of its own."""

    def __init__(self, hierarchy: Hierarchy) -> None:
        self._hierarchy = hierarchy
        self._keys: SimpleQueue[str] = SimpleQueue()
        self._thread = Periodic(self._write, "backing")

    def ask(self, key: str) -> None:
        """Have a durable copy of `key` soon."""
        self._keys.put(key)
        self._thread.wake()

    def stop(self) -> None:
        """Write no more, after the one that is being written."""
        self._thread.stop()

    def _write(self) -> None:
        while not self._thread.stopped:
            try:
                key = self._keys.get_nowait()
            except Empty:
                return
            try:
                self._hierarchy.back(key)
            except OSError:
                self._keys.put(key)  # The thread says what failed, and tries again in a second.
                raise
