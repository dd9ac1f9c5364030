"""The recipes of diskcache: locks of several processes, an average, and results made ahead."""

from __future__ import annotations

import functools
import math
import os
import random
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from memories.core.value_reader import MISSING
from memories.errors import BusyError
from memories.foundation.periodic import BackgroundThread
from memories.integrations.diskcache.cache import Cache
from memories.integrations.diskcache.calls import arguments_key, name_of_function
from memories.integrations.diskcache.items import CLOCK

_PAUSE = 0.001


class _Item:
    """What is under one key of a cache."""

    def __init__(
        self, cache: Cache, key: Any, expire: float | None = None, tag: Any = None
    ) -> None:
        self._cache, self._key, self._expire, self._tag = cache, key, expire, tag


class _Guard(_Item):
    """What is taken before a `with` block, and freed behind it."""

    def acquire(self) -> None:
        raise NotImplementedError

    def release(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *error: object) -> None:
        self.release()


class Averager(_Item):
    """A running average in a cache.

    Args:
        cache: The cache.
        key: Its key.
        expire: Seconds until it expires.
        tag: Its tag.
    """

    def add(self, value: float) -> None:
        """Add a number."""
        with self._cache.transact(retry=True):
            total, count = self._cache.get(self._key, (0.0, 0))
            self._cache.set(self._key, (total + value, count + 1), self._expire, tag=self._tag)

    def get(self) -> float | None:
        """Return the average; None of nothing."""
        return _mean(self._cache.get(self._key, (0.0, 0)))

    def pop(self) -> float | None:
        """Return the average, and begin again."""
        return _mean(self._cache.pop(self._key, (0.0, 0)))


class Lock(_Guard):
    """A lock of threads and processes, with a time after which it is free if its holder is gone.

    Args:
        cache: The cache.
        key: Its key.
        expire: Seconds after which it is free; None for never.
        tag: Its tag.
    """

    def acquire(self) -> None:
        """Wait until it is free, and take it."""
        while not self._cache.add(self._key, None, self._expire, tag=self._tag, retry=True):
            time.sleep(_PAUSE)

    def release(self) -> None:
        """Free it."""
        self._cache.delete(self._key, retry=True)

    def locked(self) -> bool:
        """Return whether it is taken."""
        return self._key in self._cache


class RLock(_Guard):
    """A lock that its holder, a thread of a process, may take several times.

    Args:
        cache: The cache.
        key: Its key.
        expire: Seconds after which it is free; None for never.
        tag: Its tag.
    """

    def acquire(self) -> None:
        """Wait until it is free or this thread has it, and take it."""
        while True:
            with self._cache.transact(retry=True):
                holder, count = self._cache.get(self._key, (None, 0))
                if not count or holder == _me():
                    self._set((_me(), count + 1))
                    return
            time.sleep(_PAUSE)

    def release(self) -> None:
        """Free it, once for each time that it was taken.

        Raises:
            BusyError: this thread does not hold it.
        """
        with self._cache.transact(retry=True):
            holder, count = self._cache.get(self._key, (None, 0))
            if not count or holder != _me():
                raise BusyError(f"the lock {self._key!r:.100} is not held by this thread")
            self._set((holder, count - 1))

    def _set(self, state: tuple[str, int]) -> None:
        self._cache.set(self._key, state, self._expire, tag=self._tag)


class BoundedSemaphore(_Guard):
    """A semaphore of threads and processes.

    Args:
        cache: The cache.
        key: Its key.
        value: How many may have it at once.
        expire: Seconds after which all of it is free; None for never.
        tag: Its tag.
    """

    def __init__(
        self, cache: Cache, key: Any, value: int = 1, expire: float | None = None, tag: Any = None
    ) -> None:
        super().__init__(cache, key, expire, tag)
        self._most = value

    def acquire(self) -> None:
        """Wait until a part is free, and take it."""
        while True:
            with self._cache.transact(retry=True):
                free = self._cache.get(self._key, self._most)
                if free > 0:
                    self._cache.set(self._key, free - 1, self._expire, tag=self._tag)
                    return
            time.sleep(_PAUSE)

    def release(self) -> None:
        """Free a part.

        Raises:
            BusyError: all of it is free.
        """
        with self._cache.transact(retry=True):
            free = self._cache.get(self._key, self._most)
            if free >= self._most:
                raise BusyError(f"the semaphore {self._key!r:.100} is free")
            self._cache.set(self._key, free + 1, self._expire, tag=self._tag)


