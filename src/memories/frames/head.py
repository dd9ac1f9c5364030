"""The head of a frame and the table of its pieces; `docs/format.md` describes both to the byte.

The head has a checksum of its own. No size or offset that it declares is used before it was checked
against the bytes that are there.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Sequence
from typing import Any

import msgspec
import xxhash

from memories.codecs.buffers import ALIGNMENT, align
from memories.errors import CorruptDataError, InvalidKeyError, UnsupportedTypeError
from memories.frames.compression import BLOSC, DELTA, PCODEC, RAW

MAGIC = b"\x93MEMORY\n"
FORMAT = 1
# Of a frame whose pieces have no checksums, because what encloses it sums the same bytes.
UNSUMMED_FORMAT = 2
MAX_HEAD = 60 * 1024
MAX_INLINE = 24 * 1024
MAX_KEY = 4096

_PREFIX = struct.Struct("<8sHHIQIIQ")  # magic, format, flags, head, body, fields, zero, checksum
_UNSUMMED = struct.Struct("<8sHHIQII")
PREFIX_NBYTES = _PREFIX.size
SUMMED_NBYTES = PREFIX_NBYTES - 8
CHUNK_NBYTES = 1 << 20
_MAX_CHUNKS = 1024
PADDING = bytes(ALIGNMENT)  # Up to so many zeros follow each piece.


class FramePiece(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """A range of the body: its offset and lengths, and the checksum of each of its chunks."""

    offset: int
    stored: int  # Bytes in the body.
    raw: int  # Bytes once decompressed.
    compressor: int  # RAW, BLOSC, DELTA or PCODEC.
    # One xxh3_64, little-endian, for each chunk as it is stored; empty in an unsummed frame.
    sums: bytes
    lengths: bytes = b""  # Compressed: the stored length of each chunk, 4 bytes little-endian.

    def spans(self) -> list[tuple[int, int]]:
        """Return where each chunk begins and ends in the body."""
        ends = list(itertools.accumulate(self.chunk_lengths(), initial=self.offset))
        return list(itertools.pairwise(ends))

    def spans_of(self, chunks: Sequence[int]) -> list[tuple[int, int]]:
        """Return what `spans` returns, for some chunks."""
        if self.compressor != RAW:
            spans = self.spans()
            return [spans[i] for i in chunks]
        size, end = chunk_size(self.raw), self.offset + self.stored
        return [(self.offset + i * size, min(self.offset + (i + 1) * size, end)) for i in chunks]

    def sum_of(self, chunk: int) -> int:
        """Return the checksum of one chunk."""
        return int.from_bytes(self.sums[8 * chunk : 8 * chunk + 8], "little")

    def chunk_lengths(self) -> tuple[int, ...]:
        """Return the stored length of each chunk."""
        if self.compressor == RAW:
            return tuple(chunk_sizes(self.stored))
        return struct.unpack(f"<{len(self.lengths) // 4}I", self.lengths)

    def chunk_sums(self) -> tuple[int, ...]:
        """Return the checksum of each chunk."""
        return struct.unpack(f"<{len(self.sums) // 8}Q", self.sums)


class Content(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """The description of the value, and its buffers."""

    meta: msgspec.Raw
    buffers: list[FramePiece]


class Fields(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The fields of a head, a msgpack map."""

    key: str
    version: int
    codec: str
    raw: int  # Bytes of all buffers once decompressed.
    content: bytes = b""  # A packed `Content`, unless it is too large and is in the body.
    spill: FramePiece | None = None  # The piece of the body with the packed `Content`.
    prelude: FramePiece | None = None  # Makes the body a file of another format, such as .npy.
    key_id: str = ""  # The id of the key that signed.
    mac: bytes = b""
    store: bytes = b""  # The identity of the store it was signed for.


class FrameHead(msgspec.Struct, frozen=True):
    """A head that was read and checked: its fields, and the sizes of head and body."""

    fields: Fields
    nbytes: int
    body: int
    summed: bool = True  # Whether its pieces have checksums.


_content = msgspec.msgpack.Decoder(Content).decode
_fields = msgspec.msgpack.Decoder(Fields).decode


def chunk_size(nbytes: int) -> int:
    """Return the chunk size of a piece of `nbytes`: 1 MiB, doubled until 1,024 chunks suffice."""
    size = CHUNK_NBYTES
    while nbytes > size * _MAX_CHUNKS:
        size *= 2
    return size


