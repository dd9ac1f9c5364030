"""Brings a file of frames into the store, without copying its bytes where that is possible.

A reflink shares the blocks until one side changes; a hard link shares the file, so that nothing may
be written to it under its other name; a copy is the last resort.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from memories.backends.disk.files import Files, append, sync_file
from memories.backends.disk.log_format import PACKED, pack_place, placed
from memories.foundation.system import clone_file
from memories.model.record import Record

Adoption = tuple[Record, int, int]  # With the offset and the length of its frame in the file.

_COPY_BYTES = 8 << 20


class Adopted(NamedTuple):
    """How a file was taken over."""

    items: int
    shared: bool  # Its bytes are those that lay there; otherwise they were copied.
    pending: bool = False  # It is read where it lay, and not durable here before `sync`.


def share(source: Path, target: Path, files: Files) -> bool:
    """Have `target` share the bytes of `source`, synced; return whether that was possible."""
    try:
        shared = _reflink(source, target, files) or _link(source, target, files)
        if shared:
            sync_file(files, target)
            files.sync_directory(target.parent)
    except BaseException:
        files.unlink(target)
        raise
    return shared


def copy_in(
    given: int, target: Path, files: Files, step: Callable[[int], object] = lambda count: None
) -> None:
    """Make `target` hold the bytes of an open file, synced, or not exist.

    `step` is called with the length of each piece, and may raise to end the copy.
    """
    try:
        taken = files.create(target)
        try:
            _copy(given, taken, files, step)
            files.sync(taken)
        finally:
            files.close(taken)
        files.sync_directory(target.parent)
    except BaseException:
        files.unlink(target)
        raise


def placed_in(pack: int, batches: Iterable[Sequence[Adoption]]) -> Iterator[list[Record]]:
    """Yield the records of each batch with the places of their frames in `pack`."""
    for batch in batches:
        yield [
            placed(record, length, pack_place(PACKED, pack, offset, length))
            for record, offset, length in batch
        ]


def _reflink(source: Path, target: Path, files: Files) -> bool:
    taken, given = files.create(target), files.open(source)
    try:
        cloned = clone_file(given, taken)
    finally:
        files.close(given)
        files.close(taken)
    if not cloned:
        files.unlink(target)
    return cloned


def _link(source: Path, target: Path, files: Files) -> bool:
    try:
        files.link(source, target)
    except OSError as error:
        if error.errno in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
            return False
        raise
    return True


def _copy(given: int, taken: int, files: Files, step: Callable[[int], object]) -> None:
    offset, size = 0, files.size(given)
    while offset < size:
        data = files.read(given, _COPY_BYTES, offset)
        if not data:
            raise OSError(errno.EIO, "the file has become shorter while it was copied")
        append(files, taken, [data])
        files.begin_sync(taken, offset, len(data))
        offset += len(data)
        step(len(data))
