"""What came last, by key: a dict that is bounded in number and in bytes.

Not a cache of values. Whoever remembers keys forgets the oldest ones, however many come and however
long they are, and forgets a key at once when it is gone for good.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from sys import getsizeof
from typing import Generic, TypeVar

from memories.foundation.fork_lock import new_lock

BYTES_PER_KEY = 256  # On average: plenty for the usual key, little for one of 4,096 bytes.

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class BoundedDict(Generic[K, V]):
    """Keys with what is remembered of each; the one set the longest ago is forgotten first.

    Safe to use from any number of threads, and cheap to ask: only changes take a lock.

    Args:
        most: Keys that are remembered at most.
        weigh: Bytes that a key and what is remembered of it take; those of the key unless given.
    """

    __slots__ = ("_bytes", "_items", "_lock", "_most", "_weigh")

    def __init__(self, most: int, weigh: Callable[[K, V], int] | None = None) -> None:
        self._most = most
        self._weigh = weigh or _key_bytes
        self._items: dict[K, V] = {}
        self._bytes = 0
        self._lock = new_lock()

    def set(self, key: K, value: V) -> None:
        """Remember `value`, and `key` as the latest."""
        weight = self._weigh(key, value)
        with self._lock:
            self._drop(key)
            self._items[key] = value
            self._bytes += weight
            while len(self._items) > self._most or self._bytes > BYTES_PER_KEY * self._most:
                self._drop(next(iter(self._items)))

    def get(self, key: K) -> V | None:
        """Return what is remembered of `key`, None if nothing is."""
        return self._items.get(key)

    def pop(self, key: K) -> V | None:
        """Forget `key`, and return what was remembered of it."""
        if key not in self._items:
            return None
        with self._lock:
            return self._drop(key)

    def _drop(self, key: K) -> V | None:
        if key not in self._items:
            return None
        value = self._items.pop(key)
        self._bytes -= self._weigh(key, value)
        return value

    def __contains__(self, key: object) -> bool:
        return key in self._items

    def __iter__(self) -> Iterator[K]:
        return iter(list(self._items))

    def __len__(self) -> int:
        return len(self._items)

    def check(self) -> None:
        """Assert that the bounds are kept, and that the bytes are those of what is there."""
        assert len(self._items) <= self._most
        assert self._bytes == sum(self._weigh(*item) for item in self._items.items())
        assert self._bytes <= BYTES_PER_KEY * self._most


def _key_bytes(key: object, value: object) -> int:
    del value
    return getsizeof(key)
