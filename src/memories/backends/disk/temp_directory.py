"""Temporary directories for stores without a path: private, locked while in use, and swept.

A directory is removed with its owner, at exit at the latest, and the last one removes the parent
directory. After a crash the next start finds it unlocked and removes it. Links are never followed,
and files of other users never touched.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import tempfile
import weakref
from pathlib import Path

from memories.backends.disk.file_system import is_in_ram
from memories.errors import BusyError, StorageError
from memories.foundation.fork_lock import lock_file
from memories.foundation.regular_file import open_regular

_CHOSEN = ("TMPDIR", "TEMP", "TMP")  # Variables by which a user chooses a directory.
_ALIVE, _LOCK = "ALIVE", "LOCK"
_ATTEMPTS = 100


class TempDirectory:
    """A directory that only this process uses, and that is removed with it."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._remove = weakref.finalize(self, _remove, path, descriptor, os.getpid())

    def remove(self) -> None:
        """Remove the directory and everything in it. Idempotent; does nothing in a forked child."""
        self._remove()


def new_temp_directory(base: Path | None = None) -> TempDirectory:
    """Make a new temporary directory, after sweeping those that dead processes left.

    Raises:
        StorageError: the parent directory is a link, belongs to another user, or is read-only.
    """
    try:
        base, guard = _enter(base)
        try:
            # Under the guard: otherwise another process could sweep it before it is locked.
            _sweep(base)
            path = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=base))
            descriptor = _lock(path / _ALIVE, wait=True)
        finally:
            _unlock(guard)
    except OSError as error:
        if isinstance(error, (StorageError, BusyError)):
            raise
        raise StorageError(
            f"could not make a private directory: {error}; give storage_path=, or set TMPDIR"
        ) from error
    return TempDirectory(path, descriptor)


def sweep_temp_directories(base: Path | None = None) -> int:
    """Remove the directories of processes that are gone, and return how many there were."""
    base, guard = _enter(base)
    try:
        return _sweep(base)
    finally:
        _unlock(guard)


def _enter(base: Path | None) -> tuple[Path, int]:
    """Return the parent directory, and the descriptor of the lock that is held on it."""
    attempts = 0
    while True:
        try:
            found = _base(base)
            guard = _lock(found / _LOCK, wait=True)
        except (FileNotFoundError, FileExistsError):
            # Another process has just removed the parent directory; or it cannot be made.
            attempts += 1
            if attempts == _ATTEMPTS:
                raise
            continue
        if os.fstat(guard).st_nlink:
            return found, guard
        os.close(guard)


def _leave(base: Path) -> None:
    """Remove the parent directory, if no process uses it or is about to."""
    try:
        guard = _lock(base / _LOCK, wait=False)
    except (BlockingIOError, FileNotFoundError):
        return
    try:
        # A lock file without a name belonged to a directory that was removed.
        if os.fstat(guard).st_nlink and [path.name for path in base.iterdir()] == [_LOCK]:
            (base / _LOCK).unlink()
            base.rmdir()
    except OSError as error:
        # Another process entered after the lock was unlinked, and removes it in its turn.
        if error.errno not in (errno.ENOTEMPTY, errno.ENOENT):
            raise
    finally:
        _unlock(guard)


def default_base() -> Path:
    """Return the directory for temporary stores: on a disk, unless the user has chosen another.

    On many systems /tmp is in RAM, where a tier of 500 GB of disk would be one of RAM. /var/tmp is
    for temporary files that are large.
    """
    usual = Path(tempfile.gettempdir())
    if any(os.environ.get(name) for name in _CHOSEN) or not is_in_ram(usual):
        return usual
    large = Path("/var/tmp")
    return large if os.access(large, os.W_OK | os.X_OK) and not is_in_ram(large) else usual


def _base(base: Path | None) -> Path:
    found = base or default_base() / f"memories-{os.getuid()}"
    found.mkdir(mode=0o700, exist_ok=True)
    status = found.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise StorageError(
            f"{found} is a link or belongs to another user; remove it, or set TMPDIR"
        )
    if stat.S_IMODE(status.st_mode) & 0o077:
        found.chmod(0o700)
    return found


def _lock(path: Path, *, wait: bool) -> int:
    descriptor = open_regular(path, os.O_RDWR | os.O_CREAT)
    try:
        if wait:
            lock_file(descriptor, path)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _unlock(descriptor: int) -> None:
    """Unlock and close it; a child that is being started may have a copy of the descriptor."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def _sweep(base: Path) -> int:
    count = 0
    for path in base.iterdir():
        if path.is_symlink() or not path.is_dir():
            continue
        try:
            descriptor = _lock(path / _ALIVE, wait=False)
        except (BlockingIOError, FileNotFoundError):
            continue  # It is in use, or its owner is removing it.
        shutil.rmtree(path, ignore_errors=True)
        _unlock(descriptor)
        count += 1
    return count


def _remove(path: Path, descriptor: int, owner: int) -> None:
    if os.getpid() != owner:
        os.close(descriptor)  # In a forked child: the directory and its lock belong to the parent.
        return
    shutil.rmtree(path, ignore_errors=True)
    _unlock(descriptor)
    _leave(path.parent)
