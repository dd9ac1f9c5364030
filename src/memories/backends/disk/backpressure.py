"""Backpressure: a commit that finds no room gives dead bytes back itself before it is tried again.

So neither the capacity nor the bound on dead bytes depends on the speed of the background threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

from memories.backends.disk.appender import Frame
from memories.backends.disk.compaction import make_head_room, room_for
from memories.backends.disk.files import NO_SPACE, storage_error
from memories.backends.disk.reader import AbsentError, GoneError
from memories.backends.disk.space import NoRoomError
from memories.backends.disk.writer import Writer
from memories.errors import CorruptDataError, MemoriesError, StorageError, TierFullError
from memories.foundation.call_owner import CallOwner
from memories.foundation.units import format_size
from memories.model.record import Record

HEAD_BYTES = 8 << 10  # More than the head of a record with the longest key.
Done = TypeVar("Done")


def admit(writer: Writer, action: str, commit: Callable[[Writer, int], Done]) -> Done:
    """Return `commit(writer, granted)`, once there is room for what it writes.

    It is tried with nothing granted, and again with what it asked for once there is room.

    Raises:
        TierFullError: dead bytes that are still read take the room.
        StorageError: the disk failed; nothing has changed.
    """
    with ExitStack() as claim, reported(writer.paths.root, action):
        granted = 0
        while True:
            try:
                return commit(writer, granted)
            except NoRoomError as wanted:
                size = wanted.size  # More than was granted.
            claim.close()
            if not claim.enter_context(room_for(writer, size, CallOwner())):
                raise TierFullError(_full(writer, action, size))
            granted = size


def admit_value(writer: Writer, record: Record, frame: Frame) -> Record:
    """Write a frame once there is room for it."""
    return admit(
        writer,
        f"store {record.key!r}",
        lambda writer, granted: writer.write(record, frame, granted),
    )


def admit_head(
    writer: Writer, action: str, commit: Callable[[Writer], Done], size: int = HEAD_BYTES
) -> Done:
    """Return `commit(writer)`, which writes only heads of `size` bytes: also in a full store.

    They may take room that is kept for upkeep. Where enough has died since the last attempt,
    dead bytes are given back first; on a disk that other programs have filled this may fail.
    """
    with reported(writer.paths.root, action):
        if not writer.space.fits(size) and writer.space.worth_compacting():
            try:
                make_head_room(writer)
            except OSError as error:
                if error.errno not in NO_SPACE:
                    raise
            writer.space.record_unreclaimable()
        return commit(writer)


@contextmanager
def reported(root: Path, action: str) -> Iterator[None]:
    """Raise errors of the system and of reads as StorageError or CorruptDataError."""
    try:
        yield
    except MemoriesError:
        raise
    except (GoneError, OSError) as error:
        raise explained(error, root, action) from error


def explained(error: GoneError | OSError, root: Path, action: str) -> MemoriesError:
    """Return the error to raise for one of the system, or of a read."""
    if isinstance(error, AbsentError):
        return StorageError(f"could not {action} in {root}: {error}; bring it back")
    if isinstance(error, GoneError):
        return CorruptDataError(f"could not {action} in {root}: {error}; store it again")
    return storage_error(action, root, error)


def _full(writer: Writer, action: str, size: int) -> str:
    held, live = writer.space.physical(), writer.accounting.live
    capacity = writer.space.limits.capacity
    return (
        f"could not {action}: {writer.paths.root} takes {format_size(held)} of "
        f"{format_size(capacity)}, {format_size(held - live)} of them besides its values, and "
        f"{format_size(size)} more do not fit; release views of replaced values, end snapshots "
        "that run, or make the cold tier larger"
    )
