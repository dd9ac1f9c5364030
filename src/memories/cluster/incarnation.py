"""A node's mark: whether what it does not have was never written, or merely lost.

The one idea: a server that restarted empty, or from an old dump, answers as if nothing were wrong.
So every node carries a mark with the run id of its server process, which is lost or wrong after a
restart, and only a node whose mark is right has a say in what is absent.
"""

from __future__ import annotations

from typing import NamedTuple

INCARNATION_KEY = b"m:node"
UP = "up"  # Knows of every acknowledged write that was its to take.
JOINING = "in"  # Takes writes, and is being brought up to date.


class Incarnation(NamedTuple):
    """What stands in a node's mark."""

    state: str
    run_id: str  # The run id of the server process that was marked.
    epoch: int  # Of the member list under which it takes writes.

    @property
    def text(self) -> bytes:
        """Return the mark as it lies on the node."""
        return f"{self.state}:{self.run_id}:{self.epoch}".encode()

    @property
    def accepted(self) -> tuple[bytes, bytes]:
        """Return the two marks under which the node takes writes."""
        return self._replace(state=UP).text, self._replace(state=JOINING).text


def read_incarnation(text: bytes | None) -> Incarnation | None:
    """Return the mark in `text`; None if there is none."""
    parts = (text or b"").decode("utf-8", "replace").split(":")
    if len(parts) != 3 or parts[0] not in (UP, JOINING) or not parts[2].isdigit():
        return None
    return Incarnation(parts[0], parts[1], int(parts[2]))
