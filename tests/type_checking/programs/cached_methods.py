"""Decorated methods bind `self` and `cls` as others do, in both orders of the decorators."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, assert_type

from memories import CacheInfo, MemoryManager

manager = MemoryManager("1 MB", "1 MB", "10 MB")


class Raster:
    """A class as users write them."""

    @manager.cache
    def tile(self, x: int, y: int = 0) -> str:
        """Return a text."""
        return f"{x}/{y}"

    @manager.cache(version=1)
    async def fetch(self, x: int) -> bytes:
        """Return bytes, later."""
        return bytes(x)

    @manager.cache
    def size(self) -> int:
        """Take nothing."""
        return 1

    @property
    @manager.cache
    def depth(self) -> int:
        """Return a number."""
        return 8

    @classmethod
    @manager.cache
    def open(cls, name: str) -> int:
        """Return a number."""
        return len(name)

    @manager.cache(version=1)
    @classmethod
    def create(cls, name: str) -> int:
        """Return a number."""
        return len(name)

    @staticmethod
    @manager.cache
    def scale(x: int) -> float:
        """Return a number."""
        return x / 2

    @manager.cache
    @staticmethod
    def shift(x: int, *more: int) -> float:
        """Return a number."""
        return x / 2 + sum(more)


class Sub(Raster):
    """A class that inherits them."""


def apply(function: Callable[[int], str]) -> str:
    """Call a function that has the right parameters."""
    return function(3)


raster, sub = Raster(), Sub()
assert_type(raster.tile(1, y=2), str)
assert_type(Raster.tile(raster, 1), str)
assert_type(sub.tile(1), str)
assert_type(asyncio.run(raster.fetch(2)), bytes)
assert_type(raster.size(), int)
assert_type(raster.depth, int)
assert_type(Raster.open("a"), int)
assert_type(raster.open("a"), int)
assert_type(Sub.open("a"), int)
assert_type(Raster.create("a"), int)
assert_type(raster.create("a"), int)
assert_type(Raster.scale(1), float)
assert_type(raster.scale(1), float)
assert_type(Sub.scale(1), float)
assert_type(Raster.shift(1, 2), float)
assert_type(raster.shift(1, 2), float)
assert_type(apply(raster.tile), str)
assert_type(Raster.tile.cache_info(), CacheInfo)
assert_type(raster.tile.cache_info(), CacheInfo)
assert_type(Raster.open.cache_info(), CacheInfo)
assert_type(Raster.scale.cache_info(), CacheInfo)
assert_type(raster.tile.cache_key(raster, 1), str)
raster.tile.cache_clear()

if TYPE_CHECKING:
    raster.tile("1")  # wrong
    raster.tile(raster, 1, 2)  # wrong
    Raster.tile(1)  # wrong
    raster.open(1)  # wrong
    raster.scale("1")  # wrong
    Raster.scale(raster, 1)  # wrong
    raster.shift("1")  # wrong
    raster.size(1)  # wrong
    apply(raster.open)  # wrong

manager.cleanup()
