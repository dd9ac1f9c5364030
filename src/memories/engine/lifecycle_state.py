"""The states of a manager: what it may still do, and the error for what it may not.

A state only ever changes to a narrower one. A call that changes the store checks it under the lock
of the key.
"""

from __future__ import annotations

from enum import Enum

from memories.errors import ClosedError, ForkedError, StorageError


class LifecycleState(Enum):
    """What the manager may do."""

    OPEN = "open"
    READ_ONLY = "read-only"
    FORKED = "forked"
    CLOSED = "closed"


def require_readable(state: LifecycleState) -> None:
    """Raise ClosedError unless something can be read."""
    if state is LifecycleState.CLOSED:
        raise ClosedError("this manager was cleaned up; make a new MemoryManager")


def require_writable(state: LifecycleState) -> None:
    """Raise unless the store may be changed."""
    require_readable(state)
    if state is LifecycleState.FORKED:
        raise ForkedError(
            "this manager was opened before the fork; a child process may read from it, but "
            "to write it needs a MemoryManager of its own"
        )
    if state is LifecycleState.READ_ONLY:
        raise StorageError("this manager was opened with read_only=True and cannot be changed")
