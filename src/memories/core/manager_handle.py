"""Managers as handles that can be pickled: the same manager here, a reader in another process.

Adapters of a host and cached functions are sent to workers. A worker in this process, or in a fork
of it, gets the manager itself. A worker in another process opens the same directory for reading.
"""

from __future__ import annotations

import uuid
import weakref
from collections import deque
from typing import Any, NamedTuple

from memories.core.lifecycle import Lifecycle, running
from memories.core.pickled_reader import is_unopened, open_reader, unopened
from memories.engine.lifecycle_state import LifecycleState
from memories.errors import UnsupportedTypeError
from memories.foundation.fork_lock import new_lock

READERS_KEPT = 4  # Workers get a handle with each task; opening the store each time is slow.

_lock = new_lock()
_tokens: weakref.WeakKeyDictionary[Lifecycle, str] = weakref.WeakKeyDictionary()
_readers: deque[tuple[Any, Any]] = deque(maxlen=READERS_KEPT)


class ManagerHandle(NamedTuple):
    """What is pickled in the place of a manager.

    Attributes:
        token: The name of the manager in the process that opened it, and in forks of it.
        where: The directory of the store, as text.
        arguments: How another process opens it; empty if no other process can.
        kind: The class of the manager there.
        refusal: Why no other process can.
    """

    token: str
    where: str
    arguments: tuple[Any, ...]
    kind: type
    refusal: str = ""


def handle_of(manager: Any, *, flush: bool = True) -> ManagerHandle:
    """Return the handle of `manager`; all that is stored is on the disk when this returns.

    A reader in another process sees only what is on the disk. It would report a value that is only
    in RAM as absent, and a host would take its absence for a chunk of fill values. `flush=False` is
    for those who compute what is absent.
    """
    services = manager._services
    services.hierarchy.require_readable()
    token = token_of(manager)
    where = str(services.settings.storage_path)
    # The class that says how it is opened elsewhere.
    kind = next(one for one in type(manager).__mro__ if "__reduce__" in vars(one))
    if services.is_private:
        return ManagerHandle(
            token,
            where,
            (),
            kind,
            "no other process can open its directory: give the manager a storage_path",
        )
    if not flush:
        pass
    elif services.hierarchy.state is LifecycleState.OPEN:
        manager.flush()
    elif services.hierarchy.unwritten_keys():
        return ManagerHandle(
            token,
            where,
            (),
            kind,
            "it was sent by a fork of the process that opened the "
            "manager, and values are only in RAM: call flush() before the fork",
        )
    return ManagerHandle(token, where, services.reader_arguments(), kind)


def token_of(manager: Any) -> str:
    """Return the name of a manager in this process, and in forks of it."""
    with _lock:
        return _tokens.setdefault(manager._lifecycle, uuid.uuid4().hex)


def open_handle(handle: ManagerHandle) -> Any:
    """Return the manager of a handle: the one of this process, or else a reader.

    If neither is possible, each use of the result raises the reason.
    """
    with _lock:
        mine = [one for one, token in _tokens.items() if token == handle.token]
    manager = _open_manager(mine, handle.kind)
    if manager is not None:
        return manager
    if not handle.arguments:
        error = UnsupportedTypeError(
            f"this store over a manager cannot be used in another process: {handle.refusal}"
        )
        return unopened(handle.kind, error)
    same = [one for one in running() if _directory(one) == handle.where]
    manager = _open_manager(same, handle.kind)
    return _reader(handle) if manager is None else manager


def _directory(lifecycle: Lifecycle) -> str:
    return str(lifecycle.services.settings.storage_path)


def _open_manager(lifecycles: list[Lifecycle], kind: type) -> Any | None:
    """Return an open manager whose services one of these ends."""
    for lifecycle in lifecycles:
        for manager in lifecycle.owners():
            if isinstance(manager, kind) and not lifecycle.closed:
                return manager
    return None


def _reader(handle: ManagerHandle) -> Any:
    with _lock:
        for where, manager in _readers:
            if where == handle.where and not manager._lifecycle.closed:
                return manager
    reader = open_reader(handle.kind, *handle.arguments)
    if not is_unopened(reader):
        with _lock:
            _readers.append((handle.where, reader))
    return reader
