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
from sys import getrefcount, getsizeof
from time import perf_counter
from typing import Any, Final
from weakref import getweakrefcount

import numpy as np

from memories.codecs.content_hash import content_hash
from memories.codecs.function_code import names_read
from memories.codecs.function_hash import stand_in
from memories.core.cached_function import CacheInfo
from memories.core.identity import Identity, definition_of
from memories.core.result_contract import ResultStore
from memories.core.single_flight import (
    ABANDONED,
    Computation,
    FlightOutcome,
    OutcomeKind,
    SingleFlight,
)
from memories.core.value_reader import MISSING
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
from memories.foundation.clock import SystemClock
from memories.foundation.fork_lock import new_lock
from memories.foundation.logging import logger
from memories.foundation.periodic import Latch
from memories.options.settings import check_seconds

PREFIX = "cache/"
_KNOWN_CALLS = 2048  # Of so many calls with plain arguments the hash is remembered ...
_KNOWN_NBYTES = 512  # ... if the arguments take no more than this.
_PLAIN: Final = frozenset({int, bool, str, type(None)})
_FIRST_PAUSE, _LONGEST_PAUSE = 0.002, 0.05  # Seconds between two tries to acquire a lock.
_OF_ITS_CALLER = 2  # References: a variable, and the argument of `getrefcount`.
# Errors that concern one call: another call of the function may succeed.
_OF_ONE_CALL = (TimeoutError, RecursionError, MemoryError)


class _Nothing:
    """Stands for an absent result; it is the same object in a function that was pickled."""

    def __reduce__(self) -> str:
        return "_NOTHING"


