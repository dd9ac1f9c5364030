"""Pack, read and check small, plain frames in one pass; most frames in a log are such.

`pack_small` makes what `writer.pack` would make, byte for byte, and `read_small` accepts only what
`OpenFrame` would accept. Both return None for frames that are large, signed or damaged, and for
differences; the caller then uses `writer` or `reader`. `is_intact` is for copying many frames
unread.
"""

from __future__ import annotations

import struct

import msgspec
from xxhash import xxh3_64_intdigest

from memories.codecs.base import NOTHING_FAR, PICKLE, Parts
from memories.frames import head
from memories.frames.compression import BLOSC, RAW, decompress_small
from memories.frames.head import CHUNK_NBYTES, PADDING, PREFIX_NBYTES, SUMMED_NBYTES, FramePiece

MAX_BYTES = 256 << 10
MAX_PACKED_BYTES = 4096  # Of all buffers; what is copied costs more than it saves from there on.
SHORT_KEY = 1024  # A key of so many characters is valid if it is not empty.
Piece = tuple[int, int, int, int, bytes, bytes]  # The fields of a `FramePiece`.
_SUM = struct.Struct("<Q").pack
_LENGTH = struct.Struct("<I").pack
_encode = msgspec.msgpack.Encoder().encode
_unpack_prefix = struct.Struct("<12sIQIIQ").unpack_from  # The mark, then as in `head`.
_decode_fields = msgspec.msgpack.Decoder(head.Fields).decode
_decode_content = msgspec.msgpack.Decoder(head.Content).decode
_decode_meta = msgspec.msgpack.Decoder().decode
_MARK = struct.pack("<8sHH", head.MAGIC, head.FORMAT, 0)  # And no flags.
_NOTHING: frozenset[int] = frozenset()
_new_parts = tuple.__new__  # What `Parts(...)` does, without its argument parsing.
_DAMAGED = (struct.error, msgspec.MsgspecError, RecursionError, UnicodeDecodeError)


def pack_small(
    parts: Parts,
    key: str,
    version: int,
    meta: bytes,
    prelude: bytes,
    packed: bytes = b"",
    code: int = RAW,
) -> tuple[bytes, bytes] | None:
    """Return head and body of a frame of small buffers; None where `pack` must make it.

    `meta` is packed already. A value of one buffer may be compressed already, into `packed`, by the
    compressor `code`. The codec of the parts carries no code.

    Raises:
        InvalidKeyError: the key is not valid.
    """
    if not 0 < len(key) <= SHORT_KEY or not key.isascii():
        head.check_key(key)
    table: list[Piece] = []  # Not `list[Piece]()`, which makes the generic type at each call.
    body: list[bytes | memoryview] = []
    raw = offset = 0
    first: Piece | None = None
    if prelude:
        offset = len(prelude)  # A multiple of 64.
        first = (0, offset, offset, RAW, _SUM(xxh3_64_intdigest(prelude)), b"")
        body.append(prelude)
    for buffer in parts.buffers:
        size = stored = len(buffer)
        raw += size
        if packed:
            stored = len(packed)
            lengths = _LENGTH(stored)
            table.append((offset, stored, size, code, _SUM(xxh3_64_intdigest(packed)), lengths))
            body.append(packed)
        elif size:
            table.append((offset, size, size, RAW, _SUM(xxh3_64_intdigest(buffer)), b""))
            body.append(buffer)
        else:
            table.append((offset, 0, 0, RAW, b"", b""))
        offset += stored
        rest = -offset & 63
        if rest:
            body.append(PADDING[:rest])
            offset += rest
    content = _encode((msgspec.Raw(meta), table))
    if len(content) > head.MAX_INLINE:
        return None
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
        mark, start, body, packed, zero, total = _unpack_prefix(whole)
        nbytes = len(whole)
        if (
            mark != _MARK
            or zero
            or nbytes > MAX_BYTES
            or start + body != nbytes
            or not PREFIX_NBYTES + packed <= start <= head.MAX_HEAD
            or start & 63
            or xxh3_64_intdigest(whole[:SUMMED_NBYTES] + whole[PREFIX_NBYTES:start]) != total
        ):
            return None
        fields = _decode_fields(whole[PREFIX_NBYTES : PREFIX_NBYTES + packed])
        codec = fields.codec
        if fields.key != key or fields.spill is not None or codec.endswith(PICKLE):
            return None  # What could run code is read elsewhere, and so is another codec so named.
        content = _decode_content(fields.content)
        meta = _decode_meta(content.meta)
    except _DAMAGED:
        return None
    pieces = content.buffers
    if fields.prelude is not None:
        pieces.insert(0, fields.prelude)
    buffers: list[memoryview] = []
    view, end, raw = memoryview(whole), start, 0
    for piece in pieces:
        begin, stored = start + piece.offset, piece.stored
        rest = begin - end
        # Only padding lies between the pieces and behind the last one.
        if rest and (rest != -end & 63 or whole[end:begin] != PADDING[:rest]):
            return None
        end = begin + stored
        data = view[begin:end]
        if stored <= 0 or end > nbytes or _SUM(xxh3_64_intdigest(data)) != piece.sums:
            return None
        if piece.compressor == RAW:
            if stored != piece.raw or piece.lengths:
                return None
        elif piece.compressor == BLOSC and piece.lengths == _LENGTH(stored):
            plain = decompress_small(bytes(data), piece.raw)
            if plain is None:
                return None
            data = memoryview(plain)
        else:
            return None
        raw += piece.raw
        buffers.append(data)
    rest = -end & 63
    if end + rest != nbytes or whole[end:] != PADDING[:rest]:
        return None
    if fields.prelude is not None:
        raw -= fields.prelude.raw
        del buffers[0]
    if raw != fields.raw:
        return None
    return _new_parts(Parts, (codec, meta, tuple(buffers), _NOTHING, NOTHING_FAR, _NOTHING))


