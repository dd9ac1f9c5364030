"""The managers that adapters use: given, named, or opened for a URL."""

from __future__ import annotations

import atexit
import os
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memories.core.at_exit import close_at_exit
from memories.core.manager import MemoryManager
from memories.errors import InvalidOptionError, InvalidOptionTypeError, StoreLockedError
from memories.foundation.fork_lock import new_lock
from memories.options.settings import check_path
from memories.sharing import SharedMemoryManager

_lock = new_lock()
_named: weakref.WeakValueDictionary[str, MemoryManager] = weakref.WeakValueDictionary()
_opened: dict[tuple[int, str | None, str, str], MemoryManager] = {}
_shared: dict[str, SharedMemoryManager] = {}


def check_manager(manager: Any, *, shared: bool = False) -> Any:
    """Return `manager` if it is one; with `shared`, a `SharedMemoryManager` is one, too.

    Raises:
        InvalidOptionTypeError: it is something else.
    """
    if isinstance(manager, (MemoryManager, SharedMemoryManager) if shared else MemoryManager):
        return manager
    kinds = "MemoryManager or a SharedMemoryManager" if shared else "MemoryManager"
    raise InvalidOptionTypeError(
        f"manager={manager!r:.60} must be a {kinds}, not a {type(manager).__name__}"
    )


def register(name: str, manager: MemoryManager) -> None:
    """Let `memories://name/key` mean the key of `manager`, for as long as the manager exists.

    Raises:
        InvalidOptionError: the name is empty, or has a slash.
    """
    check_manager(manager)
    if not isinstance(name, str) or not name or "/" in name:
        raise InvalidOptionError(f"name={name!r:.60} must be a text without a slash")
    _named[name] = manager


def named(name: str) -> MemoryManager | None:
    """Return the manager of a name; None if there is none, or it is closed."""
    found = _named.get(name)
    return None if found is None or found._lifecycle.closed else found


def open_for_urls(
    storage_path: str | os.PathLike[str] | None, memory: str, disk: str
) -> MemoryManager:
    """Return the manager that all file systems of this process with these options share.

    Where another process has the directory open, it is a reader of what that one keeps.
    """
    where = None if storage_path is None else str(Path(storage_path).absolute())
    name = (os.getpid(), where, str(memory), str(disk))
    with _lock:
        manager = _opened.get(name)
        if manager is None or manager._lifecycle.closed:
            manager = _opened[name] = _open(where, memory, disk)
        return manager


def open_shared(
    storage_path: str | os.PathLike[str], options: Mapping[str, Any]
) -> SharedMemoryManager:
    """Return the manager that all hosts of this process have of a directory.

    It is closed at the exit: hosts make their caches from settings, and close none. The options of
    the first one are in force, as far as the directory is open.
    """
    where = str(check_path(storage_path))
    with _lock:
        manager = _shared.get(where)
        if manager is None or manager.closed:
            manager = _shared[where] = SharedMemoryManager(where, **options)
            atexit.register(manager.cleanup)
        return manager


def _open(where: str | None, memory: str, disk: str) -> MemoryManager:
    try:
        manager = MemoryManager("1 kB", memory, disk, storage_path=where)
    except StoreLockedError:
        manager = MemoryManager("1 kB", memory, disk, storage_path=where, read_only=True)
    close_at_exit(manager)  # It writes what is only in RAM.
    return manager
