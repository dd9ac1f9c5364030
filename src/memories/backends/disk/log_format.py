"""The bytes of one log record and of a segment's header (docs/format.md, "Cold log").

Pure packing and unpacking, no I/O. A record carries the checksum of its own head and, where the
frame lies in the log, one of the frame, so that a torn write is found without decoding anything.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import msgspec
from xxhash import xxh3_64_intdigest

from memories.backends.disk.seal import StoreSeal
from memories.model.record import Record
from memories.model.tiers import TierName

ALIGN = 64
# A MARK belongs to no key: it says how far the log is synced where no other record follows.
INLINE, FILE, PACKED, NOTE, TOMBSTONE, MARK = 1, 2, 3, 4, 5, 6
KINDS = frozenset((INLINE, FILE, PACKED, NOTE, TOMBSTONE, MARK))

# magic, version, kind, span, record length, oldest, frame length, synced, frame sum, head sum
_HEADER = struct.Struct("<4sBBHIIQQQQ")
_UNSUMMED = struct.Struct("<4sBBHIIQQQ")
pack_front = _UNSUMMED.pack
HEADER_BYTES = _HEADER.size
MAGIC = b"mRec"
VERSION = 1
MAX_RECORD_BYTES = 16 << 20
_MAX_SPAN = 0xFFFF

# magic, version, number, number and length of the segment before it, sum
_SEGMENT = struct.Struct("<4sIQQQQ")
SEGMENT_MAGIC = b"mSeg"
SEGMENT_HEADER_BYTES = 64

# kind, file number, offset, length
PLACE = struct.Struct("<BIQQ")

MARK_RECORD = Record(key="", version=0, tier=TierName.COLD, size=0, stored_at=0.0)

encode_record = msgspec.msgpack.Encoder().encode
decode_record = msgspec.msgpack.Decoder(Record).decode
PADDING = tuple(bytes(n) for n in range(ALIGN))  # Zeros, by their number.
NOWHERE = 0xFFFFFFFF  # No segment number: nothing is older.


class Position(NamedTuple):
    """A point of the log's history: everything before `offset` of `segment`."""

    segment: int
    offset: int


class IndexRow(msgspec.Struct, frozen=True, gc=False):
    """What the index holds for a key: its newest record, and where that lies in the log.

    There may be tens of thousands, so the garbage collector does not track them.
    """

    record: Record
    kind: int
    segment: int
    offset: int
    extent: int  # Bytes of the log record.
    oldest: int  # No segment below this one holds an earlier record of the key ...
    beyond: int = 0  # ... and none from this one on, besides its own; 0 if that is not known.

    @property
    def head_bytes(self) -> int:
        """Return the bytes of the log record without an inline frame."""
        return self.extent - self.record.stored if self.kind == INLINE else self.extent


class RenameMark(msgspec.Struct, frozen=True, array_like=True):
    """What a mark says of the two records behind it: a value, and the removal of its old key."""

    new: str
    version: int  # Of the value.
    old: str
    gone: int  # The version of the removal.


class FrameLocation(NamedTuple):
    """Where a frame lies: in segment, value file or pack `file`, at `offset`."""

    kind: int
    file: int
    offset: int
    length: int


class RecordHead(NamedTuple):
    """What a record's head says."""

    kind: int
    record: Record
    oldest: int
    beyond: int
    frame_at: int  # Where the inline frame would start, from the record's first byte.
    frame_length: int
    frame_sum: int
    synced: Position  # How far the log was known to be synced when this was written.
    extent: int  # Bytes of the whole record in the log, padding included.


pack_place = PLACE.pack
FILE_BYTES = struct.calcsize("<BI")  # The part of a place that names the file.


def unpack_place(place: bytes) -> FrameLocation:
    """Return what a record's `place` says, or raise `struct.error`."""
    return FrameLocation._make(PLACE.unpack(place))


_decode_renaming = msgspec.msgpack.Decoder(RenameMark).decode


def placed(record: Record, stored: int, place: bytes) -> Record:
    """Return `record` with the place of its frame."""
    return msgspec.structs.replace(record, stored=stored, place=place)


def padding(length: int) -> bytes:
    """Return the zeros that bring `length` to the next multiple of 64."""
    return PADDING[-length % ALIGN]


def span_of(oldest: int, beyond: int) -> int:
    """Return how many segments a header says may hold earlier records; 0 if that is not known."""
    span = beyond - oldest
    return span if 0 < span <= _MAX_SPAN else 0


def pack_head(
    kind: int,
    body: bytes,
    *,
    oldest: int,
    synced: Position,
    beyond: int = 0,
    frame_length: int = 0,
    frame_sum: int = 0,
) -> bytes:
    """Return header, record and padding; an inline frame and its padding follow."""
    mark = synced.segment << 32 | synced.offset
    span = span_of(oldest, beyond)
    front = pack_front(MAGIC, VERSION, kind, span, len(body), oldest, frame_length, mark, frame_sum)
    head_sum = xxh3_64_intdigest(front + body).to_bytes(8, "little")
    return b"".join((front, head_sum, body, PADDING[-(HEADER_BYTES + len(body)) % ALIGN]))


