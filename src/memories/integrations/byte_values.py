"""Values that are bytes, as hosts of files and chunks need them: whole, in part, by size."""

from __future__ import annotations

from typing import Any

import numpy as np

from memories.core.manager import MemoryManager
from memories.errors import KeyNotFoundError, UnsupportedTypeError
from memories.foundation.keys import check_prefix

IN_RAM = ("hot", "warm")


def read_bytes(
    manager: MemoryManager, key: str, start: int = 0, stop: int | None = None
) -> bytes | memoryview | None:
    """Return the bytes of `key` from `start` to `stop`; None if it is absent.

    Only these are read. A negative `start` counts from the end.

    Raises:
        UnsupportedTypeError: the value is not made of bytes.
    """
    if start == 0 and stop is None:
        value = manager.retrieve(key, None)
        return None if value is None else as_bytes(key, value)
    try:
        value = manager.retrieve(key, None, region=slice(start, stop))
    except UnsupportedTypeError:
        value = manager.retrieve(key, None)  # Its type is a part of the message.
    return None if value is None else as_bytes(key, value)


def as_bytes(key: str, value: Any) -> bytes | memoryview:
    """Return a value as bytes, without a copy.

    Raises:
        UnsupportedTypeError: it is something else.
    """
    if type(value) is bytes:
        return value
    if isinstance(value, (bytes, bytearray, memoryview)):
        return memoryview(value).cast("B")
    if isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.flags.c_contiguous:
        return value.data.cast("B")
    raise UnsupportedTypeError(
        f"{key!r} holds a {type(value).__name__}, and a host of files and chunks needs bytes: "
        "another program uses this prefix; give the adapter a prefix of its own"
    )


def size_of(manager: MemoryManager, key: str) -> int | None:
    """Return how many bytes the value of `key` has; None if it is absent."""
    try:
        info = manager.info(key)
    except KeyNotFoundError:
        return None
    if info.codec == "bytes":
        return info.nbytes
    value = read_bytes(manager, key)
    return None if value is None else len(value)


def is_in_ram(manager: MemoryManager, key: str) -> bool | None:
    """Return whether reading `key` needs no disk; None if it is absent."""
    try:
        return manager.get_tier(key) in IN_RAM
    except KeyNotFoundError:
        return None


def folder(prefix: str) -> str:
    """Return a prefix as the beginning of keys: empty, or with one slash at its end.

    Raises:
        InvalidKeyTypeError: it is not a `str`.
    """
    prefix = check_prefix(prefix).strip("/")
    return f"{prefix}/" if prefix else ""
