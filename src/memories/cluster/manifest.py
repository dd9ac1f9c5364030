"""The manifest of a value that is too large for a register: its chunks and their checksums.

Chunks are written once, under the id of one upload, and the manifest that names the upload is
written last. So a reader cannot mix the chunks of two values. The nodes of a chunk follow from its
name, and are not in the manifest.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec
import xxhash

from memories.cluster.register_format import CHUNK_PREFIX, RegisterKind
from memories.cluster.value_terms import TERMS_BYTES
from memories.errors import CorruptDataError

UPLOAD_SECONDS = 3 * 3600.0  # The longest that an upload may take from its id to its manifest.
INLINE_BYTES = 1 << 20  # Larger frames are stored as chunks.
UPLOAD_DIGITS = 32
_CHUNK_BYTES = 4 << 20
_MAX_CHUNKS = 8192
_MAX_CHUNK_BYTES = 512 << 20  # The longest string of a server.
_COUNT_DIGITS = 8
_FIXED = UPLOAD_DIGITS + _COUNT_DIGITS


class ChunkUpload(NamedTuple):
    """The chunks of one write."""

    id: bytes
    chunks: int

    def names(self) -> list[bytes]:
        """Return the name of each chunk on the nodes."""
        return [b"%s%s:%d" % (CHUNK_PREFIX, self.id, index) for index in range(self.chunks)]

    @property
    def at_seconds(self) -> float:
        """Return when it began, by the writer's wall clock."""
        return upload_seconds(self.id)


class _Fields(msgspec.Struct, array_like=True, frozen=True):
    nbytes: int
    chunk_bytes: int
    sums: bytes  # One xxh3_64 for each chunk, 8 bytes little-endian.


class ChunkManifest(NamedTuple):
    """What a reader needs to fetch a value in chunks."""

    upload: ChunkUpload
    nbytes: int
    chunk_bytes: int
    sums: tuple[int, ...]

    def pack(self) -> bytes:
        """Return the manifest as bytes; the first 40 identify its chunks, to remove them."""
        sums = b"".join(total.to_bytes(8, "little") for total in self.sums)
        fields = msgspec.msgpack.encode(_Fields(self.nbytes, self.chunk_bytes, sums))
        return self.upload.id + b"%08x" % self.upload.chunks + fields

    def spans(self) -> Iterator[tuple[int, int]]:
        """Yield where each chunk begins and ends in the frame."""
        for start in range(0, self.nbytes, self.chunk_bytes):
            yield start, min(start + self.chunk_bytes, self.nbytes)


def read_upload(body: bytes | memoryview) -> ChunkUpload:
    """Return the upload that a manifest names; its fixed part is enough.

    Raises:
        CorruptDataError: these bytes are not a manifest.
    """
    fixed = bytes(body[:_FIXED])
    try:
        upload, count = (
            bytes.fromhex(fixed[:UPLOAD_DIGITS].decode()),
            int.from_bytes(bytes.fromhex(fixed[-8:].decode())),
        )
    except ValueError as error:
        raise CorruptDataError("a manifest on a node is damaged") from error
    whole = len(fixed) == _FIXED and len(upload) * 2 == UPLOAD_DIGITS
    if not whole or not 0 < count <= _MAX_CHUNKS:  # Each has a name, and is asked for.
        raise CorruptDataError("a manifest on a node is damaged")
    return ChunkUpload(fixed[:UPLOAD_DIGITS], count)


def upload_of_register(kind: RegisterKind, body: bytes | memoryview) -> ChunkUpload | None:
    """Return the upload that a register refers to; None for a value of its own, or a tombstone.

    The beginning of its body is enough.

    Raises:
        CorruptDataError: it is damaged.
    """
    if not kind.is_manifest:
        return None
    return read_upload(body[TERMS_BYTES:] if kind.has_terms else body)


def read_manifest(body: bytes | memoryview) -> ChunkManifest:
    """Return the manifest in `body`.

    Raises:
        CorruptDataError: it is damaged, or its parts contradict each other.
    """
    upload = read_upload(body)
    try:
        fields = msgspec.msgpack.decode(body[_FIXED:], type=_Fields)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CorruptDataError("a manifest on a node is damaged") from error
    sizes = fields.nbytes, fields.chunk_bytes
    count = -(-fields.nbytes // fields.chunk_bytes) if min(sizes) > 0 else -1
    fitting = fields.chunk_bytes <= _MAX_CHUNK_BYTES and count == upload.chunks
    if not fitting or len(fields.sums) != 8 * count:
        raise CorruptDataError("the sizes in a manifest on a node contradict each other")
    parts = (fields.sums[at : at + 8] for at in range(0, len(fields.sums), 8))
    return ChunkManifest(upload, *sizes, tuple(int.from_bytes(part, "little") for part in parts))


def new_upload(nbytes: int, wall_seconds: float, nodes: int = 1) -> tuple[ChunkUpload, int]:
    """Return a new upload for a frame of `nbytes`, and how long its chunks are.

    Each of the `nodes` can get as many as the others, unless the chunks would be small for that.
    """
    size = _CHUNK_BYTES
    while nbytes > size * _MAX_CHUNKS:
        size *= 2
    even = -(-nbytes // (size * nodes)) * nodes
    if even <= _MAX_CHUNKS:
        size = max(min(size, INLINE_BYTES), -(-nbytes // even))
    name = b"%016x%016x" % (int(wall_seconds * 1_000_000), secrets.randbits(64))
    return ChunkUpload(name, -(-nbytes // size)), size


def upload_seconds(upload: bytes) -> float:
    """Return when an upload began, by the writer's wall clock."""
    return int(upload[:16], 16) / 1_000_000


def upload_of(chunk_name: bytes) -> bytes:
    """Return the id of the upload to which a chunk of this name belongs."""
    return chunk_name[len(CHUNK_PREFIX) :].partition(b":")[0]


def cut(segments: Sequence[memoryview], chunk_bytes: int) -> Iterator[list[memoryview]]:
    """Yield a gather list for every chunk of the bytes that `segments` are in a row."""
    chunk: list[memoryview] = []
    room = chunk_bytes
    for segment in segments:
        start = 0
        while start < segment.nbytes:
            piece = segment[start : start + room]
            chunk.append(piece)
            start += piece.nbytes
            room -= piece.nbytes
            if not room:
                yield chunk
                chunk, room = [], chunk_bytes
    if chunk:
        yield chunk


def chunk_sum(pieces: Iterable[memoryview]) -> int:
    """Return the checksum of a chunk."""
    digest = xxhash.xxh3_64()
    for piece in pieces:
        digest.update(piece)
    return digest.intdigest()
