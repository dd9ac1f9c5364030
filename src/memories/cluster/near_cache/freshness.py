"""Freshness of local copies: which may be returned without a request to the nodes.

A copy is fresh while a lease lasts and no newer write was reported. The lease is extended while
enough nodes answer on the connections by which they report writes. The copies themselves are in
the warm tier of the manager.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from memories.cluster.versions import RegisterVersion
from memories.foundation.fork_lock import new_lock
from memories.foundation.keys import INTERNAL
from memories.model.events import Event, Removed

LEASE_SECONDS = 1.0  # The longest that a read may miss another manager's acknowledged write.
PREFIX = INTERNAL + "near/"
_SLOTS = 1024
_INSERT_LOCKS = 8  # Every call tests each lock of the manager, so there are not many.


class FreshnessToken(NamedTuple):
    """A point in time before a read; the value may be cached if no write was reported since."""

    slot: int
    changes: int
    generation: int


class Freshness:
    """The freshness of local copies by key. Safe to use from many threads.

    A hit reads `fresh_until` and `fresh` without a lock: `fresh` has the entry name of each copy
    for which no newer write was reported, and is valid until `fresh_until`.

    Args:
        drop: Removes the local copy of that name; called after the copy is no longer fresh.
    """

    __slots__ = (
        "__weakref__",
        "_changes",
        "_drop",
        "_generation",
        "_insert_locks",
        "_lock",
        "_versions",
        "fresh",
        "fresh_until",
    )

    def __init__(self, drop: Callable[[str], None]) -> None:
        self.fresh: dict[str, str] = {}
        self.fresh_until = 0.0  # Seconds of the monotonic clock.
        self._drop = drop
        self._versions: dict[str, RegisterVersion] = {}
        self._changes = [0] * _SLOTS
        self._generation = 0
        self._lock = new_lock()
        self._insert_locks = [new_lock() for _ in range(_INSERT_LOCKS)]

    def __len__(self) -> int:
        """Return how many copies there are, fresh or not."""
        return len(self._versions)

    def token(self, key: str) -> FreshnessToken:
        """Return the token that `insert` needs; call this before the nodes are read."""
        slot = hash(key) % _SLOTS
        return FreshnessToken(slot, self._changes[slot], self._generation)

    def version(self, key: str) -> RegisterVersion | None:
        """Return the version of the local copy of `key`, fresh or not; None if there is none."""
        return self._versions.get(key)

    def insert(
        self, key: str, version: RegisterVersion, token: FreshnessToken, put: Callable[[str], bool]
    ) -> bool:
        """Store a copy of `key` at `version` by `put(name)`, and return whether it is fresh.

        It is not, if a write was reported since the token was made. Inserts of one key wait for
        each other: without that, thread 1 could replace the copy that thread 2 has just declared
        fresh by an older one.
        """
        with self._insert_locks[token.slot % _INSERT_LOCKS]:
            if token != self.token(key) or not put(PREFIX + key):
                return False
            with self._lock:
                if token == self.token(key):
                    self._versions[key] = version
                    self.fresh[key] = PREFIX + key
                    return True
            self._drop(PREFIX + key)
            return False

    def revalidate(self, key: str, version: RegisterVersion, token: FreshnessToken) -> bool:
        """Declare the copy fresh after `version` was compared with the nodes; return whether it is.

        It is not, if a write was reported since the token was made.
        """
        with self._lock:
            if token != self.token(key) or self._versions.get(key) != version:
                return False
            self.fresh[key] = PREFIX + key
            return True

    def invalidate(self, key: str) -> None:
        """Remove the copy of `key`, because of a write; reads in progress will not be cached."""
        with self._lock:
            self._changes[hash(key) % _SLOTS] += 1
            removed = self._versions.pop(key, None)
            self.fresh.pop(key, None)
        if removed is not None:
            self._drop(PREFIX + key)

    def invalidate_all(self) -> None:
        """Remove all copies; reads in progress will not be cached."""
        self.require_revalidation()
        for key in list(self._versions):
            self.invalidate(key)

    def observe(self, event: Event) -> None:
        """Forget a copy that was evicted from its tier, or removed with all other entries."""
        if isinstance(event, Removed) and event.key.startswith(PREFIX):
            key = event.key[len(PREFIX) :]
            with self._lock:
                self._versions.pop(key, None)
                self.fresh.pop(key, None)

    def require_revalidation(self) -> None:
        """Require the version of every copy to be compared before its use.

        This is called after writes may have been missed.
        """
        with self._lock:
            self._generation += 1
            self.fresh = {}

    def oldest(self) -> str | None:
        """Return the key of the oldest copy; None if there are none."""
        with self._lock:
            return next(iter(self._versions), None)

    def close(self) -> None:
        """Declare every copy stale."""
        self.fresh_until = float("-inf")
        self.require_revalidation()