def is_intact(frame: memoryview, key: str) -> bool:
    """Return whether `frame` is certainly the undamaged frame of `key`; copies it.

    It compares the checksums without decompressing anything. False means that `OpenFrame` must
    decide: the frame may be damaged, or have pieces of more than one chunk.
    """
    whole = bytes(frame)
    try:
        read = _read_head(whole, key)
        if read is None:
            return False
        fields, start = read
        pieces = _decode_content(fields.content).buffers
    except _DAMAGED:
        return False
    if fields.prelude is not None:
        pieces = [fields.prelude, *pieces]
    return _is_intact_body(whole, start, pieces)


def _read_head(frame: bytes, key: str) -> tuple[head.Fields, int] | None:
    """Return the fields of an undamaged head of `key`, and where the body begins; else None."""
    mark, nbytes, body, packed, zero, total = _unpack_prefix(frame)
    if (
        mark != _MARK
        or zero
        or nbytes + body != len(frame)
        or not PREFIX_NBYTES + packed <= nbytes <= head.MAX_HEAD
        or nbytes & 63
        or xxh3_64_intdigest(frame[:SUMMED_NBYTES] + frame[PREFIX_NBYTES:nbytes]) != total
    ):
        return None
    fields = _decode_fields(frame[PREFIX_NBYTES : PREFIX_NBYTES + packed])
    if fields.key != key or fields.spill is not None:
        return None
    return fields, nbytes


def _is_intact_body(frame: bytes, start: int, pieces: list[FramePiece]) -> bool:
    """Return whether pieces of one chunk each have their checksums, and fill the body."""
    view, end = memoryview(frame), start
    for piece in pieces:
        begin, nbytes = start + piece.offset, piece.stored
        data = view[begin : begin + nbytes]
        if (
            nbytes < 0
            or piece.raw > CHUNK_NBYTES
            or begin != end + 63 & -64
            or (_SUM(xxh3_64_intdigest(data)) if nbytes else b"") != piece.sums
            or frame[end:begin] != PADDING[: begin - end]
        ):
            return False
        end = begin + nbytes
    rest = -end & 63
    return end + rest == len(frame) and frame[end:] == PADDING[:rest]
