"""Decorated functions keep their parameters and results; wrong calls are reported."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, assert_type, overload

from memories import CachedFunction, CacheInfo, MemoryManager

T = TypeVar("T")
manager = MemoryManager("1 MB", "1 MB", "10 MB")


@manager.cache
def slope(tile: int, unit: str = "degree") -> float:
    """Return a number."""
    return tile / len(unit)


@manager.cache(version=2, ignore="unit", ttl=60, tier="warm")
def rows(tile: int, *, unit: str = "degree") -> list[float]:
    """Return a list."""
    return [tile / len(unit)]


@manager.cache()
async def fetch(tile: int) -> bytes:
    """Return bytes, later."""
    return bytes(tile)


@manager.cache
def first(values: list[T]) -> T:
    """Return a value of the type that the caller's list has."""
    return values[0]


@overload
def double(value: int) -> int: ...
@overload
def double(value: str) -> str: ...
@manager.cache
def double(value: int | str) -> int | str:
    """Return the type that was given."""
    return value * 2


class Scale:
    """An object that can be called."""

    def __call__(self, value: int) -> str:
        return str(value)


def apply(function: Callable[[int], float]) -> float:
    """Call a function that has the right parameters."""
    return function(3)


def clear(function: CachedFunction[..., Any]) -> None:
    """Take any decorated function."""
    function.cache_clear()


assert_type(slope(1, unit="percent"), float)
assert_type(rows(1), list[float])
assert_type(asyncio.run(fetch(3)), bytes)
assert_type(first([1]), int)
assert_type(double(2), int)
assert_type(double("2"), str)
assert_type(slope.cache_key(1), str)
assert_type(slope.cache_info(), CacheInfo)
assert_type(slope.cache_info().hits, int)
assert_type(slope.__wrapped__(1), float)
assert_type(manager.cache(Scale())(1), str)
assert_type(manager.cache(len)("four"), int)
assert_type(manager.cache(partial(slope.__wrapped__, unit="percent"))(2), float)
assert_type(apply(slope), float)
clear(slope)

if TYPE_CHECKING:
    slope("1")  # wrong
    slope(1, 2)  # wrong
    rows(1, "degree")  # wrong
    slope.cache_key("1")  # wrong
    slope(1).upper()  # wrong
    apply(double)
    apply(first)  # wrong
    manager.cache(slope, tier="lukewarm")  # wrong
    manager.cache(slope, ttl="60")  # wrong
    manager.cache(slope, max_size=3)  # wrong

manager.cleanup()
