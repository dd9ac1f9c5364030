"""Writes durable copies of cached results in the background.

A result can be computed again, so nothing waits for its copy, and a result that finds no room has
none. Copies that are not written when the manager ends are written then.
"""

from __future__ import annotations

from queue import Empty, SimpleQueue

from memories.engine.hierarchy import Hierarchy
from memories.foundation.periodic import Periodic


class WriteBehind:
    """Writes values to a durable tier, one after the other, in a thread of its own."""

    def __init__(self, hierarchy: Hierarchy) -> None:
        self._hierarchy = hierarchy
        self._keys: SimpleQueue[str] = SimpleQueue()
        self._thread = Periodic(self._write, "write-behind")

    def request(self, key: str) -> None:
        """Write a durable copy of `key` soon."""
        self._keys.put(key)
        self._thread.wake()

    def stop(self) -> None:
        """Stop, after the value that is being written."""
        self._thread.stop()

    def _write(self) -> None:
        while not self._thread.stopped:
            try:
                key = self._keys.get_nowait()
            except Empty:
                return
            try:
                self._hierarchy.write_back(key)
            except OSError:
                self._keys.put(key)  # `Periodic` logs the error and calls again in a second.
                raise
