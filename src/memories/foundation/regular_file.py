"""Opens files in whose place another process or user may have put something else.

A FIFO would be waited for, a device never ends, and a link leads elsewhere: none of them is used,
unless a person gave its path.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import NamedTuple

MAX_BYTES = 64 << 20


class Found(NamedTuple):
    """The bytes of a file, the user that owns it, and its permissions."""

    data: bytes
    owner: int
    mode: int

    @property
    def is_trusted(self) -> bool:
        """Return whether the file belongs to this user or to root."""
        return self.owner in (0, os.geteuid())


def open_regular(path: str | os.PathLike[str], flags: int, *, links: bool = False) -> int:
    """Open a regular file, for its owner only where it is created; return the descriptor.

    Args:
        path: The file.
        flags: As `os.open` takes them, without `O_TRUNC`: what else lies there must stay whole.
        links: Whether a link is followed; what it leads to must be a regular file as well.

    Raises:
        FileNotFoundError: it is not there.
        OSError: it cannot be opened, or is not a regular file.
    """
    flags |= os.O_NONBLOCK | os.O_CLOEXEC | (0 if links else os.O_NOFOLLOW)
    descriptor = os.open(path, flags, 0o600)
    try:
        regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
    except BaseException:
        os.close(descriptor)
        raise
    if not regular:
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
    return descriptor


def open_output(path: str | os.PathLike[str]) -> int:
    """Open a file that a person named, empty, for its owner only; return the descriptor.

    Raises:
        OSError: it cannot be opened, is not a regular file, has a second name, or is a link that
            another user made.
    """
    require_own_link(path)
    descriptor = open_regular(path, os.O_WRONLY | os.O_CREAT, links=True)
    try:
        found = os.fstat(descriptor)
        if found.st_nlink > 1:
            raise OSError(errno.EMLINK, "it has a second name, and would change there, too")
        os.fchmod(descriptor, stat.S_IMODE(found.st_mode) & 0o600)
        os.ftruncate(descriptor, 0)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def require_own_link(path: str | os.PathLike[str]) -> None:
    """Raise OSError for a link that neither this user nor root has made.

    In a directory that many users can write to, it would lead the output of one user to a file that
    another one chose.
    """
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if stat.S_ISLNK(found.st_mode) and found.st_uid not in (0, os.geteuid()):
        raise OSError(errno.ELOOP, "it is a link of another user", os.fspath(path))


def require_regular(path: str | os.PathLike[str]) -> None:
    """Raise OSError for a file that a library will open by itself, if something else lies there.

    A file with a second name counts as something else: it would change there, too.
    """
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
    if found.st_nlink > 1:
        raise OSError(errno.EMLINK, "it has a second name, and would change there, too")


def read_regular(path: Path, *, limit: int = MAX_BYTES, links: bool = False) -> Found:
    """Return the bytes of a regular file.

    Args:
        path: The file.
        limit: The most bytes it may have.
        links: Whether a link is followed; what it leads to must be a regular file as well.

    Raises:
        FileNotFoundError: it is not there.
        OSError: it cannot be read, is not a regular file, or is larger than the limit.
    """
    descriptor = open_regular(path, os.O_RDONLY, links=links)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"larger than {limit} bytes", str(path))
    return Found(data, found.st_uid, stat.S_IMODE(found.st_mode))
