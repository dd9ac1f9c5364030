"""Checks keys: a key is a `str` of 1 to 4,096 bytes in UTF-8, without NUL.

Also shortens lists of keys for messages.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice
from typing import Any

from memories.errors import InvalidKeyError, InvalidKeyTypeError

MAX_KEY_BYTES = 4096
NAMED_KEYS = 10  # How many a message about many keys names.
INTERNAL = "\0"  # The first character of internal keys; a caller's key never contains it.


def check_key(key: Any) -> str:
    """Return `key` if it is valid.

    Raises:
        InvalidKeyTypeError: `key` is not a `str`.
        InvalidKeyError: it is empty, too long, holds NUL, or is not encodable as UTF-8.
    """
    if not isinstance(key, str):
        raise _no_text(key)
    if type(key) is str and key.isascii() and 0 < len(key) <= MAX_KEY_BYTES and "\0" not in key:
        return key  # Most keys, in one call.
    return _check_text(str.__str__(key))


def check_name(name: Any) -> str:
    """Return `name` if it is a text, which becomes a part of a key and may be no key by itself.

    Raises:
        InvalidKeyTypeError: it is not a `str`.
    """
    if not isinstance(name, str):
        raise _no_text(name)
    return name


def check_prefix(prefix: Any) -> str:
    """Return `prefix` if it is a text, which may be empty.

    Raises:
        InvalidKeyTypeError: it is not a `str`.
    """
    if not isinstance(prefix, str):
        raise InvalidKeyTypeError(f"a prefix must be a str, not {type(prefix).__name__}")
    return prefix


def _no_text(key: Any) -> InvalidKeyTypeError:
    return InvalidKeyTypeError(
        f"a key must be a str, not {type(key).__name__}; use str(key) or a format of your own"
    )


def _check_text(key: str) -> str:
    if not key:
        raise InvalidKeyError("a key must not be empty")
    if "\0" in key:
        raise InvalidKeyError(f"a key must not contain NUL: {key[:60]!r}")
    try:
        size = len(key.encode())
    except UnicodeEncodeError as error:
        raise InvalidKeyError(
            f"a key must be encodable as UTF-8, and {key[:60]!r} holds a lone surrogate"
        ) from error
    if size > MAX_KEY_BYTES:
        raise InvalidKeyError(
            f"a key must take at most {MAX_KEY_BYTES} bytes in UTF-8, not {size}: {key[:60]!r}..."
        )
    return key


def some_of(keys: Collection[str], limit: int = NAMED_KEYS) -> str:
    """Return the first of `keys` for a message, and how many more there are."""
    more = f" and {len(keys) - limit} more" if len(keys) > limit else ""
    return ", ".join(repr(key[:80]) for key in islice(keys, limit)) + more
