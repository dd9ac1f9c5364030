"""Where a frame is in the bucket: the object, the offset and the length.

A location stays valid when the bucket is copied to another prefix or provider. `Record.place` holds
it encoded: 16 bytes name the object, two numbers the extent; then comes the head of an
encrypted frame.
"""

from __future__ import annotations

import secrets
import struct
from typing import NamedTuple

from memories.errors import CorruptDataError
from memories.sealing.blob import HEADER_BYTES

_LAYOUT = struct.Struct("<16sQQ")
_SIZES = (_LAYOUT.size, _LAYOUT.size + HEADER_BYTES)


class ObjectLocation(NamedTuple):
    """An extent of an object."""

    token: bytes
    offset: int
    length: int
    head: bytes = b""  # Of an encrypted frame: the salt in it is that of no other frame.

    @property
    def name(self) -> str:
        """Return the object's name under the prefix."""
        return object_name(self.token)

    def encode(self) -> bytes:
        """Return the bytes for `Record.place`."""
        return _LAYOUT.pack(self.token, self.offset, self.length) + self.head

    @classmethod
    def decode(cls, raw: bytes) -> ObjectLocation:
        """Read `Record.place`.

        Raises:
            CorruptDataError: `raw` is not a valid location.
        """
        if len(raw) not in _SIZES:
            raise CorruptDataError(f"a record names a place of {len(raw)} bytes in the archive")
        token, offset, length = _LAYOUT.unpack_from(raw)
        return cls(token, offset, length, raw[_LAYOUT.size :])


def new_token() -> bytes:
    """Return a name for an object that no object ever had."""
    return secrets.token_bytes(16)


def object_name(token: bytes) -> str:
    """Return the name of the object called `token`."""
    return f"objects/{token.hex()}"


def token_of(name: str) -> bytes | None:
    """Return the token in an object's name, or None for a name that we never gave."""
    try:
        token = bytes.fromhex(name.rpartition("/")[2])
    except ValueError:
        return None
    return token if len(token) == 16 and object_name(token) == name else None


def is_manifest(name: str) -> bool:
    """Return whether we could have given a manifest this name; others are not ours."""
    folder, _, stem = name.partition("/")
    try:
        return folder == "manifests" and bytes.fromhex(stem).hex() == stem != ""
    except ValueError:
        return False
