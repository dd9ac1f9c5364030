"""`memories.aio.cached`: a decorator for coroutine functions, for those who know aiocache.

It is `manager.cache` with a manager that need not be open yet: a service decorates its endpoints
when it is imported, and opens its manager when its event loop runs.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from inspect import iscoroutinefunction
from typing import Any, ParamSpec, Protocol, TypeVar, overload

from memories import caching
from memories.core.cached_function import CachedFunction
from memories.core.late_results import LateResults
from memories.core.memoize import memoize
from memories.errors import InvalidOptionTypeError
from memories.integrations.aio import AsyncMemoryManager, AsyncSharedMemoryManager
from memories.model.tiers import StoreTier

P = ParamSpec("P")
R = TypeVar("R")
AsyncManager = AsyncMemoryManager | AsyncSharedMemoryManager


class CoroutineDecorator(Protocol):
    """What `cached(...)` returns where it is called with options."""

    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> CachedFunction[P, Coroutine[Any, Any, R]]:
        """Return `function` with its results kept in the tiers."""


@overload
def cached(
    manager: Callable[P, Coroutine[Any, Any, R]], /
) -> CachedFunction[P, Coroutine[Any, Any, R]]: ...
@overload
def cached(
    manager: AsyncManager | caching.Manager | None = None,
    /,
    *,
    ttl: float | None = None,
    key: Callable[..., Any] | None = None,
    version: int | str | None = None,
    ignore: Iterable[str] = (),
    tier: StoreTier = "auto",
) -> CoroutineDecorator: ...
def cached(
    manager: Any = None,
    /,
    *,
    ttl: float | None = None,
    key: Callable[..., Any] | None = None,
    version: int | str | None = None,
    ignore: Iterable[str] = (),
    tier: StoreTier = "auto",
) -> Any:
    """Decorate a coroutine function so that its results are kept; bare, or with options.

    Tasks that need the same result at the same time share one computation, in all event loops of
    the process; of a store that processes share, one process computes. What RAM holds is returned
    in the event loop, everything else is read and stored in a thread. The decorated function keeps
    its signature, so that FastAPI injects what its parameters name. It needs asyncio.

    Args:
        manager: A manager of `memories.aio`, which is open when the function is called; or a plain
            one that is open. None for `memories.default()`.
        ttl: Seconds for which a result is valid.
        key: A function of the arguments whose value is hashed in their place.
        version: As in `MemoryManager.cache`.
        ignore: Names of parameters that do not change the result, such as a request or a session.
        tier: Where results are stored first.

    Raises:
        InvalidOptionTypeError: this is not a coroutine function, or not a manager.
        InvalidOptionError: an option is invalid.
    """
    is_bare = callable(manager) or isinstance(manager, staticmethod | classmethod)

    def decorate(function: Any) -> Any:
        _require_coroutine(function)
        if isinstance(manager, AsyncManager):
            return memoize(
                LateResults(lambda: manager.sync), function,
                version=version, ignore=ignore, key=key, ttl=ttl, tier=tier,
            )  # fmt: skip
        return caching.cached(
            None if is_bare else manager,
            version=version, ignore=ignore, key=key, ttl=ttl, tier=tier,
        )(function)  # fmt: skip

    return decorate(manager) if is_bare else decorate


def _require_coroutine(function: Any) -> None:
    if isinstance(function, staticmethod | classmethod):
        function = function.__func__
    if not (iscoroutinefunction(function) or iscoroutinefunction(type(function).__call__)):
        raise InvalidOptionTypeError(
            f"{function!r:.80} is not a coroutine function: memories.cached decorates it"
        )
