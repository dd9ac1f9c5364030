"""Reads a small, plain frame in one go: most frames in a log are such, and each is read whole.

Not a second reader: it takes what `OpenFrame` would take, checks what it would check, and leaves
everything else to it: frames in several pieces, compressed ones, signed ones, damaged ones.
"""

from __future__ import annotations

import struct

import msgspec
from xxhash import xxh3_64_intdigest

from memories.codecs import layout
from memories.codecs.base import Parts, carries_code
from memories.codecs.compressors import RAW

MAX_BYTES = 256 << 10
_PREFIX_NBYTES, _SUMMED = layout.PREFIX_NBYTES, layout.PREFIX_NBYTES - 8
_unpack_prefix = struct.Struct("<8sHHIQIIQ").unpack_from
_decode_fields = msgspec.msgpack.Decoder(layout.Fields).decode
_decode_content = msgspec.msgpack.Decoder(layout.Content).decode
_decode_meta = msgspec.msgpack.Decoder().decode
_MARK = (layout.MAGIC, layout.FORMAT, 0)  # Magic, format version, and no flags.
_NOTHING: frozenset[int] = frozenset()


def read_small(frame: memoryview, key: str) -> Parts | None:
    """Return the parts of a frame, every byte of it verified; None where `OpenFrame` must look."""
    try:
        return _read(frame, key)
    except (struct.error, msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None


def _read(frame: memoryview, key: str) -> Parts | None:
    magic, version, flags, nbytes, body, packed, zero, total = _unpack_prefix(frame)
    sound = (
        (magic, version, flags) == _MARK
        and not zero
        and nbytes + body == len(frame) <= MAX_BYTES
        and _PREFIX_NBYTES + packed <= nbytes <= layout.MAX_HEAD
        and not nbytes & 63
        and xxh3_64_intdigest(bytes(frame[:_SUMMED]) + frame[_PREFIX_NBYTES:nbytes]) == total
    )
    if not sound:
        return None
    fields = _decode_fields(frame[_PREFIX_NBYTES : _PREFIX_NBYTES + packed])
    plain = fields.key == key and fields.content and not (fields.spill or fields.prelude)
    if not plain or carries_code(fields.codec):
        return None
    content = _decode_content(fields.content)
    buffers = _buffers(frame[nbytes:], content.buffers, fields.raw)
    if buffers is None:
        return None
    return Parts(fields.codec, _decode_meta(content.meta), buffers, _NOTHING)


def _buffers(
    body: memoryview, pieces: list[layout.Piece], raw: int
) -> tuple[memoryview, ...] | None:
    """Return at most one buffer, which fills the body but for its padding."""
    if not pieces:
        return None if raw or body else ()
    if len(pieces) > 1:
        return None
    piece = pieces[0]
    plain = (
        piece.compressor == RAW
        and 0 < piece.stored == piece.raw == raw
        and not (piece.offset or piece.lengths)
        and raw + (-raw & 63) == len(body)
    )
    if not plain:
        return None
    data = body[:raw]
    whole = xxh3_64_intdigest(data).to_bytes(8, "little") == piece.sums and not any(body[raw:])
    return (data,) if whole else None
