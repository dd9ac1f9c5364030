"""Names of keys: diskcache takes any plain value as a key, a store takes text.

Numbers, text and bytes become names that can be read back, and that are in their order within
their kind. Any other key is named by its content, and kept beside the value.
"""

from __future__ import annotations

import struct
from typing import Any

from memories.codecs.content_hash import content_hash
from memories.errors import InvalidKeyError, InvalidOptionError, MemoriesError
from memories.options.metadata import pack

INTEGER, FRACTION, TEXT, BYTES, CONTENT = "1", "2", "3", "4", "5"  # In the order of SQLite's types.
MOST_CHARACTERS = 1000  # Up to 4,000 bytes in UTF-8; a key of a store has at most 4,096.
_HALF = 1 << 63
_DIGITS = 20
_SIGN = 1 << 63
_ALL = (1 << 64) - 1


def name_of(key: Any) -> tuple[str, Any]:
    """Return the name of a key, and what must be kept to give it back: None if nothing.

    Raises:
        InvalidKeyError: a key of this type cannot be given back.
    """
    kind = type(key)
    if kind is float and key.is_integer() and abs(key) < _HALF:
        key, kind = int(key), int  # 1 and 1.0 are one key, as in a dict.
    if kind is int and -_HALF <= key < _HALF:
        return f"{INTEGER}{key + _HALF:0{_DIGITS}}", None
    if kind is float:
        return f"{FRACTION}{_sortable(key):016x}", None
    if kind is str and len(key) <= MOST_CHARACTERS and "\0" not in key and _is_encodable(key):
        return TEXT + key, None
    if kind is bytes and len(key) <= MOST_CHARACTERS:
        return BYTES + key.hex(), None
    try:
        pack({"key": key})
        return CONTENT + content_hash(key, code=False), key
    except (InvalidOptionError, MemoriesError) as error:
        raise InvalidKeyError(
            f"key={key!r:.100}: a key is None, a number, text, bytes, a date, or a tuple or list "
            f"of such, and small: {error}"
        ) from error


def key_of(name: str, kept: Any) -> Any:
    """Return the key of a name."""
    kind, text = name[0], name[1:]
    if kind == INTEGER:
        return int(text) - _HALF
    if kind == FRACTION:
        return _number(int(text, 16))
    if kind == TEXT:
        return text
    return bytes.fromhex(text) if kind == BYTES else kept


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _sortable(number: float) -> int:
    """Return the bits of a number, changed so that they are in the order of the numbers."""
    bits: int = struct.unpack(">Q", struct.pack(">d", number))[0]
    return bits ^ (_ALL if bits & _SIGN else _SIGN)


def _number(bits: int) -> float:
    number: float = struct.unpack(
        ">d", struct.pack(">Q", bits ^ (_SIGN if bits & _SIGN else _ALL))
    )[0]
    return number
