"""The decorator `memories.cached`, and the manager that it uses where a program names none.

It is a face over `manager.cache`, for those who know `functools.lru_cache` and
`cachetools.cached`: the same results, under the same keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, overload

from memories.core.at_exit import close_at_exit
from memories.core.cached_function import CacheDecorator, CachedFunction
from memories.core.late_results import LateResults
from memories.core.manager import MemoryManager
from memories.core.memoize import memoize
from memories.core.result_contract import ResultLocks, ResultStore
from memories.errors import InvalidOptionTypeError
from memories.foundation.fork_lock import new_lock
from memories.model.tiers import StoreTier
from memories.options.configured_constructor import effective_options
from memories.sharing import SharedMemoryManager

P = ParamSpec("P")
R = TypeVar("R")
Manager = MemoryManager | SharedMemoryManager
# What the default manager takes where no file and no variable says it: the program did not ask for
# a manager, and needs its memory for other things.
SIZES = {"hot_memory_size": "5%", "warm_memory_size": "10%", "cold_memory_size": "10%"}

_lock = new_lock()
_made: list[Manager] = []  # At most one.


def default() -> Manager:
    """Return the manager that this process has without making one; the first call makes it.

    `MEMORIES_*` variables and `memories.toml` configure it, as they do `MemoryManager()`. Where
    they set a `storage_path`, it is a `SharedMemoryManager`, so that all processes with this
    configuration share what they store; without one it ends with the process. Sizes that they leave
    out are a twentieth of the RAM for hot, a tenth for warm and a tenth of the disk for cold.

    It is closed at the exit of the interpreter. A forked child reads what its parent has; results
    that it computes are kept by the parent.

    Raises:
        InvalidOptionError: the configuration is invalid.
        StoreLockedError: a process has the store open and does not share it.
        StorageError: the directory cannot be used.
    """
    for manager in _made:
        if not manager.closed:
            return manager
    with _lock:
        if not _made or _made[0].closed:
            _made[:] = [_make()]
        return _made[0]


def _make() -> Manager:
    options = {option.name: option for option in effective_options(MemoryManager.__init__)}
    sizes: dict[str, Any] = {
        name: size for name, size in SIZES.items() if options[name].origin == "default"
    }
    path = options["storage_path"].value
    manager: Manager
    if path is None or options["read_only"].value:
        manager = MemoryManager(**sizes)
    else:
        manager = SharedMemoryManager(Path(path).expanduser(), **sizes)
    close_at_exit(manager)
    return manager


@overload
def cached(
    cache: Callable[P, R],
    /,
    *,
    key: Callable[..., Any] | None = None,
    lock: AbstractContextManager[Any] | None = None,
    condition: AbstractContextManager[Any] | None = None,
    info: bool = True,
    version: int | str | None = None,
    ignore: Iterable[str] = (),
    ttl: float | None = None,
    tier: StoreTier = "auto",
) -> CachedFunction[P, R]: ...
@overload
def cached(
    cache: Manager | None = None,
    *,
    key: Callable[..., Any] | None = None,
    lock: AbstractContextManager[Any] | None = None,
    condition: AbstractContextManager[Any] | None = None,
    info: bool = True,
    version: int | str | None = None,
    ignore: Iterable[str] = (),
    ttl: float | None = None,
    tier: StoreTier = "auto",
) -> CacheDecorator: ...
def cached(
    cache: Any = None,
    *,
    key: Callable[..., Any] | None = None,
    lock: AbstractContextManager[Any] | None = None,
    condition: AbstractContextManager[Any] | None = None,
    info: bool = True,
    version: int | str | None = None,
    ignore: Iterable[str] = (),
    ttl: float | None = None,
    tier: StoreTier = "auto",
) -> Any:
    """Decorate a function so that its results are kept; bare, with a manager, or with options.

    `@memories.cached` keeps them in `memories.default()`, which the first call makes, and
    `@memories.cached(manager)` in another manager. It does what `MemoryManager.cache` does, and
    takes the arguments of `cachetools.cached` as well. The decorated function has `cache_info()`,
    `cache_clear()` and `cache_parameters()`, as functions under `functools.lru_cache` have, and
    `cache_key(...)`.

    Args:
        cache: A manager; None for `memories.default()`. It limits the bytes of all results
            together, so there is no `maxsize` for one function.
        key: A function of the arguments whose value is hashed in their place, such as those of
            `cachetools.keys`.
        lock: It is held around each read and each store of a result, and not while the function
            runs. Managers need none.
        condition: Another lock, which takes the place of `lock`. Calls that need the same result
            wait for one of them in any case.
        info: `cache_info()` is there whatever it says.
        version: As in `MemoryManager.cache`, like `ignore`, `ttl` and `tier`.
        ignore: Names of parameters, or of variables that the function reads.
        ttl: Seconds for which a result is valid.
        tier: Where results are stored first.

    Raises:
        InvalidOptionError: an option is invalid.
        UnsupportedTypeError: this is not a function, or a generator.
    """
    del info
    is_bare = callable(cache) or isinstance(cache, staticmethod | classmethod)
    results: ResultStore = LateResults(default) if cache is None or is_bare else _results_of(cache)
    guard = lock if condition is None else condition
    if guard is not None:
        results = _GuardedResults(results, guard)
    decorate = partial(
        memoize, results, version=version, ignore=ignore, key=key, ttl=ttl, tier=tier
    )
    return decorate(cache) if is_bare else decorate


def _results_of(cache: Any) -> ResultStore:
    if not isinstance(cache, MemoryManager | SharedMemoryManager):
        raise InvalidOptionTypeError(
            f"cache={cache!r:.60} must be a manager, which limits the bytes of all results; leave "
            "it out for memories.default()"
        )
    return cache._results()


class _GuardedResults:
    """Holds a lock of the program around each read and each store of a result."""

    def __init__(self, results: ResultStore, guard: AbstractContextManager[Any]) -> None:
        self._results = results
        self._guard = guard
        self.scan = results.scan
        self.get_tier = results.get_tier
        self.exists = results.exists
        self.hand_over = results.hand_over
        self.require_writable = results.require_writable
        self.require_tier = results.require_tier
        self.open = results.open

    @property
    def locks(self) -> ResultLocks | None:
        return self._results.locks

    def retrieve(self, key: str, default_value: Any, /, **options: Any) -> Any:
        with self._guard:
            return self._results.retrieve(key, default_value, **options)

    def retrieve_now(self, key: str, /) -> Any:
        with self._guard:
            return self._results.retrieve_now(key)

    def delete_prefix(self, prefix: str) -> int:
        with self._guard:
            return self._results.delete_prefix(prefix)

    def store(self, key: str, result: Any, **options: Any) -> Any:
        with self._guard:
            return self._results.store(key, result, **options)
