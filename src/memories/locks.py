"""Locks that a forked child finds free, whoever held them in the parent."""

from __future__ import annotations

import os
import threading
import weakref

_locks: weakref.WeakSet[threading.Lock] = weakref.WeakSet()


def new_lock() -> threading.Lock:
    """Return a lock for state in RAM, held briefly and never over I/O.

    The child has one thread, which did not hold it: there is nothing to wait for, and what the
    lock guards is at worst one short update behind.
    """
    lock = threading.Lock()
    _locks.add(lock)
    return lock


def _free_all() -> None:
    for lock in list(_locks):
        lock._at_fork_reinit()  # type: ignore[attr-defined]


os.register_at_fork(after_in_child=_free_all)
