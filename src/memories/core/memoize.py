"""The decorator `manager.cache`: a function whose results are kept in the tiers.

The key of a result names the function and its arguments. A result of another function must never
be returned, so a call whose function or arguments cannot be identified is refused. `identity`
identifies functions; a hash of types and contents identifies arguments.
"""

from __future__ import annotations

import functools
import inspect
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Any, Final, NamedTuple, Protocol

from memories.codecs.content_hash import content_hash, stand_in
from memories.codecs.function_code import names_read
from memories.core.identity import Identity, definition_of
from memories.core.single_flight import LEFT, Flight, Flights, How, Outcome
from memories.engine.payload import Payload
from memories.errors import (
    CorruptDataError,
    ForkedError,
    InvalidOptionError,
    KeyNotFoundError,
    MemoriesError,
    StorageError,
    TierFullError,
    UnavailableError,
    UnsupportedTypeError,
    UntrustedDataError,
)
from memories.foundation.fork_lock import new_lock
from memories.foundation.logging import logger
from memories.options.settings import check_seconds

PREFIX = "cache/"
_NONE: Final = object()  # Where a result would be.
# What ends one caller's attempt and says nothing about that of another.
_PERSONAL = (TimeoutError, RecursionError, MemoryError)


class ResultStore(Protocol):
    """Keeps results by key."""

    def retrieve(self, key: str, default: Any = ..., /) -> Any:
        """Return the result of `key`, or `default`; without one raise KeyNotFoundError."""

    def scan(self, prefix: str) -> Iterator[str]:
        """Yield the keys that start with `prefix`."""

    def get_tier(self, key: str) -> str:
        """Return the tier that holds the result of `key`; KeyNotFoundError if none does."""

    def delete_prefix(self, prefix: str) -> int:
        """Remove every key that starts with `prefix`."""

    def store(self, key: str, result: Any, *, tier: str, ttl: float | None) -> None:
        """Store a result, which may be dropped for room."""

    def require_writable(self) -> None:
        """Raise unless results can be stored."""

    def require_tier(self, tier: str) -> None:
        """Raise InvalidOptionError unless there is a tier of that name."""

    def open(self, payload: Payload) -> Any:
        """Return the value of a payload, as a read of it would."""


class CacheInfo(NamedTuple):
    """The calls so far, and the results that are stored now."""

    hits: int
    misses: int
    results: int  # Results in the tiers now, of the function as it is.
    tiers: dict[str, int]  # How many of them lie where.


