"""A mapping in the order of insertion and a deque, kept in a cache that never removes anything."""

from __future__ import annotations

import operator
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from typing import Any, Self

from memories.core.value_reader import MISSING
from memories.errors import (
    BusyError,
    InvalidOptionError,
    InvalidOptionTypeError,
    KeyNotFoundError,
)
from memories.integrations.diskcache.cache import Cache

_FOR_EVER: dict[str, Any] = {"eviction_policy": "none"}


class _Kept:
    """What is kept in a cache of its own."""

    _cache: Cache

    @property
    def cache(self) -> Cache:
        """The cache."""
        return self._cache

    @property
    def directory(self) -> str:
        """The directory."""
        return self._cache.directory

    def clear(self) -> None:
        """Remove everything."""
        self._cache.clear(retry=True)

    def transact(self) -> AbstractContextManager[None]:
        """Let nothing else change it meanwhile; see `Cache.transact`."""
        return self._cache.transact(retry=True)

    def __len__(self) -> int:
        return len(self._cache)


class CacheIndex(_Kept, MutableMapping[Any, Any]):
    """A mapping with the interface of `diskcache.Index`: nothing is removed or expires.

    Args:
        directory: Where it lies; None for a new temporary directory.
        args: A mapping or pairs to begin with.
        kwargs: Further items.
    """

    def __init__(
        self, directory: str | os.PathLike[str] | None = None, *args: Any, **kwargs: Any
    ) -> None:
        self._cache = Cache(directory, **_FOR_EVER)
        self.update(*args, **kwargs)

    @classmethod
    def fromcache(cls, cache: Cache, *args: Any, **kwargs: Any) -> Self:
        """Return the mapping that a cache is, with further items."""
        made = cls.__new__(cls)
        made._cache = cache
        made.update(*args, **kwargs)
        return made

    def __getitem__(self, key: Any) -> Any:
        return self._cache[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        self._cache[key] = value

    def __delitem__(self, key: Any) -> None:
        del self._cache[key]

    def __contains__(self, key: object) -> bool:
        return key in self._cache

    def __iter__(self) -> Iterator[Any]:
        return iter(self._cache)

    def __reversed__(self) -> Iterator[Any]:
        return reversed(self._cache)

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """Return a value; store `default` first if the key is absent. Atomic."""
        with self._cache.transact(retry=True):
            self._cache.add(key, default)
            return self._cache[key]

    def pop(self, key: Any, default: Any = MISSING) -> Any:
        """Remove a key and return its value, or `default`; KeyNotFoundError without one."""
        found = self._cache.pop(key, MISSING, retry=True)
        if found is not MISSING:
            return found
        if default is MISSING:
            raise KeyNotFoundError(f"{key!r:.200} is not in the index {self.directory}")
        return default

    def popitem(self, last: bool = True) -> tuple[Any, Any]:
        """Remove what was inserted last, or first, and return its key and value."""
        with self._cache.transact(retry=True):
            key, value = self._cache.peekitem(last)
            del self._cache[key]
        return key, value

    def peekitem(self, last: bool = True) -> tuple[Any, Any]:
        """Return the key and value that were inserted last, or first."""
        found: tuple[Any, Any] = self._cache.peekitem(last)
        return found

    def push(self, value: Any, prefix: str | None = None, side: str = "back") -> Any:
        """Store a value at an end of a queue, and return its key; see `Cache.push`."""
        return self._cache.push(value, prefix, side, retry=True)

    def pull(
        self, prefix: str | None = None, default: Any = (None, None), side: str = "front"
    ) -> Any:
        """Remove the value at an end of a queue; see `Cache.pull`."""
        return self._cache.pull(prefix, default, side, retry=True)

    def memoize(
        self, name: str | None = None, typed: bool = False, ignore: Iterable[int | str] = ()
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Return a decorator that keeps the results of a function; see `Cache.memoize`."""
        return self._cache.memoize(name, typed, ignore=ignore)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mapping):
            return NotImplemented
        if len(self) != len(other):
            return False
        if isinstance(other, CacheIndex | OrderedDict):  # Their order counts.
            return all(map(operator.eq, self.items(), other.items()))
        return all(self._cache.get(key, MISSING) == value for key, value in other.items())

    __hash__ = None  # type: ignore[assignment]

    def __getstate__(self) -> str:
        return self.directory

    def __setstate__(self, state: str) -> None:
        self.__init__(state)  # type: ignore[misc]

    def __repr__(self) -> str:
        return f"Index({self.directory!r})"


class Deque(_Kept, Sequence[Any]):
    """A deque with the interface of `diskcache.Deque`.

    Args:
        iterable: Values to begin with.
        directory: Where it lies; None for a new temporary directory.
        maxlen: Most values; more push out those at the other end. None for any number.
    """

    def __init__(
        self,
        iterable: Iterable[Any] = (),
        directory: str | os.PathLike[str] | None = None,
        maxlen: float | None = None,
    ) -> None:
        self._maxlen = _most(maxlen)
        if not isinstance(iterable, Iterable):
            raise InvalidOptionTypeError(f"iterable={iterable!r:.60} must be a list, or the like")
        self._cache = Cache(directory, **_FOR_EVER)
        self.extend(iterable)

    @classmethod
    def fromcache(
        cls, cache: Cache, iterable: Iterable[Any] = (), maxlen: float | None = None
    ) -> Self:
        """Return the deque that a cache is, with further values."""
        made = cls.__new__(cls)
        made._cache = cache
        made._maxlen = _most(maxlen)
        made.extend(iterable)
        return made

    @property
    def maxlen(self) -> float:
        """Most values."""
        return self._maxlen

    @maxlen.setter
    def maxlen(self, value: float) -> None:
        """Change it; what is too many leaves at the front."""
        self._maxlen = value = _most(value)
        with self._cache.transact(retry=True):
            while len(self) > value:
                self._cache.pull()

    def append(self, value: Any) -> None:
        """Add a value at the back."""
        self._add(value, "back")

    def appendleft(self, value: Any) -> None:
        """Add a value at the front."""
        self._add(value, "front")

    def extend(self, iterable: Iterable[Any]) -> None:
        """Add values at the back."""
        for value in iterable:
            self.append(value)

    def extendleft(self, iterable: Iterable[Any]) -> None:
        """Add values at the front, one after the other."""
        for value in iterable:
            self.appendleft(value)

    def pop(self) -> Any:
        """Remove the value at the back and return it; IndexError if there is none."""
        return self._taken(self._cache.pull(default=MISSING, side="back", retry=True))

    def popleft(self) -> Any:
        """Remove the value at the front and return it; IndexError if there is none."""
        return self._taken(self._cache.pull(default=MISSING, retry=True))

    def peek(self) -> Any:
        """Return the value at the back; IndexError if there is none."""
        return self._taken(self._cache.peek(default=MISSING, side="back", retry=True))

    def peekleft(self) -> Any:
        """Return the value at the front; IndexError if there is none."""
        return self._taken(self._cache.peek(default=MISSING, retry=True))

    def rotate(self, steps: int = 1) -> None:
        """Move values from the back to the front, or the other way with a negative number."""
        if not isinstance(steps, int):
            raise TypeError(f"steps={steps!r:.40} must be an int")
        with self._cache.transact(retry=True):
            size = len(self)
            for _ in range(abs(steps) % size if size else 0):
                if steps > 0:
                    self.appendleft(self.pop())
                else:
                    self.append(self.popleft())

    def reverse(self) -> None:
        """Reverse the order."""
        with self._cache.transact(retry=True):
            values = list(reversed(self))
            self._cache.clear()
            self.extend(values)

    def remove(self, value: Any) -> None:
        """Remove the first value that is equal; ValueError if there is none."""
        with self._cache.transact(retry=True):
            for key in self._cache.iterkeys():
                try:
                    if self._cache[key] == value:
                        del self._cache[key]
                        return
                except KeyError:
                    continue  # Removed since the keys were listed.
        raise ValueError(f"{value!r:.200} is not in the deque {self.directory}")

    def count(self, value: Any) -> int:
        """Return how many values are equal."""
        return sum(1 for found in self if found == value)

    def copy(self) -> Self:
        """Return another deque of the same directory: both have the same values."""
        return type(self)(directory=self.directory, maxlen=self._maxlen)

    __copy__ = copy

    def __getitem__(self, index: Any) -> Any:
        return self._at(index, self._cache.__getitem__)

    def __setitem__(self, index: int, value: Any) -> None:
        self._at(index, lambda key: self._cache.__setitem__(key, value))

    def __delitem__(self, index: int) -> None:
        self._at(index, self._cache.__delitem__)

    def __iter__(self) -> Iterator[Any]:
        return self._values(reverse=False)

    def __reversed__(self) -> Iterator[Any]:
        return self._values(reverse=True)

    def __iadd__(self, iterable: Iterable[Any]) -> Self:
        self.extend(iterable)
        return self

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(map(operator.eq, self, other))

    def __lt__(self, other: Sequence[Any]) -> bool:
        return list(self) < list(other)

    def __le__(self, other: Sequence[Any]) -> bool:
        return list(self) <= list(other)

    def __gt__(self, other: Sequence[Any]) -> bool:
        return list(self) > list(other)

    def __ge__(self, other: Sequence[Any]) -> bool:
        return list(self) >= list(other)

    __hash__ = None  # type: ignore[assignment]

    def __getstate__(self) -> tuple[str, float]:
        return self.directory, self._maxlen

    def __setstate__(self, state: tuple[str, float]) -> None:
        directory, maxlen = state
        self.__init__(directory=directory, maxlen=maxlen)  # type: ignore[misc]

    def __repr__(self) -> str:
        return f"{type(self).__name__}(directory={self.directory!r})"

    def _add(self, value: Any, side: str) -> None:
        other = "front" if side == "back" else "back"
        with self._cache.transact(retry=True):
            self._cache.push(value, side=side)
            while len(self) > self._maxlen:
                self._cache.pull(side=other)

    def _at(self, index: int, use: Callable[[Any], Any]) -> Any:
        """Return what `use` does with the key at an index; keys that are gone do not count."""
        if not isinstance(index, int):
            raise TypeError(f"index={index!r:.40} must be an int")
        place = index if index >= 0 else -index - 1
        for key in islice(self._cache.iterkeys(reverse=index < 0), place, None):
            try:
                return use(key)
            except KeyError:
                continue  # Removed since the keys were listed.
        raise IndexError(f"index {index} of a deque of {len(self)} values")

    def _values(self, reverse: bool) -> Iterator[Any]:
        for key in self._cache.iterkeys(reverse=reverse):
            try:
                value = self._cache[key]
            except KeyError:
                continue  # Removed since the keys were listed.
            yield value

    def _taken(self, found: Any) -> Any:
        if found is MISSING:
            raise IndexError(f"the deque {self.directory} is empty")
        return found[1]


class FanoutCache(Cache):
    """A cache with the interface of `diskcache.FanoutCache`, without shards: none are needed.

    Args:
        directory: Where it lies; None for a new temporary directory.
        shards: Not used.
        timeout: How long a change waits for another one, in seconds.
        disk: Not used; only None.
        settings: See `Cache`.

    Raises:
        InvalidOptionError: a setting is invalid.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str] | None = None,
        shards: int = 8,
        timeout: float = 60,
        disk: None = None,
        **settings: Any,
    ) -> None:
        if isinstance(shards, bool) or not isinstance(shards, int) or shards < 1:
            raise InvalidOptionTypeError(f"shards={shards!r:.60} must be a number, 1 or more")
        super().__init__(directory, timeout, disk, **settings)

    def set(self, key: Any, value: Any, *args: Any, **options: Any) -> bool:
        """Store a value; return whether it is stored: not if other changes take too long."""
        return bool(_unless_late(False, super().set, key, value, *args, **options))

    def add(self, key: Any, value: Any, *args: Any, **options: Any) -> bool:
        """Store a value unless the key is present; return whether it is stored."""
        return bool(_unless_late(False, super().add, key, value, *args, **options))

    def touch(self, key: Any, *args: Any, **options: Any) -> bool:
        """Change when a value expires; return whether that is done."""
        return bool(_unless_late(False, super().touch, key, *args, **options))

    def delete(self, key: Any, retry: bool = False) -> bool:
        """Remove a key; return whether it was there and is removed."""
        return bool(_unless_late(False, super().delete, key, retry))

    def incr(self, key: Any, *args: Any, **options: Any) -> Any:
        """Add to a number; None if other changes take too long."""
        return _unless_late(None, super().incr, key, *args, **options)

    def pop(self, key: Any, default: Any = None, *args: Any, **options: Any) -> Any:
        """Remove a value and return it; `default` if other changes take too long."""
        return _unless_late(default, super().pop, key, default, *args, **options)

    def cache(self, name: str, timeout: float = 60, disk: None = None, **settings: Any) -> Cache:
        """Return the cache of a name, in a directory below this one."""
        return Cache(self._below("cache", name), timeout, disk, **settings)

    def deque(self, name: str, maxlen: float | None = None) -> Deque:
        """Return the deque of a name, in a directory below this one."""
        return Deque(directory=self._below("deque", name), maxlen=maxlen)

    def index(self, name: str) -> CacheIndex:
        """Return the mapping of a name, in a directory below this one."""
        return CacheIndex(self._below("index", name))

    def _below(self, kind: str, name: str) -> str:
        parts = name.split("/") if isinstance(name, str) else [""]
        if any(part in ("", ".", "..") for part in parts):
            raise InvalidOptionError(f"name={name!r:.60} must be one or more names of folders")
        return os.path.join(self.directory, kind, *parts)  # noqa: PTH118  # As in diskcache.

    def __getstate__(self) -> tuple[Any, ...]:
        return self.directory, 8, self.timeout, None


def _unless_late(default: Any, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
    try:
        return call(*args, **options)
    except BusyError:
        return default


def _most(maxlen: float | None) -> float:
    """Return how many values a deque may have.

    Raises:
        InvalidOptionTypeError: it is not a number, 0 or more.
    """
    if maxlen is None:
        return float("inf")
    if not isinstance(maxlen, int | float) or not maxlen >= 0:
        raise InvalidOptionTypeError(f"maxlen={maxlen!r:.60} must be a number, or None")
    return maxlen
