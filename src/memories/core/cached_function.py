"""The types of functions that `manager.cache` has decorated, for type checkers and for users.

A decorated function is an ordinary function with a few attributes. These protocols keep the
parameters and the result of the original one, and bind `self` as a method does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Concatenate, NamedTuple, ParamSpec, Protocol, TypeVar, overload

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
S = TypeVar("S")
F_co = TypeVar("F_co", covariant=True)
R_co = TypeVar("R_co", covariant=True)
S_contra = TypeVar("S_contra", contravariant=True)


class CacheInfo(NamedTuple):
    """The calls so far, and the results that are stored now."""

    hits: int
    misses: int
    results: int  # Results of the present version of the function in the tiers.
    tiers: dict[str, int]  # The number of results in each tier.

    @property
    def currsize(self) -> int:
        """The number of results, under the name that `functools` gives it."""
        return self.results

    @property
    def maxsize(self) -> None:
        """None: the tiers limit the bytes of all results together, not their number."""
        return None


class CachedMethod(Protocol[S_contra, P, R_co]):
    """A cached function bound to an object or a class; only `cache_key` still needs the object."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Return the result for these arguments, stored or computed."""

    def cache_info(self) -> CacheInfo:
        """Return the hits and misses of this process, and the tiers of the results."""

    def cache_clear(self) -> None:
        """Remove every result of this function, also those of other versions and older code."""

    def cache_parameters(self) -> dict[str, Any]:
        """Return how results are kept: version, ttl, tier, and what `functools` says."""

    def cache_key(self, instance: S_contra, /, *args: P.args, **kwargs: P.kwargs) -> str:
        """Return the key under which the result for these arguments is stored."""


class Wrapper(Protocol[F_co]):
    """A function that refers to the one that it wraps.

    Type checkers compare the first parameter of a method with the class by this type. They do not
    do so by `CachedFunction` itself, whose parameters are a `ParamSpec`.
    """

    @property
    def __wrapped__(self) -> F_co:
        """Return the original function."""


class CachedFunction(Protocol[P, R_co]):
    """A function whose results are kept in the tiers."""

    @property
    def __wrapped__(self) -> Callable[P, R_co]:
        """Return the original function, which computes."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Return the result for these arguments, stored or computed."""

    def cache_info(self) -> CacheInfo:
        """Return the hits and misses of this process, and the tiers of the results."""

    def cache_clear(self) -> None:
        """Remove every result of this function, also those of other versions and older code."""

    def cache_parameters(self) -> dict[str, Any]:
        """Return how results are kept: version, ttl, tier, and what `functools` says."""

    def cache_key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Return the key under which the result for these arguments is stored.

        Raises:
            UnsupportedTypeError: the function, or an argument, has no hash.
        """

    # The overloads are tried in this order: a class method, a function of the class, a method, and
    # a static method, whose first parameter is neither the class nor an object of it.
    @overload
    def __get__(
        self: Wrapper[Callable[Concatenate[S, Q], R]], instance: object, owner: S
    ) -> CachedMethod[S, Q, R]: ...
    @overload
    def __get__(self, instance: None, owner: type) -> CachedFunction[P, R_co]: ...
    @overload
    def __get__(
        self: Wrapper[Callable[Concatenate[S, Q], R]], instance: S, owner: type
    ) -> CachedMethod[S, Q, R]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> CachedFunction[P, R_co]: ...


class CacheDecorator(Protocol):
    """What `manager.cache(...)` returns where it is called with options."""

    def __call__(self, function: Callable[P, R], /) -> CachedFunction[P, R]:
        """Return `function` with its results kept in the tiers."""