class Memo:
    """Keeps the results of one decorated function; each key is computed once at a time."""

    def __init__(
        self,
        results: ResultStore,
        function: Callable[..., Any],
        *,
        version: int | str | None,
        ignore: Iterable[str],
        key: Callable[..., Any] | None,
        ttl: float | None,
        tier: str,
    ) -> None:
        if not isinstance(version, int | str | None):
            raise InvalidOptionError(f"version={version!r} must be a number or a text")
        self.results = results
        self.flights = Flights()
        self._function = function
        self._signature = _signature_of(function)
        self._version = version
        self._ttl = check_seconds("ttl", ttl)
        self._tier = tier
        if tier != "auto":
            results.require_tier(tier)
        self._counts: Counter[str] = Counter()
        self._lock = new_lock()
        self._marks = _marks(self._signature)
        outer = self._check_ignored(frozenset([ignore] if isinstance(ignore, str) else ignore))
        self._identity = Identity(function, version, outer, self._ignored)
        self._key = key
        self._key_identity = Identity(key, None, outer) if key and version is None else None
        self._name = f"{PREFIX}{self._identity.label}/{self._identity.place}/"

    def stands_for(self) -> tuple[Any, ...]:
        """Return what the decorated function is to be hashed as."""
        return (self._function, self._version)

    def cache_key(self, *args: Any, **kwargs: Any) -> str:
        """Return the key under which the result for these arguments is stored.

        Raises:
            UnsupportedTypeError: the function, or an argument, cannot be told from others.
        """
        prefix, told = self._prefix(), self._told(args, kwargs)
        try:
            return prefix + content_hash(told, code=self._version is None)
        except UnsupportedTypeError as error:
            raise UnsupportedTypeError(
                f"{self._culprit(told)} of {self._identity.label}: {error}. Say which parameters "
                "do not change the result with ignore=, or what counts with key="
            ) from error

    def cache_info(self) -> CacheInfo:
        """Return hits and misses of this process, and where the results lie."""
        tiers: Counter[str] = Counter()
        for key in self.results.scan(self._prefix()):
            try:
                tiers[self.results.get_tier(key)] += 1
            except KeyNotFoundError:
                continue  # Evicted since it was listed.
        hits, misses = self._counts["hits"], self._counts["misses"]
        return CacheInfo(hits, misses, tiers.total(), dict(tiers))

    def cache_clear(self) -> None:
        """Forget every result of this function, those of other versions and of older code too."""
        self.results.delete_prefix(self._name)
        with self._lock:
            self._counts.clear()

    def look(self, key: str) -> Any:
        """Return what is stored under `key`; `_NONE` where there is nothing that can be read."""
        try:
            value = self.results.retrieve(key, _NONE)
        except (
            CorruptDataError, UnavailableError, UntrustedDataError, UnsupportedTypeError
        ) as error:  # fmt: skip
            logger.warning("a result cannot be read and is computed anew: %s", error)
            return _NONE
        if value is not _NONE:
            self._count("hits")
        return value

    def begin(self, flight: Flight) -> None:
        """Note that the function is called now, during `flight`."""
        self._count("misses")
        flight.take_off()
        self._identity.enter(flight)

    def board(self, key: str, flight: Flight) -> Any:
        """Return a result as soon as there is one; `_NONE` where the caller is to compute it."""
        while True:
            other = self.flights.board(key, flight)
            outcome = None if other is None else other.wait(flight)
            found = self.look(key) if outcome is None else self._shared(key, outcome)
            if found is not _NONE:
                return found
            if outcome is None:
                self.begin(flight)
                return _NONE

    async def board_async(self, key: str, flight: Flight) -> Any:
        """Do the same without keeping the event loop waiting."""
        from asyncio import to_thread

        while True:
            other = self.flights.board(key, flight)
            outcome = None if other is None else await other.wait_async(flight)
            if outcome is None:
                found = await to_thread(self.look, key)
            else:
                found = await to_thread(self._shared, key, outcome)
            if found is not _NONE:
                return found
            if outcome is None:
                self.begin(flight)
                return _NONE

    def keep(self, key: str, result: Any) -> tuple[Any, Outcome]:
        """Store a result; return it as every later call will, and what to tell those who wait.

        Raises:
            UnsupportedTypeError: it cannot be serialised.
        """
        if inspect.iscoroutine(result):
            result.close()
            raise UnsupportedTypeError(
                f"{self._identity.label} returned a coroutine, which can be awaited once: put "
                "`cache` directly above the `async def`"
            )
        if self._may_store():
            try:
                self.results.store(key, result, tier=self._tier, ttl=self._ttl)
                return self.results.retrieve(key), Outcome(How.RESULT)
            except (TierFullError, KeyNotFoundError) as error:
                logger.debug("a result is too large, or dropped already: %s", error)
            except (StorageError, UnavailableError) as error:
                logger.warning("a result of %s is not kept: %s", self._identity.label, error)
        payload = Payload.of(result)
        return self._opened(payload), Outcome(How.RESULT, payload)

    def failed(self, error: BaseException, *, own: bool) -> Outcome:
        """Return what those who wait are told of an error; `own` means one of the function."""
        common = isinstance(error, Exception) and not isinstance(error, _PERSONAL)
        told = common and (own or isinstance(error, MemoriesError))
        return Outcome(How.ERROR, error) if told else LEFT

    def land(self, key: str, flight: Flight, outcome: Outcome) -> None:
        """End a flight, however it went. Idempotent."""
        self.flights.land(key, flight, outcome)
        self._identity.leave(flight)

    def _shared(self, key: str, outcome: Outcome) -> Any:
        """Return what another caller computed, as a value of one's own."""
        if outcome.how is How.ERROR:
            raise outcome.content
        if outcome.how is How.RESULT and outcome.content is not None:
            self._count("hits")
            return self._opened(outcome.content)
        return _NONE if outcome.how is How.LEFT else self.look(key)

    def _may_store(self) -> bool:
        try:
            self.results.require_writable()
        except (ForkedError, StorageError):  # A child of the owner, or a reader.
            return False
        return True

    def _opened(self, payload: Payload) -> Any:
        return self.results.open(payload)

    def _prefix(self) -> str:
        text = self._identity.text()
        if self._key_identity is not None:
            text += f".{self._key_identity.text()}"
        return f"{self._name}{text}/"

    def _told(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return what is hashed for a call: the arguments by name, with defaults if they tell."""
        if self._key is not None:
            return self._key(*args, **kwargs)
        if self._signature is None:
            return args, kwargs
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return {
            name: value
            for name, value in bound.arguments.items()
            if name not in self._ignored and self._marks.get(name, _NONE) is not value
        }

    def _culprit(self, told: Any) -> str:
        """Return in words which argument has no hash."""
        if self._key is not None:
            return "the key"
        for name, value in told.items() if self._signature else ():
            try:
                content_hash(value)
            except UnsupportedTypeError:
                return f"the argument {name!r}"
        return "an argument"

    def _check_ignored(self, ignored: frozenset[str]) -> frozenset[str]:
        """Note which parameters are ignored, and return what else is."""
        parameters = frozenset(self._signature.parameters if self._signature else ())
        self._ignored = ignored & parameters
        outer = set[str]()
        for function in (self._function, definition_of(self._function)):
            code = getattr(function, "__code__", None)
            outer.update((*code.co_freevars, *names_read(code)) if code else ("self",))
            outer.update(getattr(function, "__globals__", ()))  # What it calls may read those.
        unknown = ignored - parameters - outer
        if unknown:
            raise InvalidOptionError(
                f"ignore names {sorted(unknown)}, which are neither parameters nor variables "
                f"that {self._function!r} or its module knows"
            )
        return ignored - parameters

    def _count(self, what: str) -> None:
        with self._lock:
            self._counts[what] += 1


def memoize(
    results: ResultStore,
    function: Any,
    *,
    version: int | str | None = None,
    ignore: Iterable[str] = (),
    key: Callable[..., Any] | None = None,
    ttl: float | None = None,
    tier: str = "auto",
) -> Any:
    """Return `function` with its results kept in `results`; `MemoryManager.cache` has the options.

    Raises:
        UnsupportedTypeError: this is no function, or one whose results cannot be kept.
        InvalidOptionError: an option means nothing.
    """
    if isinstance(function, staticmethod | classmethod):
        inner = memoize(
            results, function.__func__, version=version, ignore=ignore, key=key, ttl=ttl, tier=tier
        )
        return type(function)(inner)
    if isinstance(function, property | cached_property) or not callable(function):
        raise UnsupportedTypeError(
            f"{function!r} cannot be cached, for it is no function: put `cache` below whatever "
            "made it of one"
        )
    called = function.__call__ if _is_object(function) else function
    if inspect.isgeneratorfunction(called) or inspect.isasyncgenfunction(called):
        raise UnsupportedTypeError(
            f"{function!r} is a generator, whose results can be read once: return a list"
        )
    memo = Memo(results, function, version=version, ignore=ignore, key=key, ttl=ttl, tier=tier)
    wrap = _wrap_async if inspect.iscoroutinefunction(called) else _wrap
    wrapper = wrap(memo, function)
    stand_in(wrapper.__code__)
    if _is_object(function):  # It has attributes, but they are its own state.
        wrapper.__qualname__ = wrapper.__name__ = _name_of(function)
        wrapper.__doc__ = function.__doc__
        wrapper.__wrapped__ = function
    else:
        functools.update_wrapper(wrapper, function)
    wrapper.cache_key = memo.cache_key
    wrapper.cache_info = memo.cache_info
    wrapper.cache_clear = memo.cache_clear
    return wrapper


def _wrap(memo: Memo, function: Callable[..., Any]) -> Any:
    # No call stands between this one and the function's: a recursion that is as deep as it can be
    # without a cache is half as deep with it.
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        key = memo.cache_key(*args, **kwargs)
        found = memo.look(key)
        if found is not _NONE:
            return found
        flight, own, outcome = Flight(), False, LEFT
        try:
            found = memo.board(key, flight)
            if found is _NONE:
                own = True
                result = function(*args, **kwargs)
                own = False
                found, outcome = memo.keep(key, result)
            return found
        except BaseException as error:
            outcome = memo.failed(error, own=own)
            raise
        finally:
            try:
                memo.land(key, flight, outcome)
            except BaseException:  # An interrupt must not leave the others waiting.
                memo.land(key, flight, outcome)
                raise
            del outcome  # An error leads to this frame: they would keep each other.

    return wrapper


def _wrap_async(memo: Memo, function: Callable[..., Any]) -> Any:
    from asyncio import current_task, to_thread

    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        key = memo.cache_key(*args, **kwargs)
        flight, own, outcome = Flight(current_task()), False, LEFT
        try:
            found = await memo.board_async(key, flight)
            if found is _NONE:
                own = True
                result = await function(*args, **kwargs)
                own = False
                found, outcome = await to_thread(memo.keep, key, result)
            return found
        except BaseException as error:
            outcome = memo.failed(error, own=own)
            raise
        finally:
            try:
                memo.land(key, flight, outcome)
            except BaseException:  # An interrupt must not leave the others waiting.
                memo.land(key, flight, outcome)
                raise
            del outcome  # An error leads to this frame: they would keep each other.

    return wrapper


def _is_object(function: Any) -> bool:
    """Return whether `function` is an instance of a class that says how to call it."""
    call = inspect.getattr_static(type(function), "__call__", None)
    return inspect.isfunction(call) and not isinstance(function, type)


def _name_of(function: Any) -> str:
    return str(getattr(function, "__name__", type(function).__name__))


def _signature_of(function: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(function)
    except ValueError:  # Some compiled functions have none; their arguments count as given.
        return None


def _marks(signature: inspect.Signature | None) -> dict[str, Any]:
    """Return the defaults that have no hash, and mean that nothing was given."""
    found = {}
    for name, parameter in signature.parameters.items() if signature else ():
        if parameter.default is not parameter.empty:
            try:
                content_hash(parameter.default)
            except UnsupportedTypeError:
                found[name] = parameter.default
    return found
