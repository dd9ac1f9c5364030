"""Reads a small file that another process or user may have put there.

A FIFO would be waited for, a device never ends, and a link leads elsewhere: none of them is read.
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
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if links else os.O_NOFOLLOW)
    descriptor = os.open(path, flags)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"larger than {limit} bytes", str(path))
    return Found(data, found.st_uid, stat.S_IMODE(found.st_mode))
