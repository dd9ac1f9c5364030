"""Compress the buffers of a frame again, without decoding its value.

A signature stays valid, since it covers the uncompressed buffers. Each chunk is verified before it
is compressed, and decompressed and compared afterwards.
"""

from __future__ import annotations

from typing import NamedTuple

from msgspec.structs import replace

from memories.codecs.base import Parts
from memories.codecs.buffers import ByteArray, allocate, view_bytes
from memories.errors import CorruptDataError
from memories.foundation import parallel
from memories.frames.compression import (
    RAW,
    Method,
    Spec,
    choose_method,
    compress,
    decompress,
    parse_spec,
)
from memories.frames.delta_filter import Distances, distances_of
from memories.frames.head import FramePiece, checksum
from memories.frames.pco_chunks import numbers_of
from memories.frames.reader import OpenFrame
from memories.frames.writer import Frame, FrameBody, assemble_head, store_separately

_MIN_GAIN = 1.05  # A piece with less gain is copied as it is.


class _Plan(NamedTuple):
    """How one piece is written."""

    piece: FramePiece
    method: Method | None  # None: it is copied.
    saves: int  # Bytes, estimated from the chunks that were tried.


def recompress(frame: OpenFrame, compression: str) -> Frame | None:
    """Return the recompressed frame, or None if trials on three chunks save too little.

    Raises:
        CorruptDataError: the frame is damaged.
    """
    spec = parse_spec(compression)
    if spec is None or not frame.raw_nbytes:
        return None
    parts = Parts(frame.codec, frame.description())
    known, numbers = distances_of(parts), numbers_of(parts)
    plans = [
        _plan(frame, i, spec, known.get(i, ()), numbers.get(i, ""))
        for i in range(len(frame.pieces))
    ]
    if sum(plan.saves for plan in plans) < frame.nbytes * (1 - 1 / _MIN_GAIN):
        return None
    body = FrameBody(lambda chunks, nbytes: parallel.map_items(store_separately, chunks, nbytes))
    table = [_write(frame, body, plan) for plan in plans]
    fields = replace(frame.fields, prelude=None, content=b"", spill=None)
    head = memoryview(assemble_head(fields, frame.meta, table, body, spec))
    return Frame(head, [head, *body.segments], head.nbytes + body.nbytes, frame.raw_nbytes)


def _plan(frame: OpenFrame, index: int, spec: Spec, distances: Distances, numbers: str) -> _Plan:
    piece = frame.pieces[index]
    spans = piece.spans()
    tried = sorted({0, len(spans) // 2, len(spans) - 1}) if spans else []
    before = sum(spans[i][1] - spans[i][0] for i in tried)
    raw = [frame.chunk(piece, i) for i in tried]
    if not raw:
        return _Plan(piece, None, 0)
    method = choose_method(view_bytes(_joined(raw)), spec, distances, numbers=numbers)
    if method is None:
        return _Plan(piece, None, 0)
    gain = before / sum(len(compress(chunk, method)) for chunk in raw)
    if gain < _MIN_GAIN:
        return _Plan(piece, None, 0)
    return _Plan(piece, method, piece.stored - int(piece.stored / gain))


def _write(frame: OpenFrame, body: FrameBody, plan: _Plan) -> FramePiece:
    piece, method = plan.piece, plan.method
    if method is not None:
        packed = parallel.map_items(
            lambda i: _packed(frame, piece, i, method), range(len(piece.spans())), piece.raw
        )
        return body.add_packed(packed, piece.raw, method.code)
    frame.verify_piece(piece)
    if piece.compressor == RAW:
        return body.add([frame.stored_bytes(piece)], [None])[0]
    chunks = [frame.stored_chunk(span) for span in piece.spans()]
    return body.add_packed(chunks, piece.raw, piece.compressor)


def _packed(frame: OpenFrame, piece: FramePiece, index: int, method: Method) -> memoryview:
    chunk = frame.chunk(piece, index)
    packed = memoryview(compress(chunk, method))
    again = allocate(chunk.nbytes)
    decompress(packed, again, method.code)
    if checksum(again) != checksum(chunk):
        raise CorruptDataError(f"{frame.key!r} differs after it was compressed again")
    return packed


def _joined(chunks: list[ByteArray]) -> ByteArray:
    joined = allocate(sum(chunk.nbytes for chunk in chunks))
    offset = 0
    for chunk in chunks:
        joined[offset : offset + chunk.nbytes] = chunk
        offset += chunk.nbytes
    return joined
