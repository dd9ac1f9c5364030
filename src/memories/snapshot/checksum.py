"""CRC-32 for ZIP members: in hardware where the `isal` package is installed, else by zlib.

Nothing else uses CRC-32: it is what other ZIP tools check, and three times slower in software.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import cast

Crc = Callable[..., int]


def _fastest() -> Crc:
    try:
        from isal import isal_zlib
    except ImportError:
        return zlib.crc32
    return cast(Crc, isal_zlib.crc32)


crc32 = _fastest()
