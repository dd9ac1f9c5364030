"""A function whose results live in the tiers: the decorator `manager.cache`.

The key of a result is the function's qualified name, a version that its author raises, and a typed
hash of the arguments' contents; never a line number, so that editing a comment costs nothing and
editing the function is said with `version=`.
"""

from __future__ import annotations

import functools
import inspect
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from memories.codecs.hashing import content_hash
from memories.core.flights import Flights, fly
from memories.errors import InvalidOptionError, KeyNotFoundError, TierFullError
from memories.locks import new_lock

if TYPE_CHECKING:
    from memories.core.values import Values

PREFIX = "cache/"


class CacheInfo(NamedTuple):
    """What became of the calls so far."""

    hits: int
    misses: int
    results: int  # Results in the tiers now.
    tiers: dict[str, int]  # How many of them lie where.


class Memoized:
    """A function that remembers. One computation per key at a time; exceptions are not kept."""

    def __init__(
        self,
        manager: Values,
        function: Callable[..., Any],
        *,
        version: int | str,
        ignore: Iterable[str],
        key: Callable[..., Any] | None,
        ttl: float | None,
        tier: str,
    ) -> None:
        self._manager = manager
        self._function = function
        self._signature = inspect.signature(function)
        self._key = key
        self._ttl = ttl
        self._tier = tier
        self._flights = Flights()
        self._counts: Counter[str] = Counter()
        self._lock = new_lock()
        self._ignored = frozenset(ignore)
        unknown = self._ignored - set(self._signature.parameters)
        if unknown:
            raise InvalidOptionError(f"ignore names {sorted(unknown)}, which are no parameters")
        self._name = f"{PREFIX}{function.__module__}.{function.__qualname__}/"
        self._prefix = f"{self._name}{version}/"
        functools.update_wrapper(self, function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return the result for these arguments, computed at most once."""
        key = self.cache_key(*args, **kwargs)
        try:
            return self._hit(key)
        except KeyNotFoundError:
            return fly(self._flights, key, lambda: self._compute(key, args, kwargs))

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """Bind to an instance as a method does; name `self` in `ignore` unless it has a codec."""
        return self if instance is None else functools.partial(self, instance)

    def cache_key(self, *args: Any, **kwargs: Any) -> str:
        """Return the key under which the result for these arguments is stored."""
        if self._key is not None:
            return self._prefix + content_hash(self._key(*args, **kwargs))
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        told = {k: v for k, v in bound.arguments.items() if k not in self._ignored}
        return self._prefix + content_hash(told)

    def cache_info(self) -> CacheInfo:
        """Return hits and misses of this process, and where the results lie."""
        tiers: Counter[str] = Counter()
        for key in self._manager.scan(self._name):
            try:
                tiers[self._manager.get_tier(key)] += 1
            except KeyNotFoundError:
                continue  # Evicted since it was listed.
        hits, misses = self._counts["hits"], self._counts["misses"]
        return CacheInfo(hits, misses, tiers.total(), dict(tiers))

    def cache_clear(self) -> None:
        """Forget every result of this function, those of other versions too."""
        self._manager.delete_prefix(self._name)
        with self._lock:
            self._counts.clear()

    def _hit(self, key: str) -> Any:
        value = self._manager.retrieve(key)
        self._count("hits")
        return value

    def _compute(self, key: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            return self._hit(key)  # It may have landed between the look and the flight.
        except KeyNotFoundError:
            self._count("misses")
        return self._keep(key, self._function(*args, **kwargs))

    def _keep(self, key: str, result: Any) -> Any:
        """Store a result and return it as every later call will; too large a one is just returned.

        Raises:
            UnsupportedTypeError: it cannot be serialised.
        """
        try:
            self._manager._store_result(key, result, tier=self._tier, ttl=self._ttl)
            return self._manager.retrieve(key)
        except (TierFullError, KeyNotFoundError):
            return result

    def _count(self, what: str) -> None:
        with self._lock:
            self._counts[what] += 1


class AsyncMemoized(Memoized):
    """The same for a coroutine function: tasks of any event loop share one computation."""

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return the result for these arguments, computed at most once."""
        import asyncio

        key = self.cache_key(*args, **kwargs)
        me = asyncio.current_task()
        flight, mine = self._flights.board(key, me)
        if not mine:
            try:
                return await asyncio.shield(asyncio.wrap_future(flight.future))
            finally:
                self._flights.leave(me)
        try:
            result = await self._fly_async(key, args, kwargs)
        except BaseException as error:
            self._flights.land(key, flight)
            flight.future.set_exception(error)
            raise
        self._flights.land(key, flight)
        flight.future.set_result(result)
        return result

    async def _fly_async(self, key: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        import asyncio

        try:
            return await asyncio.to_thread(self._hit, key)
        except KeyNotFoundError:
            self._count("misses")
        result = await self._function(*args, **kwargs)
        return await asyncio.to_thread(self._keep, key, result)


def memoize(manager: Values, function: Callable[..., Any], **options: Any) -> Memoized:
    """Return `function` with its results in the tiers of `manager`."""
    kind = AsyncMemoized if inspect.iscoroutinefunction(function) else Memoized
    return kind(manager, function, **options)
