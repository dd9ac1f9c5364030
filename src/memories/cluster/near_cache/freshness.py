"""Which local copies of what lies on the nodes may be served without asking: versions and a lease.

Not the copies, which lie in the warm tier of whoever owns them. The one idea: a copy is fresh while
nodes that would have told us of any newer write are known to have been listening to a moment ago.
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
_INSERT_LOCKS = 64


class FreshnessToken(NamedTuple):
    """A moment before a read; what was read may be kept if nothing was heard of it since."""

    slot: int
    changes: int
    generation: int


class Freshness:
    """The freshness of local copies by key. Safe to use from many threads.

    A hit reads `until` and `fresh` without a lock: a copy is in `fresh`, under the name of its
    entry, only while no newer write was heard of, and all of it counts only until `until`.

    Args:
        drop: Lets go of the local copy of that name; told after it is not fresh any more.
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
        """Return how many copies are known, fresh or not."""
        return len(self._versions)

    def token(self, key: str) -> FreshnessToken:
        """Return what `keep` needs; take it before the nodes are read."""
        slot = hash(key) % _SLOTS
        return FreshnessToken(slot, self._changes[slot], self._generation)

    def version(self, key: str) -> RegisterVersion | None:
        """Return the version of the local copy of `key`, fresh or not; None if there is none."""
        return self._versions.get(key)

    def insert(
        self, key: str, version: RegisterVersion, token: FreshnessToken, put: Callable[[str], bool]
    ) -> bool:
        """Put a copy of `key` at `version` with `put(name)`, and return whether it is served now.

        Not if it may be old already. Those who keep copies of one key wait for each other, so that
        none can put an old copy under the name that another has just called fresh.
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
        """Say that `version` is still the newest; return whether the copy of it is served again."""
        with self._lock:
            if token != self.token(key) or self._versions.get(key) != version:
                return False
            self.fresh[key] = PREFIX + key
            return True

    def invalidate(self, key: str) -> None:
        """Learn of a write of `key`: no copy of before may be served."""
        with self._lock:
            self._changes[hash(key) % _SLOTS] += 1
            removed = self._versions.pop(key, None)
            self.fresh.pop(key, None)
        if removed is not None:
            self._drop(PREFIX + key)

    def observe(self, event: Event) -> None:
        """Forget a copy that has left its tier for room, or when all was removed there."""
        if isinstance(event, Removed) and event.key.startswith(PREFIX):
            key = event.key[len(PREFIX) :]
            with self._lock:
                self._versions.pop(key, None)
                self.fresh.pop(key, None)

    def require_revalidation(self) -> None:
        """Learn that writes may have been missed: every copy must be compared before its use."""
        with self._lock:
            self._generation += 1
            self.fresh = {}

    def oldest(self) -> str | None:
        """Return the key whose copy was made the longest ago."""
        with self._lock:
            return next(iter(self._versions), None)

    def close(self) -> None:
        """Serve nothing any more."""
        self.fresh_until = float("-inf")
        self.require_revalidation()
