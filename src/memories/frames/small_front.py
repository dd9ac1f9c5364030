"""The front of the frames that `single_buffer` and `single_array` pack and read: its checks.

Such a frame has no flags and no tail: a prefix with the lengths and the checksum of the head, the
fields, of which the key and the version are the first, and behind them the body.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final

import msgspec
from xxhash import xxh3_64_intdigest

from memories.frames import head

PREFIX: Final = 40  # Bytes before the fields; the last 8 of them are the checksum of the head.
SECOND: Final = b"\xa7version"
SHORT_KEY: Final = 1024  # A key of so many ASCII characters is valid if it is not empty.
PADDING: Final = tuple([bytes(n) for n in range(64)])
MARK: Final = struct.pack("<8sHH", head.MAGIC, head.FORMAT, 0)  # And no flags.
OTHER: Final = (0, 0, 0, 0)
_SUMMED: Final = 32
_MAX_HEAD: Final = head.MAX_HEAD
# The bytes of a packed version, by the first one; 0 for what is not a positive number.
_NUMBER: Final = bytes([1] * 128 + [0] * 76 + [2, 3, 5, 9] + [0] * 48)
# Names of this module, which compiled code finds without a look-up.
_encode: Final[Callable[[Any], bytes]] = msgspec.msgpack.Encoder().encode
_unpack_prefix: Final[Callable[[bytes], tuple[Any, ...]]] = struct.Struct("<12sIQIIQ").unpack_from
_digest: Final[Callable[[bytes], int]] = xxh3_64_intdigest


def check_front(frame: bytes, key: str, first: bytes) -> tuple[int, int, int, int]:
    """Verify the head of a frame of `key` whose fields begin with `first`.

    Returns:
        Where the fields go on behind the version and where they end, where the body begins, and its
        length; `OTHER` if the frame is of another kind, of another key, or damaged.
    """
    prefix = _unpack_prefix(frame)
    start: int = prefix[1]
    body: int = prefix[2]
    end: int = PREFIX + prefix[3]
    if (
        prefix[0] != MARK
        or prefix[4]
        or start + body != len(frame)
        or not end <= start <= _MAX_HEAD
        or start & 63
        or _digest(frame[:_SUMMED] + frame[PREFIX:start]) != prefix[5]
    ):
        return OTHER
    try:
        lead = b"".join((first, _encode(key), SECOND))
    except UnicodeEncodeError:
        return OTHER
    at = PREFIX + len(lead)
    if not frame.startswith(lead, PREFIX) or at >= end:
        return OTHER
    return at + _NUMBER[frame[at]], end, start, body