def pack_inline(
    body: bytes,
    frame: bytes | memoryview,
    length: int,
    oldest: int,
    synced: Position,
    beyond: int = 0,
) -> tuple[bytes, int]:
    """Return a whole record with a frame of `length` bytes, and where the frame begins in it."""
    segment, offset = synced
    size, span = len(body), span_of(oldest, beyond)
    front = pack_front(
        MAGIC, VERSION, INLINE, span, size, oldest, length, segment << 32 | offset,
        xxh3_64_intdigest(frame),
    )  # fmt: skip
    head_sum = xxh3_64_intdigest(front + body).to_bytes(8, "little")
    size += HEADER_BYTES
    rest = -size & 63
    whole = b"".join((front, head_sum, body, PADDING[rest], frame, PADDING[-length & 63]))
    return whole, size + rest


def pack_body(kind: int, record: Record, seal: StoreSeal | None) -> bytes:
    """Return a record as it lies in the log, between its header and its frame."""
    return body_packer(kind, seal)(record)


def body_packer(kind: int, seal: StoreSeal | None) -> Callable[[Record], bytes]:
    """Return `pack_body` for many records of one kind."""
    return encode_record if seal is None else partial(_sealed_body, kind, seal)


def _sealed_body(kind: int, seal: StoreSeal, record: Record) -> bytes:
    return seal.record(kind, encode_record(record))


def pack_renaming(
    record: Record, tomb: Record, synced: Position, seal: StoreSeal | None = None
) -> bytes:
    """Return a mark before the value `record` and the tombstone of the key that it renames."""
    renaming = RenameMark(record.key, record.version, tomb.key, tomb.version)
    mark = msgspec.structs.replace(MARK_RECORD, place=msgspec.msgpack.encode(renaming))
    return pack_head(MARK, pack_body(MARK, mark, seal), oldest=NOWHERE, synced=synced)


def renaming_of(mark: Record) -> RenameMark | None:
    """Return what a mark says of a renaming, if anything."""
    try:
        return _decode_renaming(mark.place) if mark.place else None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None  # Of a later release, which says something else there.


def peek(header: bytes) -> int | None:
    """Return how many bytes the head of a record takes, or None if no record starts here."""
    if len(header) < HEADER_BYTES or not header.startswith(MAGIC):
        return None
    length = int(_HEADER.unpack_from(header)[4])
    return HEADER_BYTES + length if length <= MAX_RECORD_BYTES else None


def unpack_head(data: bytes, seal: StoreSeal | None = None) -> RecordHead | None:
    """Return the head at the start of `data`, or None if it is torn, damaged or missing."""
    length = peek(data)
    if length is None or len(data) < length:
        return None
    fields = _HEADER.unpack_from(data)
    _, version, kind, span, _, oldest, frame_length, mark, frame_sum, head_sum = fields
    body = data[HEADER_BYTES:length]
    if xxh3_64_intdigest(data[: _UNSUMMED.size] + body) != head_sum:
        return None
    if version != VERSION or kind not in KINDS:
        return None
    if seal is not None:
        opened = seal.open_record(kind, body)
        if opened is None:
            return None
        body = opened
    try:
        record = decode_record(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    frame_at = length + -length % ALIGN
    inline = frame_length if kind == INLINE else 0
    extent = frame_at + inline + -inline % ALIGN
    synced = Position(mark >> 32, mark & 0xFFFFFFFF)
    beyond = oldest + span if span else 0
    return RecordHead(
        kind, record, oldest, beyond, frame_at, frame_length, frame_sum, synced, extent
    )


def pack_segment_header(number: int, before: Position) -> bytes:
    """Return the 64 bytes a segment starts with; `before` is where the log continues from."""
    front = _SEGMENT.pack(SEGMENT_MAGIC, VERSION, number, *before, 0)[:-8]
    digest = xxh3_64_intdigest(front).to_bytes(8, "little")
    return (front + digest).ljust(SEGMENT_HEADER_BYTES, b"\0")


def unpack_segment_header(data: bytes, number: int) -> Position | None:
    """Return where the log continued from, or None if this is not a header of `number`."""
    if len(data) < SEGMENT_HEADER_BYTES:
        return None
    magic, version, found, segment, length, digest = _SEGMENT.unpack_from(data)
    front = data[: _SEGMENT.size - 8]
    if magic != SEGMENT_MAGIC or version != VERSION or xxh3_64_intdigest(front) != digest:
        return None
    return Position(segment, length) if found == number else None
