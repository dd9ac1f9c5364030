"""Whether bytes are a whole, undamaged frame: for those who copy many and look into none.

Not a reader. It compares the same checksums as `opened`, for small frames and without taking
anything apart; what it is not sure of is left for `opened` to judge and to name.
"""

from __future__ import annotations

import struct

import msgspec
from xxhash import xxh3_64_intdigest

from memories.frames import head
from memories.frames.head import Piece

_CHUNK_BYTES = 1 << 20
_ZEROS = bytes(64)
_PREFIX_NBYTES, _SUMMED = head.PREFIX_NBYTES, head.PREFIX_NBYTES - 8
_unpack_prefix = struct.Struct("<12sIQIIQ").unpack_from  # The mark, then as in `layout`.
_decode_fields = msgspec.msgpack.Decoder(head.Fields).decode
_decode_content = msgspec.msgpack.Decoder(head.Content).decode
_MARK = struct.pack("<8sHH", head.MAGIC, head.FORMAT, 0)  # And no flags.


def is_sound(frame: memoryview, key: str) -> bool:
    """Return whether `frame` is surely the undamaged frame of `key`; copies it."""
    whole = bytes(frame)
    try:
        mark, nbytes, body, packed, zero, total = _unpack_prefix(whole)
        if (
            mark != _MARK
            or zero
            or nbytes + body != len(whole)
            or not _PREFIX_NBYTES + packed <= nbytes <= head.MAX_HEAD
            or xxh3_64_intdigest(whole[:_SUMMED] + whole[_PREFIX_NBYTES:nbytes]) != total
        ):
            return False
        fields = _decode_fields(whole[_PREFIX_NBYTES : _PREFIX_NBYTES + packed])
        if fields.key != key or fields.spill is not None or not fields.content:
            return False
        pieces = _decode_content(fields.content).buffers
    except (struct.error, msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return False
    if fields.prelude is not None:
        pieces = [fields.prelude, *pieces]
    return _fill(pieces, whole[nbytes:])


def _fill(pieces: list[Piece], body: bytes) -> bool:
    """Return whether these pieces, of one chunk each, are intact and all that there is."""
    end = 0
    for piece in pieces:
        start, stop = piece.offset, piece.offset + piece.stored
        if not end <= start <= stop <= len(body) or piece.raw > _CHUNK_BYTES:
            return False
        total = xxh3_64_intdigest(body[start:stop]).to_bytes(8, "little")
        if piece.sums != (total if piece.raw else b"") or body[end:start] != _ZEROS[: start - end]:
            return False
        end = stop
    return body[end:] == _ZEROS[: len(body) - end]
