"""The terms of a value on the nodes: when it expires, and the metadata it was stored with.

They are in the body of the register, around what it stores: 16 bytes in front, which a request for
the beginning of a register includes, and the metadata behind.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import xxhash

from memories.errors import CorruptDataError

TERMS_BYTES = 16
_FIELDS = struct.Struct(">QI")  # Milliseconds since the epoch, and the bytes of the metadata.


class ValueTerms(NamedTuple):
    """The terms of one value."""

    expires_ms: int = 0  # Since the epoch, by the clock of the writer; 0 for never.
    metadata: bytes = b""  # As `options.metadata` packs it, in msgpack.

    def pack(self) -> tuple[memoryview, memoryview]:
        """Return what goes in front of the content of a register, and behind it."""
        fields = _FIELDS.pack(self.expires_ms, len(self.metadata))
        return memoryview(fields + _sum(fields)), memoryview(self.metadata)

    def expired(self, wall_seconds: float) -> bool:
        """Return whether the value has expired."""
        return is_expired(self.expires_ms, wall_seconds)


NO_TERMS = ValueTerms()


def is_expired(expires_ms: int, wall_seconds: float) -> bool:
    """Return whether a value that expires at that time has expired; 0 is never."""
    return bool(expires_ms) and expires_ms <= wall_seconds * 1000


def read_expiry(body: bytes | memoryview) -> int:
    """Return when the value expires whose register body with terms begins like this.

    Raises:
        CorruptDataError: it is damaged.
    """
    return _read_fields(body)[0]


def split_terms(body: memoryview) -> tuple[ValueTerms, memoryview]:
    """Return the terms in a register body with terms, and the content without them.

    Raises:
        CorruptDataError: it is damaged.
    """
    expires_ms, nbytes = _read_fields(body)
    stop = body.nbytes - nbytes
    if stop < TERMS_BYTES:
        raise CorruptDataError("the terms of a value on a node are damaged")
    return ValueTerms(expires_ms, bytes(body[stop:])), body[TERMS_BYTES:stop]


def _read_fields(body: bytes | memoryview) -> tuple[int, int]:
    fields = bytes(body[: _FIELDS.size])
    if len(fields) < _FIELDS.size or bytes(body[_FIELDS.size : TERMS_BYTES]) != _sum(fields):
        raise CorruptDataError("the terms of a value on a node are damaged")
    expires_ms, nbytes = _FIELDS.unpack(fields)
    return expires_ms, nbytes


def _sum(fields: bytes) -> bytes:
    return xxhash.xxh32_digest(fields)