def barrier(
    cache: Cache,
    lock_factory: Callable[..., Any],
    name: str | None = None,
    expire: float | None = None,
    tag: Any = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that lets one call of a function run at a time, in all processes."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        key = name_of_function(function) if name is None else name
        lock = lock_factory(cache, key, expire=expire, tag=tag)

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with lock:
                return function(*args, **kwargs)

        return wrapper

    return decorate


def throttle(
    cache: Cache,
    count: int,
    seconds: float,
    name: str | None = None,
    expire: float | None = None,
    tag: Any = None,
    time_func: Callable[[], float] = CLOCK.wall,
    sleep_func: Callable[[float], object] = time.sleep,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that lets a function be called `count` times in `seconds`; more wait.

    Calls of all processes count. A token bucket: what was not used is kept for `seconds`.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        key = name_of_function(function) if name is None else name
        rate = count / seconds
        cache.set(key, (time_func(), float(count)), expire, tag=tag)

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            while True:
                with cache.transact(retry=True):
                    now = time_func()
                    last, tokens = cache.get(key, (now, float(count)))
                    tokens = min(float(count), tokens + (now - last) * rate)
                    if tokens >= 1:
                        cache.set(key, (now, tokens - 1), expire, tag=tag)
                        break
                    cache.set(key, (now, tokens), expire, tag=tag)
                sleep_func((1 - tokens) / rate)
            return function(*args, **kwargs)

        return wrapper

    return decorate


def memoize_stampede(
    cache: Cache,
    expire: float,
    name: str | None = None,
    typed: bool = False,
    tag: Any = None,
    beta: float = 1,
    ignore: Iterable[int | str] = (),
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that keeps results, and computes some anew shortly before they expire.

    The more calls there are and the longer a computation takes, the earlier one of the calls
    computes the result anew, in a thread; the others go on with the present one. So that many do
    not compute it at once when it expires: Vattani, Chierichetti, Lowenstein, Optimal Probabilistic
    Cache Stampede Prevention (2015).

    Args:
        cache: The cache.
        expire: Seconds until a result expires.
        name: What the keys begin with; None for the name of the function.
        typed: Tell arguments of different types apart.
        tag: The tag of the results.
        beta: How early: more than 1 is earlier.
        ignore: Places and names of arguments that do not matter.
    """
    left_out = frozenset(ignore)

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        base = name_of_function(function) if name is None else name

        def cache_key(*args: Any, **kwargs: Any) -> str:
            return arguments_key(base, args, kwargs, typed, left_out)

        def compute(key: str, args: Any, kwargs: Any) -> Any:
            began = CLOCK.monotonic()
            result = function(*args, **kwargs)
            seconds = CLOCK.monotonic() - began
            cache.set(key, (result, seconds), expire, tag=tag)
            return result

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            key = cache_key(*args, **kwargs)
            found, ends = cache.get(key, MISSING, expire_time=True)
            if found is MISSING or ends is None:
                return compute(key, args, kwargs)
            result, seconds = found
            early = -seconds * beta * math.log(1.0 - random.random())
            if CLOCK.wall() + early >= ends and cache.add(
                (key, "early"), None, max(seconds, 0.001)
            ):
                BackgroundThread(partial(compute, key, args, kwargs), "memories-recompute").start()
            return result

        wrapper.__cache_key__ = cache_key  # type: ignore[attr-defined]
        return wrapper

    return decorate


def _mean(state: tuple[float, int]) -> float | None:
    total, count = state
    return total / count if count else None


def _me() -> str:
    return f"{os.getpid()}-{threading.get_ident()}"
