"""Lets a commit in once there is room for it: whoever writes too fast gives dead bytes back first.

So neither the capacity nor the bound on dead bytes depends on how fast the background is.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from memories.backends.disk.committer import NoRoomError
from memories.backends.disk.compact import make_room
from memories.backends.disk.translate import storage_error
from memories.backends.disk.writer import Writer
from memories.errors import TierFullError
from memories.units import format_size

_HEAD_BYTES = 8 << 10  # More than the head of a record with the longest key.
Done = TypeVar("Done")


def admit(
    writer: Writer, action: str, commit: Callable[[Writer], Done], *, head: bool = False
) -> Done:
    """Return `commit(writer)`, once there is room; a mere `head` is written in any case.

    Raises:
        TierFullError: what somebody still reads takes the room.
        StorageError: the disk failed; nothing has changed.
    """
    root: Path = writer.layout.root
    try:
        if head and not writer.fits(_HEAD_BYTES):
            make_room(writer, _HEAD_BYTES)
        while True:
            try:
                return commit(writer)
            except NoRoomError as wanted:
                size = wanted.size
            if not make_room(writer, size):
                raise TierFullError(_full(writer, action, size))
    except OSError as error:
        raise storage_error(action, root, error) from error


def _full(writer: Writer, action: str, size: int) -> str:
    held, live = writer.physical(), writer.ledger.live
    return (
        f"could not {action}: {writer.layout.root} takes {format_size(held)} of "
        f"{format_size(writer.scale.capacity)}, {format_size(held - live)} of them besides its "
        f"values, and {format_size(size)} more do not fit; let go of views of replaced values, end "
        "snapshots that run, or make the cold tier larger"
    )
