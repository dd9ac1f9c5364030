"""Whether bytes are a whole, undamaged frame: for those who copy many and look into none.

Not a reader. It compares the same checksums as `opened`, for small frames and without taking
anything apart; what it is not sure of is left for `opened` to judge and to name.
"""

from __future__ import annotations

from xxhash import xxh3_64_intdigest

from memories.codecs import layout
from memories.codecs.layout import Piece
from memories.errors import CorruptDataError, UnsupportedTypeError

_CHUNK_BYTES = 1 << 20
_ZEROS = memoryview(bytes(64))


def is_sound(frame: memoryview, key: str) -> bool:
    """Return whether `frame` is surely the undamaged frame of `key`."""
    try:
        head = layout.read_head(frame)
        fields = head.fields
        if fields.key != key or fields.spill or head.nbytes + head.body != frame.nbytes:
            return False
        pieces = layout.read_content(fields.content).buffers
    except (CorruptDataError, UnsupportedTypeError):
        return False
    lead = [] if fields.prelude is None else [fields.prelude]
    return _fill([*lead, *pieces], frame[head.nbytes :])


def _fill(pieces: list[Piece], body: memoryview) -> bool:
    """Return whether these pieces, of one chunk each, are intact and all that there is."""
    end = 0
    for piece in pieces:
        start, stop = piece.offset, piece.offset + piece.stored
        if not end <= start <= stop <= body.nbytes or piece.raw > _CHUNK_BYTES:
            return False
        total = xxh3_64_intdigest(body[start:stop]).to_bytes(8, "little")
        if piece.sums != (total if piece.raw else b"") or body[end:start] != _ZEROS[: start - end]:
            return False
        end = stop
    return body[end:] == _ZEROS[: body.nbytes - end]
