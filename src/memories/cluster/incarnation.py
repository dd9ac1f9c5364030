"""The incarnation of a node: tells a node that never had a register from one that lost it.

A server that restarted empty, or from an old dump, answers as if nothing were wrong. So each node
stores the run id of its server process. After a restart the stored id is missing or belongs to the
process before, and the node does not vote on what is absent until it is up to date again.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

_EPOCH = re.compile(r"[0-9]{1,18}")
INCARNATION_KEY = b"m:node"
UP = "up"  # The node has every acknowledged write that it should have.
JOINING = "in"  # The node accepts writes, and older ones are being copied to it.


class Incarnation(NamedTuple):
    """The state of one server process, as a node stores it."""

    state: str
    run_id: str  # Of the server process that stored it.
    epoch: int  # Of the member list under which the node accepts writes.

    @property
    def text(self) -> bytes:
        """Return the bytes that the node stores."""
        return f"{self.state}:{self.run_id}:{self.epoch}".encode()

    @property
    def accepted(self) -> tuple[bytes, bytes]:
        """Return the two stored forms under which the node accepts writes."""
        return self._replace(state=UP).text, self._replace(state=JOINING).text


def read_incarnation(text: Any) -> Incarnation | None:
    """Return the incarnation that `text` stores; None if it is missing or damaged."""
    parts = text.decode("utf-8", "replace").split(":") if isinstance(text, bytes) else []
    if len(parts) != 3 or parts[0] not in (UP, JOINING) or not _EPOCH.fullmatch(parts[2]):
        return None
    return Incarnation(parts[0], parts[1], int(parts[2]))
