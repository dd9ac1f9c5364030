"""Plain small values in a register without a frame: one byte names the type, the value follows.

The register has the version, the key and the checksum already, so that a frame would only repeat
them: it takes 120 bytes more, and longer to make than the request takes. A frame begins with 0x93,
which is no such byte. A list or a dict of plain values is MessagePack. Values with metadata or
terms, and all other types, are frames.
"""

from __future__ import annotations

import struct
from typing import Any

import msgspec

from memories.codecs import pack_container
from memories.errors import CorruptDataError

MOST_BYTES = 64 << 10
_CONSTANTS: dict[bytes, Any] = {b"n": None, b"t": True, b"u": False}
_LEAST_INT, _MOST_INT = -(1 << 63), (1 << 63) - 1
_FLOAT = struct.Struct("<d")
_BYTES_KIND = ord("b")


def _refuse(code: int, data: memoryview) -> Any:
    raise ValueError(f"it has an extension {code} of {data.nbytes} bytes")


_decode = msgspec.msgpack.Decoder(list[Any] | dict[str, Any], ext_hook=_refuse).decode


def pack_plain(value: Any) -> bytes | None:
    """Return the body for a value; None if it must be a frame."""
    kind = type(value)
    if kind is bytes:
        return b"b%b" % value if len(value) < MOST_BYTES else None
    if kind is str:
        if len(value) >= MOST_BYTES:
            return None
        try:
            return b"s%b" % value.encode()
        except UnicodeEncodeError:  # It has a surrogate.
            return None
    if kind is int:
        return b"i%d" % value if _LEAST_INT <= value <= _MOST_INT else None
    if kind is float:
        return b"f" + _FLOAT.pack(value)
    if value is None:
        return b"n"
    if kind is bool:
        return b"t" if value else b"u"
    if kind is list or kind is dict:
        packed = pack_container(value)
        return b"m%b" % packed if packed is not None and len(packed) < MOST_BYTES else None
    return None


def is_plain(body: bytes | memoryview) -> bool:
    """Return whether the body of a register is a plain value, and not a frame."""
    return len(body) > 0 and body[0] in _KINDS


def read_plain(body: bytes | memoryview) -> Any:
    """Return the value of a body whose checksum has been compared.

    Raises:
        CorruptDataError: it was not made by `pack_plain`.
    """
    rest = body[1:]
    if body and body[0] == _BYTES_KIND:
        return rest if type(rest) is bytes else bytes(rest)
    kind = bytes(body[:1])
    try:
        if kind == b"m":
            return _decode(rest)
        if kind == b"s":
            return str(rest, "utf-8")
        if kind == b"i":
            return int(bytes(rest))
        if kind == b"f":
            return _FLOAT.unpack(rest)[0]
        return _CONSTANTS[kind + bytes(rest)]
    except (ValueError, KeyError, struct.error, msgspec.MsgspecError, RecursionError) as error:
        raise CorruptDataError(
            f"{bytes(body[:20])!r} on a node is not a plain value: {error}"
        ) from error


_KINDS = frozenset(b"bsifntum")
