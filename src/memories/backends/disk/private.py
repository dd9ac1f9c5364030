"""Store directories that nobody is to see again: removed at the end, or swept at the next start.

Not a cache of anything. Each directory holds a locked file for as long as its process lives; the
lock goes with the process, however it ends, so that whoever starts next can tell what is dead.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from pathlib import Path

from memories.errors import StorageError

_LOCK = "ALIVE"


class PrivateDirectory:
    """A directory of this process alone; `remove` takes it away. Idempotent, and no child's."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock
        self._pid = os.getpid()

    def remove(self) -> None:
        """Remove the directory and everything in it."""
        if self._lock < 0 or os.getpid() != self._pid:
            return
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)
        self._lock = -1


def private_directory() -> PrivateDirectory:
    """Return a new private directory below the system's temporary one, after sweeping dead ones.

    Raises:
        StorageError: the place for it belongs to somebody else, or cannot be written.
    """
    home = Path(tempfile.gettempdir()) / f"memories-{os.getuid()}"
    try:
        home.mkdir(mode=0o700, exist_ok=True)
        _require_own(home)
        sweep(home)
        path = Path(tempfile.mkdtemp(dir=home))
        lock = os.open(path / _LOCK, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(
            f"{home} cannot hold a private store: {error}. Give a storage_path, or set TMPDIR"
        ) from error
    return PrivateDirectory(path, lock)


def sweep(home: Path) -> int:
    """Remove the directories below `home` whose processes are dead, and return how many."""
    count = 0
    for path in home.iterdir():
        lock = _lock_of_the_dead(path / _LOCK)
        if lock is not None:
            shutil.rmtree(path, ignore_errors=True)
            os.close(lock)
            count += 1
    return count


def _lock_of_the_dead(path: Path) -> int | None:
    """Return a lock on `path`, or None while its process lives or has not yet locked it."""
    try:
        lock = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    return lock


def _require_own(home: Path) -> None:
    state = home.lstat()
    if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.getuid():
        raise StorageError(f"{home} belongs to somebody else; set TMPDIR to a directory of yours")
    if stat.S_IMODE(state.st_mode) & 0o077:
        home.chmod(0o700)
