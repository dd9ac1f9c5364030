"""Reads a small, plain frame in one go: most frames in a log are such, and each is read whole.

Not a second reader: it takes what `OpenFrame` would take, checks what it would check, and leaves
everything else to it: frames that are large, compressed, signed or damaged.
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
    if fields.key != key or fields.spill is not None or carries_code(fields.codec):
        return None
    content = _decode_content(fields.content)
    lead = [fields.prelude] if fields.prelude is not None else []
    buffers = _buffers(frame[nbytes:], lead + content.buffers)
    if buffers is None or sum([piece.raw for piece in content.buffers]) != fields.raw:
        return None
    meta = _decode_meta(content.meta)
    return Parts(fields.codec, meta, tuple(buffers[len(lead) :]), _NOTHING)


def _buffers(body: memoryview, pieces: list[layout.Piece]) -> list[memoryview] | None:
    """Return the verified bytes of raw pieces, between which there is nothing but padding."""
    end, found = 0, []
    for piece in pieces:
        start, raw = piece.offset, piece.raw
        plain = (
            piece.compressor == RAW
            and 0 < piece.stored == raw
            and start == end + (-end & 63)
            and not piece.lengths
            and not any(body[end:start])
        )
        data = body[start : start + raw]
        if not plain or xxh3_64_intdigest(data).to_bytes(8, "little") != piece.sums:
            return None
        end = start + raw
        found.append(data)
    padded = end + (-end & 63) == len(body) and not any(body[end:])
    return found if padded else None
