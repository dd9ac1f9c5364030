"""A dict that forgets its oldest keys: bounded in their number and in their bytes.

For bookkeeping by key in a process that runs for months: without a bound, keys that come and go
would fill the memory, however little is stored for each.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator
from sys import getsizeof
from typing import Generic, TypeVar

from memories.foundation.fork_lock import new_lock

BYTES_PER_KEY = 256  # On average: more than a usual key takes, less than one of 4,096 bytes.

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class BoundedDict(Generic[K, V]):
    """A dict whose least recently set keys are removed when it exceeds a bound.

    Safe to use from any number of threads; only changes take a lock.

    Args:
        most: The maximum number of keys.
        weigh: Returns the bytes of a key and its value; by default those of the key alone.
    """

    __slots__ = ("_bytes", "_items", "_lock", "_most", "_weigh")

    def __init__(self, most: int, weigh: Callable[[K, V], int] | None = None) -> None:
        self._most = most
        self._weigh = weigh or _key_bytes
        # In a `dict` it takes long to find the first item where many were removed before it.
        self._items: OrderedDict[K, V] = OrderedDict()
        self._bytes = 0
        self._lock = new_lock()

    def set(self, key: K, value: V) -> None:
        """Set the value of `key`, and make it the most recently set key."""
        self.update(((key, value),))

    def update(self, items: Iterable[tuple[K, V]]) -> None:
        """Set the values of many keys, the most recently set one last."""
        mine, weigh, most = self._items, self._weigh, self._most
        limit = BYTES_PER_KEY * most
        with self._lock:
            for key, value in items:
                weight = weigh(key, value)
                if key in mine:
                    self._drop(key)
                mine[key] = value
                self._bytes += weight
                while len(mine) > most or self._bytes > limit:
                    self._bytes -= weigh(*mine.popitem(last=False))

    def get(self, key: K) -> V | None:
        """Return the value of `key`, None if it is absent."""
        return self._items.get(key)

    def pop(self, key: K) -> V | None:
        """Remove `key` and return its value, None if it is absent."""
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
        """Assert that the bounds hold, and that the bytes are those of the items."""
        assert len(self._items) <= self._most
        assert self._bytes == sum(self._weigh(*item) for item in self._items.items())
        assert self._bytes <= BYTES_PER_KEY * self._most


def _key_bytes(key: object, value: object) -> int:
    del value
    return getsizeof(key)
