"""CRC-32 for ZIP members: in hardware where the `isal` package is installed, else by zlib.

Nothing else uses CRC-32: it is what other ZIP tools check, and three times slower in software.
`combine` joins the sums of two neighbours, so that several threads can sum one member.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import lru_cache
from typing import cast

from memories.foundation.optional_imports import is_missing

Crc = Callable[..., int]

_POLYNOMIAL = 0xEDB88320  # Of CRC-32, its highest power in the lowest bit.
_ONE = 1 << 31  # The polynomials 1 and x, likewise.
_X = 1 << 30


def _fastest() -> Crc:
    try:
        from isal import isal_zlib
    except ModuleNotFoundError as error:
        if not is_missing(error, "isal"):
            raise
        return zlib.crc32
    return cast(Crc, isal_zlib.crc32)


crc32 = _fastest()


def combine(front: int, back: int, back_bytes: int) -> int:
    """Return the CRC-32 of two byte strings one after the other, from those of each.

    What follows shifts the front's remainder by its length: a product of polynomials over GF(2).
    After `crc32_combine` of zlib by Mark Adler.
    """
    return _product(_shift(back_bytes), front) ^ back


def _product(a: int, b: int) -> int:
    """Return a * b modulo the polynomial."""
    result, bit = 0, _ONE
    while bit and a & (2 * bit - 1):
        if a & bit:
            result ^= b
        bit >>= 1
        b = b >> 1 ^ (_POLYNOMIAL if b & 1 else 0)
    return result


@lru_cache(maxsize=64)
def _shift(count: int) -> int:
    """Return x to the power of eight times `count`, modulo the polynomial."""
    power, square = _ONE, _X
    exponent = 8 * count
    while exponent:
        if exponent & 1:
            power = _product(power, square)
        square = _product(square, square)
        exponent >>= 1
    return power
