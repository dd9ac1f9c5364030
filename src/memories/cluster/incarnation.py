"""The incarnation of a node: tells a node that never had a register from one that lost it.

A server that restarted empty, or from an old dump, answers as if nothing were wrong. So each node
stores the run id of its server process. After a restart the stored id is missing or belongs to the
process before, and the node does not vote on what is absent until it is up to date again.

A server process that has stored its id loses nothing while it lives. So it stays what it is when
the members change, even if it hung meanwhile and gets several member lists at once: it holds every
write that it has confirmed, and under the lists that it missed it has confirmed none.

    stored id       state     next state under a newer member list
    of the process  up        up
    of the process  joining   joining; up once the older writes have been copied to it
    missing, other  any       joining; up if the node was never a member
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


def next_incarnation(
    seen: Incarnation | None, run_id: str, epoch: int, *, new: bool = False
) -> Incarnation:
    """Return what a node must store to accept writes under a member list.

    This alone decides whether a node is up to date; only the end of a recovery changes that later.

    Args:
        seen: What it has stored.
        run_id: Of its server process.
        epoch: Of the member list; a newer one that the node has seen stays.
        new: It was never a member, so that it can have lost nothing.
    """
    if new:
        return Incarnation(UP, run_id, epoch)
    if seen is None or seen.run_id != run_id:
        return Incarnation(JOINING, run_id, epoch)
    return seen._replace(epoch=max(epoch, seen.epoch))