_NOTHING: Final = _Nothing()
_never = Latch()  # It is not set: it only waits.
_monotonic = SystemClock.monotonic


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
        self._arguments = {
            "version": version, "ignore": ignore, "key": key, "ttl": ttl, "tier": tier,
        }  # fmt: skip
        self.results = results
        self.single_flight = SingleFlight()
        self._function = function
        self._signature = _signature_of(function)
        self._version = version
        self._ttl = check_seconds("ttl", ttl)
        self._tier = tier
        if tier != "auto":
            results.require_tier(tier)
        self._keeps = True  # Whether the latest result was stored.
        self._counts: Counter[str] = Counter()
        self._lock = new_lock()
        self._no_hash = _no_hash(self._signature)
        self._positional = _positional(self._signature) if key is None else None
        self._known_hashes: dict[tuple[tuple[Any, ...], tuple[type, ...]], str] = {}
        outer = self._split_ignored(frozenset([ignore] if isinstance(ignore, str) else ignore))
        self._identity = Identity(function, version, outer, self._ignored)
        self._key = key
        self._key_identity = Identity(key, None, outer) if key and version is None else None
        self._name = f"{PREFIX}{self._identity.label}/{self._identity.place}/"
        self._known_prefix = "", ""  # Of the keys, and the text of the identity that it is for.

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how another process keeps results of this function, if it gets a copy of it.

        pickle sends a function of a module by its name; cloudpickle, which joblib and dask use,
        sends one of a script or a notebook by its code, and what it closes over.
        """
        return _unpickled, (self.results, self._function, self._arguments)

    def stands_for(self) -> tuple[Any, ...]:
        """Return what the hash of the decorated function covers."""
        return (self._function, self._version)

    def cache_key(self, *args: Any, **kwargs: Any) -> str:
        """Return the key under which the result for these arguments is stored.

        Raises:
            UnsupportedTypeError: the function, or an argument, has no hash.
        """
        prefix = self._prefix()
        call = None
        names = self._positional
        if names is not None and not kwargs and len(args) == len(names):
            types = tuple(map(type, args))
            if _PLAIN.issuperset(types):
                call = args, types  # Because 1 equals True.
                known = self._known_hashes.get(call)
                if known is not None:
                    return prefix + known
            arguments = self._by_name(names, args)
        else:
            arguments = self._hashed_arguments(args, kwargs)
        try:
            found = content_hash(arguments, code=self._version is None)
            if call is not None and sum(map(getsizeof, args)) <= _KNOWN_NBYTES:
                if len(self._known_hashes) >= _KNOWN_CALLS:
                    self._known_hashes.clear()
                self._known_hashes[call] = found
            return prefix + found
        except UnsupportedTypeError as error:
            raise UnsupportedTypeError(
                f"{self._unhashable(arguments)} of {self._identity.label}: {error}; name "
                "parameters that do not change the result with ignore=, or give key="
            ) from error

    def cache_info(self) -> CacheInfo:
        """Return the hits and misses of this process, and the tiers of the results."""
        tiers: Counter[str] = Counter()
        for key in self.results.scan(self._prefix()):
            try:
                tiers[self.results.get_tier(key)] += 1
            except KeyNotFoundError:
                continue  # Evicted since it was listed.
        hits, misses = self._counts["hits"], self._counts["misses"]
        return CacheInfo(hits, misses, tiers.total(), dict(tiers))

    def cache_parameters(self) -> dict[str, Any]:
        """Return how results are kept, as a new dict; it has what `functools` says, too.

        `maxsize` is None: the tiers limit bytes. `typed` is True: 1 and 1.0 are two calls.
        """
        options = {name: self._arguments[name] for name in ("version", "ttl", "tier")}
        return {"maxsize": None, "typed": True, **options}

    def cache_clear(self) -> None:
        """Remove every result of this function, also those of other versions and older code."""
        self.results.delete_prefix(self._name)
        with self._lock:
            self._counts.clear()

    def lookup(self, key: str) -> Any:
        """Return the result of `key`; `_NOTHING` if it is absent or cannot be read."""
        try:
            value = self.results.retrieve(key, _NOTHING)
        except (
            CorruptDataError, UnavailableError, UntrustedDataError, UnsupportedTypeError
        ) as error:  # fmt: skip
            logger.warning("a result cannot be read and is computed again: %s", error)
            return _NOTHING
        if value is not _NOTHING:
            self._count("hits")
        return value

    def lookup_now(self, key: str) -> Any:
        """Do what `lookup` does where RAM has the result at hand; never wait."""
        value = self.results.retrieve_now(key)
        if value is MISSING:
            return _NOTHING
        self._count("hits")
        return value

    def _lookup_again(self, key: str) -> Any:
        """Do what `lookup` does, for a key that was most probably absent a moment ago."""
        try:
            if not self.results.exists(key):
                return _NOTHING
        except UnavailableError:  # An archive that does not answer may have it.
            return _NOTHING
        return self.lookup(key)

    def start(self, computation: Computation) -> None:
        """Record that the function is called in `computation`."""
        self._count("misses")
        computation.enter()
        self._identity.enter(computation)

    def join(self, key: str, computation: Computation, finished: int) -> Any:
        """Return the result of a computation in progress; `_NOTHING` if this call must compute.

        `finished` is how many computations had finished when the result was looked for.
        """
        while True:
            other = self.single_flight.register(key, computation)
            outcome = None if other is None else other.wait(computation)
            if other is None:
                for pause in self._tries(key, computation):
                    _never.wait(pause)
            if outcome is not None:
                found = self._value_of(key, outcome)
            elif finished == self.single_flight.finished and self.results.locks is None:
                found = _NOTHING  # No call can have stored it since.
            else:
                found = self._lookup_again(key)
            if found is not _NOTHING:
                return found
            if outcome is None:
                self.start(computation)
                return _NOTHING

    def _tries(self, key: str, computation: Computation) -> Iterator[float]:
        """Acquire the lock that other processes see; yield how long to wait before each new try.

        Where the latest result could not be kept, others would wait for nothing.
        """
        locks = self.results.locks if self._keeps else None
        if locks is None:
            return
        nested = computation.outer is not None
        give_up = _monotonic() + (locks.nested_seconds if nested else locks.seconds)
        pause = _FIRST_PAUSE
        computation.locks = locks
        while not locks.acquire(key, computation):
            if _monotonic() > give_up:
                logger.warning(
                    "another process still computes a result of %s: it is computed here, too",
                    self._identity.label,
                )
                return
            yield pause
            pause = min(1.5 * pause, _LONGEST_PAUSE)

    async def join_async(self, key: str, computation: Computation) -> Any:
        """Like `join`, without blocking the event loop."""
        from asyncio import sleep, to_thread

        while True:
            other = self.single_flight.register(key, computation)
            outcome = None if other is None else await other.wait_async(computation)
            if other is None:
                for pause in self._tries(key, computation):
                    await sleep(pause)
            if outcome is None:
                found = await to_thread(self.lookup, key)
            else:
                found = await to_thread(self._value_of, key, outcome)
            if found is not _NOTHING:
                return found
            if outcome is None:
                self.start(computation)
                return _NOTHING

    def store(
        self, key: str, result: Any, *, seconds: float, references: int
    ) -> tuple[Any, FlightOutcome]:
        """Store a result; return it as later calls will, and the outcome for waiting calls.

        It took `seconds` to compute, and the caller had so many `references` to it.

        Raises:
            UnsupportedTypeError: it cannot be serialised.
        """
        if inspect.iscoroutine(result):
            result.close()
            raise UnsupportedTypeError(
                f"{self._identity.label} returned a coroutine, which can be awaited once: put "
                "`cache` directly above the `async def`"
            )
        try:
            return self._store(key, result, seconds, copy=not _is_unshared(result, references))
        except UnsupportedTypeError as error:
            raise UnsupportedTypeError(f"the result of {self._identity.label}: {error}") from error

    def _store(
        self, key: str, result: Any, seconds: float, *, copy: bool
    ) -> tuple[Any, FlightOutcome]:
        if self._may_store():
            try:
                found = self.results.store(
                    key, result, tier=self._tier, ttl=self._ttl, seconds=seconds, copy=copy
                )
                self._keeps = True
                return found, FlightOutcome(OutcomeKind.RESULT)
            except (TierFullError, KeyNotFoundError) as error:
                logger.debug("a result is too large, or was dropped at once: %s", error)
            except (StorageError, UnavailableError) as error:
                logger.warning("a result of %s is not stored: %s", self._identity.label, error)
            self._keeps = False
            payload = Payload.of(result, copy=copy)
        else:
            payload = Payload.of(result, copy=copy)
            self.results.hand_over(key, payload, tier=self._tier, ttl=self._ttl, seconds=seconds)
        return self._open(payload), FlightOutcome(OutcomeKind.RESULT, payload)

    def outcome_of(self, error: BaseException, *, own: bool) -> FlightOutcome:
        """Return the outcome for waiting calls; `own` says that the function raised the error."""
        common = isinstance(error, Exception) and not isinstance(error, _OF_ONE_CALL)
        is_shared = common and (own or isinstance(error, MemoriesError))
        return FlightOutcome(OutcomeKind.ERROR, error) if is_shared else ABANDONED

    def finish(self, key: str, computation: Computation, outcome: FlightOutcome) -> None:
        """End a computation. Idempotent."""
        if computation.locks is not None:
            computation.locks.release(key, computation)  # After the result was stored.
        self.single_flight.finish(key, computation, outcome)
        self._identity.leave(computation)

    def _value_of(self, key: str, outcome: FlightOutcome) -> Any:
        """Return the result of another call, as a value of this call."""
        if outcome.kind is OutcomeKind.ERROR:
            raise outcome.content
        if outcome.kind is OutcomeKind.RESULT and outcome.content is not None:
            self._count("hits")
            return self._open(outcome.content)
        return _NOTHING if outcome.kind is OutcomeKind.ABANDONED else self.lookup(key)

    def _may_store(self) -> bool:
        try:
            self.results.require_writable()
        except (ForkedError, StorageError):  # In a forked child, or in a reader.
            return False
        return True

    def _open(self, payload: Payload) -> Any:
        return self.results.open(payload)

    def _prefix(self) -> str:
        text = self._identity.text()
        if self._key_identity is not None:
            text += f".{self._key_identity.text()}"
        known = self._known_prefix
        if text is not known[0]:
            known = self._known_prefix = text, f"{self._name}{text}/"
        return known[1]

    def _hashed_arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return what is hashed for a call: the arguments by name, including hashable defaults."""
        if self._key is not None:
            return self._key(*args, **kwargs)
        if self._signature is None:
            return args, kwargs
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return self._by_name(bound.arguments, bound.arguments.values())

    def _by_name(self, names: Iterable[str], values: Iterable[Any]) -> dict[str, Any]:
        arguments = dict(zip(names, values, strict=True))
        if self._ignored or self._no_hash:
            return {
                name: value
                for name, value in arguments.items()
                if name not in self._ignored and self._no_hash.get(name, _NOTHING) is not value
            }
        return arguments

    def _unhashable(self, arguments: Any) -> str:
        """Return a description of the argument that has no hash."""
        if self._key is not None:
            return "the key"
        for name, value in arguments.items() if self._signature else ():
            try:
                content_hash(value)
            except UnsupportedTypeError:
                return f"the argument {name!r}"
        return "an argument"

    def _split_ignored(self, ignored: frozenset[str]) -> frozenset[str]:
        """Set the parameters that are ignored, and return the other ignored names."""
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
        UnsupportedTypeError: this is not a function, or its results cannot be stored.
        InvalidOptionError: an option is invalid.
    """
    if isinstance(function, staticmethod | classmethod):
        inner = memoize(
            results, function.__func__, version=version, ignore=ignore, key=key, ttl=ttl, tier=tier
        )
        return type(function)(inner)
    if isinstance(function, property | cached_property) or not callable(function):
        raise UnsupportedTypeError(
            f"{function!r} cannot be cached because it is not a function: put `cache` below the "
            "decorator that made it"
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
    if _is_object(function):  # Its attributes are state, so they are not copied.
        wrapper.__qualname__ = wrapper.__name__ = _name_of(function)
        wrapper.__doc__ = function.__doc__
        wrapper.__wrapped__ = function
    else:
        functools.update_wrapper(wrapper, function)
    wrapper.cache_key = memo.cache_key
    wrapper.cache_info = memo.cache_info
    wrapper.cache_clear = memo.cache_clear
    wrapper.cache_parameters = memo.cache_parameters
    return wrapper


def _unpickled(
    results: ResultStore, function: Callable[..., Any], arguments: dict[str, Any]
) -> Memo:
    """Return the memo of a function that was pickled by its code."""
    memo = Memo(results, function, **arguments)
    for wrap in (_wrap, _wrap_async):  # The code of the one that was pickled with it is the same.
        stand_in(wrap(memo, function).__code__)
    return memo


def _wrap(memo: Memo, function: Callable[..., Any]) -> Any:
    # The wrapper calls the function directly: each further frame would reduce the possible depth of
    # a recursion, which is half of that without a cache.
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        key = memo.cache_key(*args, **kwargs)
        finished = memo.single_flight.finished
        found = memo.lookup(key)
        if found is not _NOTHING:
            return found
        computation, own, outcome = Computation(), False, ABANDONED
        try:
            found = memo.join(key, computation, finished)
            if found is _NOTHING:
                own, started = True, perf_counter()
                result = function(*args, **kwargs)
                own, seconds = False, perf_counter() - started
                references = getrefcount(result)
                found, outcome = memo.store(key, result, seconds=seconds, references=references)
            return found
        except BaseException as error:
            outcome = memo.outcome_of(error, own=own)
            raise
        finally:
            try:
                memo.finish(key, computation, outcome)
            except BaseException:  # An interrupt must not leave waiting calls behind.
                memo.finish(key, computation, outcome)
                raise
            del outcome  # An error refers to this frame: a reference cycle.

    return wrapper


def _wrap_async(memo: Memo, function: Callable[..., Any]) -> Any:
    from asyncio import current_task, to_thread

    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        key = memo.cache_key(*args, **kwargs)
        found = memo.lookup_now(key)
        if found is not _NOTHING:
            return found
        computation, own, outcome = Computation(current_task()), False, ABANDONED
        try:
            found = await memo.join_async(key, computation)
            outcome = FlightOutcome(OutcomeKind.RESULT)  # Calls that wait read it, all at once.
            if found is _NOTHING:
                own, started = True, perf_counter()
                result = await function(*args, **kwargs)
                own, seconds = False, perf_counter() - started
                references = getrefcount(result)
                found, outcome = await to_thread(
                    memo.store, key, result, seconds=seconds, references=references
                )
            return found
        except BaseException as error:
            outcome = memo.outcome_of(error, own=own)
            raise
        finally:
            try:
                memo.finish(key, computation, outcome)
            except BaseException:  # An interrupt must not leave waiting calls behind.
                memo.finish(key, computation, outcome)
                raise
            del outcome  # An error refers to this frame: a reference cycle.

    return wrapper


def _is_unshared(result: Any, references: int) -> bool:
    """Return whether nothing but the caller, who had `references` to it, can write to a result.

    A view of an array refers to it, and so does a buffer or a tensor over its memory.
    """
    return (
        references <= _OF_ITS_CALLER
        and type(result) is np.ndarray
        and result.base is None
        and result.flags.owndata
        and not result.dtype.hasobject
        and not getweakrefcount(result)
    )


def _is_object(function: Any) -> bool:
    """Return whether `function` is an instance of a class with a `__call__`."""
    call = inspect.getattr_static(type(function), "__call__", None)
    return inspect.isfunction(call) and not isinstance(function, type)


def _name_of(function: Any) -> str:
    return str(getattr(function, "__name__", type(function).__name__))


def _signature_of(function: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(function)
    except ValueError:  # Some compiled functions have no signature.
        return None


def _positional(signature: inspect.Signature | None) -> tuple[str, ...] | None:
    """Return the names of the parameters if all of them can be given by position only."""
    if signature is None:
        return None
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    one_each = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
    return tuple(signature.parameters) if kinds <= one_each else None


def _no_hash(signature: inspect.Signature | None) -> dict[str, Any]:
    """Return the defaults that have no hash: such sentinels mean that nothing was given."""
    found = {}
    for name, parameter in signature.parameters.items() if signature else ():
        if parameter.default is not parameter.empty:
            try:
                content_hash(parameter.default)
            except UnsupportedTypeError:
                found[name] = parameter.default
    return found