def count_chunks(nbytes: int) -> int:
    """Return the number of chunks of a piece of `nbytes`."""
    return -(-nbytes // chunk_size(nbytes))


def chunk_sizes(nbytes: int) -> list[int]:
    """Return the length of each chunk of `nbytes`; all but the last are `chunk_size`."""
    size = chunk_size(nbytes)
    whole, rest = divmod(nbytes, size)
    return [size] * whole + ([rest] if rest else [])


def checksum(data: Any) -> int:
    """Return the checksum that the format uses everywhere: xxh3_64, seed 0."""
    return int(xxhash.xxh3_64_intdigest(data))


def checksummer() -> xxhash.xxh3_64:
    """Return a hasher for the same checksum of bytes that come piece by piece."""
    return xxhash.xxh3_64()


def pack_head(fields: Fields, body: int, version: int = FORMAT) -> bytes:
    """Return the head, padded to a multiple of 64 bytes.

    Raises:
        InvalidKeyError: the key is not valid.
    """
    check_key(fields.key)
    return seal(msgspec.msgpack.encode(fields), body, version)


def check_key(key: str) -> None:
    """Raise InvalidKeyError unless `key` can be written into a head."""
    try:
        key_nbytes = len(key.encode())
    except UnicodeEncodeError as error:
        raise InvalidKeyError("a key must be encodable as UTF-8") from error
    if not 1 <= key_nbytes <= MAX_KEY:
        raise InvalidKeyError(f"a key takes 1 to {MAX_KEY} bytes in UTF-8, not {key_nbytes}")


def seal(packed: bytes, body: int, version: int = FORMAT) -> bytes:
    """Return the head around packed fields, padded to a multiple of 64 bytes."""
    nbytes = PREFIX_NBYTES + len(packed) + 63 & -64
    assert nbytes <= MAX_HEAD, nbytes
    front = _UNSUMMED.pack(MAGIC, version, 0, nbytes, body, len(packed), 0)
    back = packed.ljust(nbytes - PREFIX_NBYTES, b"\0")
    total: int = xxhash.xxh3_64_intdigest(front + back)
    return b"".join((front, total.to_bytes(8, "little"), back))


def read_head(buffer: memoryview) -> FrameHead:
    """Return the head at the start of `buffer`, which may lack a part of the body.

    Raises:
        CorruptDataError: the head is damaged or incomplete.
        UnsupportedTypeError: a later release wrote it, in a newer version of the format.
    """
    if buffer.nbytes < PREFIX_NBYTES:
        raise CorruptDataError(f"a frame cannot be {buffer.nbytes} bytes long")
    magic, version, flags, nbytes, body, packed, zero, total = _PREFIX.unpack_from(buffer)
    if magic != MAGIC:
        raise CorruptDataError("these bytes are not a frame: the mark at their start is missing")
    if version not in (FORMAT, UNSUMMED_FORMAT):
        raise UnsupportedTypeError(
            f"the frame has format version {version}, this release reads {FORMAT} and "
            f"{UNSUMMED_FORMAT}: upgrade tiered-memories to read it"
        )
    if nbytes > MAX_HEAD or nbytes % 64 or PREFIX_NBYTES + packed > nbytes:
        raise CorruptDataError(f"a frame cannot have a head of {nbytes} bytes")
    if buffer.nbytes < nbytes:
        raise CorruptDataError(f"a head of {nbytes} bytes ends after {buffer.nbytes}")
    if flags or zero or _head_sum(buffer[:nbytes]) != total:
        raise CorruptDataError("the head of a frame is damaged: its checksum does not match")
    fields = _read_fields(buffer[PREFIX_NBYTES : PREFIX_NBYTES + packed])
    return FrameHead(fields, nbytes, body, version == FORMAT)


def read_content(packed: bytes | memoryview) -> Content:
    """Return the content of a frame.

    Raises:
        CorruptDataError: it is damaged.
    """
    try:
        return _content(packed)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise CorruptDataError(f"the description in a frame is damaged: {error}") from error


def check_pieces(pieces: list[FramePiece], body: int, *, summed: bool = True) -> None:
    """Check that the pieces follow each other in the body and fill it.

    Raises:
        CorruptDataError: they overlap, or their sizes do not match.
    """
    end = 0
    for piece in pieces:
        if piece.offset < end or piece.offset % 64:
            raise CorruptDataError("the pieces of a frame overlap")
        end = piece.offset + piece.stored
        _check_chunks(piece, summed)
    if align(end) != body:
        raise CorruptDataError(f"the pieces of a frame end at {end}, its body at {body}")


def check_spill(piece: FramePiece, body: int, *, summed: bool = True) -> None:
    """Check that a piece is the last one of the body, before the others are known.

    Raises:
        CorruptDataError: its offset or its sizes do not match the body.
    """
    if piece.offset < 0 or align(piece.offset + piece.stored) != body:
        raise CorruptDataError("the description of a frame does not end its body")
    _check_chunks(piece, summed)


def _check_chunks(piece: FramePiece, summed: bool) -> None:
    if min(piece.stored, piece.raw) < 0:
        raise CorruptDataError("a piece of a frame has a negative length")
    chunks = count_chunks(piece.raw)
    raw = piece.compressor == RAW and piece.stored == piece.raw and not piece.lengths
    packed = piece.compressor in (BLOSC, DELTA, PCODEC) and len(piece.lengths) == chunks * 4
    if not (raw or packed) or len(piece.sums) != (chunks * 8 if summed else 0):
        raise CorruptDataError("a piece of a frame has the wrong number of chunks")
    if packed and sum(piece.chunk_lengths()) != piece.stored:
        raise CorruptDataError("the chunks of a piece do not add up to its length")


def _read_fields(packed: memoryview) -> Fields:
    try:
        fields = _fields(packed)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise CorruptDataError(f"the head of a frame is damaged: {error}") from error
    if bool(fields.content) == (fields.spill is not None):
        raise CorruptDataError("a frame must have one description, in its head or in its body")
    return fields


def _head_sum(head: memoryview) -> int:
    hasher = xxhash.xxh3_64(head[:SUMMED_NBYTES])
    hasher.update(head[PREFIX_NBYTES:])
    return int(hasher.intdigest())
