"""Packs and reads a small, plain frame in one go: most frames in a log are such.

Not a second format: it packs what `frame.pack` would, byte for byte; it takes what `OpenFrame`
would take and checks what it would check. Frames that are large, compressed, signed or damaged are
left to those.
"""

from __future__ import annotations

import struct

import msgspec
from xxhash import xxh3_64_intdigest

from memories.codecs.base import NOTHING_FAR, Parts, carries_code
from memories.frames import head
from memories.frames.compression import RAW

MAX_BYTES = 256 << 10
MAX_PACKED_BYTES = 4096  # Of all buffers; what is copied costs more than it saves from there on.
_ZEROS = bytes(64)
_encode = msgspec.msgpack.Encoder().encode
_PREFIX_NBYTES, _SUMMED = head.PREFIX_NBYTES, head.PREFIX_NBYTES - 8
_unpack_prefix = struct.Struct("<12sIQIIQ").unpack_from  # The mark, then as in `layout`.
_decode_fields = msgspec.msgpack.Decoder(head.Fields).decode
_decode_content = msgspec.msgpack.Decoder(head.Content).decode
_decode_meta = msgspec.msgpack.Decoder().decode
_MARK = struct.pack("<8sHH", head.MAGIC, head.FORMAT, 0)  # And no flags.
_NOTHING: frozenset[int] = frozenset()
_new_parts = tuple.__new__  # What `Parts(...)` does, without its argument parsing.


def pack_small(
    parts: Parts, key: str, version: int, meta: bytes, prelude: bytes
) -> tuple[bytes, bytes] | None:
    """Return head and body of the raw frame of small buffers; None where `pack` must make it.

    `meta` is packed already; the codec of the parts carries no code.

    Raises:
        InvalidKeyError: the key is no key.
    """
    head.check_key(key)
    lead = (memoryview(prelude),) if prelude else ()
    table, body, offset = [], list[bytes | memoryview](), 0
    for buffer in (*lead, *parts.buffers):
        size = len(buffer)
        total = xxh3_64_intdigest(buffer).to_bytes(8, "little") if size else b""
        table.append((offset, size, size, RAW, total, b""))  # A `Piece`.
        body += (buffer, _ZEROS[: -size & 63])
        offset += size + (-size & 63)
    first = table.pop(0) if prelude else None
    content = _encode((msgspec.Raw(meta), table))
    if len(content) > head.MAX_INLINE:
        return None
    raw = sum([piece[2] for piece in table])
    fields = {"key": key, "version": version, "codec": parts.codec, "raw": raw, "content": content}
    if first is not None:
        fields["prelude"] = first
    return head.seal(_encode(fields), offset), b"".join(body)


def read_small(frame: memoryview, key: str) -> Parts | None:
    """Return the parts of a frame, every byte of it verified; None where `OpenFrame` must look."""
    whole = frame.obj
    if type(whole) is not bytes or len(whole) != frame.nbytes:
        if frame.nbytes > MAX_BYTES:
            return None
        whole = bytes(frame)
    try:
        return _read(whole, key)
    except (struct.error, msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None


def _read(frame: bytes, key: str) -> Parts | None:
    mark, nbytes, body, packed, zero, total = _unpack_prefix(frame)
    if (
        mark != _MARK
        or zero
        or not nbytes + body == len(frame) <= MAX_BYTES
        or not _PREFIX_NBYTES + packed <= nbytes <= head.MAX_HEAD
        or nbytes & 63
        or xxh3_64_intdigest(frame[:_SUMMED] + frame[_PREFIX_NBYTES:nbytes]) != total
    ):
        return None
    fields = _decode_fields(frame[_PREFIX_NBYTES : _PREFIX_NBYTES + packed])
    codec, prelude = fields.codec, fields.prelude
    if fields.key != key or fields.spill is not None or carries_code(codec):
        return None
    content = _decode_content(fields.content)
    pieces = content.buffers
    buffers = _buffers(frame, nbytes, pieces if prelude is None else [prelude, *pieces])
    if buffers is None or sum([piece.raw for piece in pieces]) != fields.raw:
        return None
    if prelude is not None:
        del buffers[0]
    meta = _decode_meta(content.meta)
    return _new_parts(Parts, (codec, meta, tuple(buffers), _NOTHING, NOTHING_FAR, _NOTHING))


def _buffers(frame: bytes, start: int, pieces: list[head.Piece]) -> list[memoryview] | None:
    """Return the verified bytes of raw pieces, between which there is nothing but padding."""
    view, end, found = memoryview(frame), start, []
    for piece in pieces:
        begin, raw = start + piece.offset, piece.raw
        data = view[begin : begin + raw]
        if (
            piece.compressor != RAW
            or not 0 < piece.stored == raw
            or begin != end + 63 & -64
            or piece.lengths
            or xxh3_64_intdigest(data).to_bytes(8, "little") != piece.sums
            or (begin != end and any(frame[end:begin]))
        ):
            return None
        end = begin + raw
        found.append(data)
    return found if end + 63 & -64 == len(frame) and not any(frame[end:]) else None
