"""What only some operating systems can do, each call in one place, with what is done elsewhere.

Linux can do all of it. macOS lacks the files in /proc and some calls, and needs another call that
empties the cache of the disk. `make test-portable` runs the tests without what only Linux has.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")
_FICLONE = 0x40049409
_LOCAL_PEERCRED = 1  # At the level 0, of macOS: the version of the structure, and the user.
_UNNAMED_UNSUPPORTED = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT)


def sync(descriptor: int) -> None:
    """Return once a file or directory survives a power cut.

    On macOS `fsync` leaves the bytes in the cache of the disk; `F_FULLFSYNC` does not.
    """
    full = getattr(fcntl, "F_FULLFSYNC", None)
    if full is not None:
        try:
            fcntl.fcntl(descriptor, full)
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.EINVAL, errno.ENOTTY):
                raise  # Otherwise it is a file system without that call.
        else:
            return
    os.fsync(descriptor)


def sync_data(descriptor: int) -> None:
    """Return once the bytes and the length of a file survive a power cut."""
    if hasattr(os, "fdatasync") and not hasattr(fcntl, "F_FULLFSYNC"):
        os.fdatasync(descriptor)
    else:
        sync(descriptor)


def allocate(descriptor: int, length: int) -> None:
    """Take `length` bytes on the disk for an empty file; by zeros where there is no call for it."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, length)
        return
    zeros = memoryview(bytes(min(length, 1 << 20)))
    while length:
        length -= os.write(descriptor, zeros[:length])


def advise_sequential(descriptor: int) -> None:
    """Say that a file will be read from its beginning to its end."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)


def clone_file(source: int, target: int) -> bool:
    """Let an empty file share the blocks of another one (a reflink); return whether it does."""
    if sys.platform != "linux":
        return False
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        return False  # The file system has no reflinks, or they are two file systems.
    return True


def open_unnamed(directory: Path) -> int | None:
    """Open a new file without a name, which `name_file` names; None where there is no such thing.

    Raises:
        OSError: the directory cannot be written to.
    """
    if not hasattr(os, "O_TMPFILE") or not _own_descriptors():
        return None
    try:
        return os.open(directory, os.O_TMPFILE | os.O_RDWR, 0o600)
    except OSError as error:
        if error.errno not in _UNNAMED_UNSUPPORTED:
            raise
        return None


def name_file(descriptor: int, name: str, directory: int) -> None:
    """Give a file that `open_unnamed` has opened a name in an open directory.

    Raises:
        FileExistsError: something has that name.
    """
    # A directory descriptor makes Python call linkat, which follows the link in /proc.
    os.link(f"{_own_descriptors()}/{descriptor}", name, dst_dir_fd=directory)


def path_below(directory: int, name: str) -> str | None:
    """Return a short path to a name in an open directory; None where there is none."""
    descriptors = _own_descriptors()
    return f"{descriptors}/{directory}/{name}" if descriptors else None


def peer_user(connection: socket.socket) -> int | None:
    """Return the user of the process at the other end of a Unix socket; None where unknown."""
    import socket  # At the first use, like ctypes below.

    if hasattr(socket, "SO_PEERCRED"):
        size = struct.calcsize("3i")
        found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        return int(struct.unpack("3i", found)[1])
    if sys.platform == "darwin":
        return int(struct.unpack_from("2I", connection.getsockopt(0, _LOCAL_PEERCRED, 76))[1])
    return None


def usable_processors() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def boot_id() -> str:
    """Return what names the present start of the machine; an empty text where nothing does."""
    try:
        return (PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


@cache
def c_function(name: str) -> Callable[..., int] | None:
    """Return a function of the C library that Python has no name for; None if it is not there."""
    import ctypes  # At the first use: few programs need it.

    try:
        found: Callable[..., int] | None = getattr(ctypes.CDLL(None), name, None)
    except OSError:
        return None
    return found


def _own_descriptors() -> str:
    """Return the directory with the open descriptors of this process; empty if there is none."""
    own = PROC / "self/fd"
    return str(own) if own.exists() else ""
