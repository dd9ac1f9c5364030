"""Turns what the operating system says into the errors of this package."""

from __future__ import annotations

import errno
from pathlib import Path

from memories.errors import StorageError

_ADVICE = {
    errno.ENOSPC: "the disk is full; free some space, nothing stored before is lost",
    errno.EDQUOT: "the quota is used up; free some space, nothing stored before is lost",
    errno.EROFS: "the file system is read-only; open the store with read_only=True",
    errno.EACCES: "permission was denied; check who owns the directory",
    errno.EMFILE: "this process has too many open files; raise `ulimit -n`",
    errno.ENFILE: "the system has too many open files",
    errno.EIO: "the disk reported an input/output error; check its health",
}


def storage_error(action: str, root: Path, error: OSError) -> StorageError:
    """Return a `StorageError` that says what failed where, why, and what to do."""
    advice = _ADVICE.get(error.errno or 0, "check the disk and the directory")
    refused = StorageError(f"could not {action} in {root}: {error.strerror or error}; {advice}")
    refused.errno = error.errno
    return refused
