"""Brings a file of frames into the store, without copying its bytes where that can be.

A reflink shares the blocks until one side changes; a hard link shares the file, so whoever holds
the other name must never write to it; a copy is the last resort.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from memories.backends.disk.files import Files, append, sync_file
from memories.backends.disk.journal import PACKED, pack_place, placed
from memories.entry import Record

Adoption = tuple[Record, int, int]  # With the offset and the length of its frame in the file.

_FICLONE = 0x40049409
_COPY_BYTES = 8 << 20


class Adopted(NamedTuple):
    """What became of a file."""

    items: int
    shared: bool  # Its bytes are those that lay there; otherwise they were written anew.


def bring_in(source: Path, target: Path, files: Files) -> tuple[int, bool]:
    """Make `target` hold the bytes of `source`, synced; return how many, and if they are shared."""
    try:
        shared = _reflink(source, target, files) or _link(source, target, files)
        if not shared:
            _copy(source, target, files)
        sync_file(files, target)
        files.sync_directory(target.parent)
    except BaseException:
        files.unlink(target)
        raise
    return target.stat().st_size, shared


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
        fcntl.ioctl(taken, _FICLONE, given)
    except OSError:
        files.unlink(target)
        return False
    finally:
        files.close(given)
        files.close(taken)
    return True


def _link(source: Path, target: Path, files: Files) -> bool:
    try:
        files.link(source, target)
    except OSError as error:
        if error.errno in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
            return False
        raise
    return True


def _copy(source: Path, target: Path, files: Files) -> None:
    taken, given = files.create(target), files.open(source)
    try:
        offset, size = 0, os.fstat(given).st_size
        while offset < size:
            data = files.read(given, _COPY_BYTES, offset)
            append(files, taken, [data])
            offset += len(data)
    finally:
        files.close(given)
        files.close(taken)
