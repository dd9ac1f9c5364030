"""Write a frame: a head that describes everything, then the buffers as they lay in memory.

`docs/format.md` describes the format to the byte. The result is a gather list: buffers are referred
to where they lie, and only what is compressed, or written into a buffer of the caller, is copied.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, Protocol

import msgspec

from memories.codecs import registry
from memories.codecs.base import Parts, carries_code, pack_meta
from memories.codecs.buffers import ALIGNMENT, EMPTY, align
from memories.errors import InvalidOptionError
from memories.foundation import parallel
from memories.frames import signing
from memories.frames.compression import (
    MIN_NBYTES,
    RAW,
    Method,
    Spec,
    choose_method,
    compress,
    parse_spec,
)
from memories.frames.delta_filter import distances_of
from memories.frames.fast_path import MAX_PACKED_BYTES, pack_small
from memories.frames.head import (
    MAX_INLINE,
    PADDING,
    Content,
    Fields,
    FramePiece,
    checksum,
    checksummer,
    chunk_size,
    count_chunks,
    pack_head,
)
from memories.frames.signing import Signature

_CACHED = 1 << 18  # Fits into the second-level cache of any processor with room to spare.


class Signer(Protocol):
    """What signs; `trust.Keyring` does."""

    def sign(self, message: bytes) -> Signature:
        """Sign `message`."""


class Frame(NamedTuple):
    """A packed value: `segments` one after the other are its bytes; the first is `head`."""

    head: memoryview
    segments: list[memoryview]
    nbytes: int
    raw_nbytes: int

    def join(self) -> bytes:
        """Return the frame as one object; this copies it."""
        return b"".join(self.segments)


def pack(
    parts: Parts, *, key: str, version: int, compression: str = "none", signer: Signer | None = None
) -> Frame:
    """Return the frame of `parts`: a gather list that aliases what is not compressed.

    Args:
        parts: What `encode` or `freeze` returned. They must not change before the frame is written.
        key: The key it is stored under; a part of what is signed.
        version: The store-wide number of the commit; a part of what is signed.
        compression: See `compressors.parse`.
        signer: Signs what carries code; by default the user's own keyring.

    Raises:
        InvalidKeyError: the key is no key.
        InvalidOptionError: the compression is unknown.
    """
    spec = parse_spec(compression)
    most = MAX_PACKED_BYTES if spec is None else MIN_NBYTES - 1
    if parts.nbytes <= most and not carries_code(parts.codec):
        small = pack_small(parts, key, version, pack_meta(parts.meta), _prelude(parts))
        if small is not None:
            segments = [memoryview(part) for part in small if part]
            nbytes = sum([segment.nbytes for segment in segments])
            return Frame(segments[0], segments, nbytes, parts.nbytes)
    draft = _draft(parts, key, version, signer, spec)
    body = FrameBody(partial(parallel.map_items, store_apart))
    head = memoryview(draft.assemble(body))
    return Frame(head, [head, *body.segments], head.nbytes + body.nbytes, parts.nbytes)


def pack_into(
    parts: Parts, target: Any, *, key: str, version: int, signer: Signer | None = None
) -> int:
    """Write the raw frame of `parts` into a writable buffer and return its length.

    Costs one copy: the checksum is taken while what was copied is still in the processor's cache.

    Raises:
        InvalidKeyError: the key is no key.
        InvalidOptionError: the buffer is too small.
    """
    room = memoryview(target).cast("B")
    draft = _draft(parts, key, version, signer)
    # Checksums have a fixed length, so a head without them tells how long the head will be.
    sizing = FrameBody(store_nowhere)
    head_nbytes = len(draft.assemble(sizing))
    nbytes = head_nbytes + sizing.nbytes
    if room.nbytes < nbytes:
        raise InvalidOptionError(
            f"the frame of {key!r} takes {nbytes} bytes, the buffer has {room.nbytes}"
        )
    body = FrameBody(partial(parallel.map_items, store_in(room[head_nbytes:nbytes])))
    room[:head_nbytes] = draft.assemble(body)
    return nbytes


class _Draft(NamedTuple):
    """All of a frame that is known before its body is put anywhere."""

    parts: Parts
    meta: bytes
    key: str
    version: int
    signature: Signature
    spec: Spec | None
    methods: list[Method | None]
    prelude: memoryview

    def assemble(self, body: FrameBody) -> bytes:
        """Put the pieces into `body` and return the head that describes them."""
        lead = [self.prelude] if self.prelude.nbytes else []
        table = body.add([*lead, *self.parts.buffers], [*(None for _ in lead), *self.methods])
        first = table.pop(0) if lead else None
        fields = Fields(
            key=self.key,
            version=self.version,
            codec=self.parts.codec,
            raw=self.parts.nbytes,
            prelude=first,
            key_id=self.signature.key_id,
            mac=self.signature.mac,
        )
        return describe(fields, msgspec.Raw(self.meta), table, body, self.spec)


def describe(
    fields: Fields, meta: msgspec.Raw, table: list[FramePiece], body: FrameBody, spec: Spec | None
) -> bytes:
    """Return the head of a frame whose pieces are in `body`, to which a long description goes."""
    packed = msgspec.msgpack.encode(Content(meta, table))
    content: bytes = packed
    spill: FramePiece | None = None
    if len(packed) > MAX_INLINE:
        whole = memoryview(packed)
        content, (spill,) = b"", body.add([whole], [choose_method(whole, spec)])
    fields = msgspec.structs.replace(fields, content=content, spill=spill)
    return pack_head(fields, body.nbytes)


def _draft(
    parts: Parts, key: str, version: int, signer: Signer | None, spec: Spec | None = None
) -> _Draft:
    meta = pack_meta(parts.meta)
    signature = Signature("", b"")
    if carries_code(parts.codec):
        message = signing.message(key, version, parts.codec, meta, parts.buffers)
        signature = (signer or signing.default()).sign(message)
    methods: list[Method | None] = [None] * len(parts.buffers)
    if spec is not None:
        known = distances_of(parts) if spec.differences else {}
        methods = parallel.map_items(
            lambda one: choose_method(one[1], spec, known.get(one[0], ())),
            list(enumerate(parts.buffers)),
            parts.nbytes,
        )
    prelude = memoryview(_prelude(parts)) if methods == [None] else EMPTY
    return _Draft(parts, meta, key, version, signature, spec, methods, prelude)


def _prelude(parts: Parts) -> bytes:
    """Return what makes a body that is one raw buffer a file of another kind."""
    return registry.codec_named(parts.codec).prelude(parts) if len(parts.buffers) == 1 else b""


class RawChunk(NamedTuple):
    """A stretch of a buffer, and where in the body it begins if nothing is compressed."""

    data: memoryview
    method: Method | None
    offset: int


class StoredChunk(NamedTuple):
    """The bytes that a chunk is stored as, and their checksum."""

    data: memoryview
    total: int


class FrameBody:
    """The body as it grows: its segments, padding included.

    `store` gets chunks and their length in all, and returns what each is stored as.
    """

    def __init__(self, store: Callable[[list[RawChunk], int], list[StoredChunk]]) -> None:
        self.segments: list[memoryview] = []
        self.nbytes = 0
        self._store = store

    def add(
        self, buffers: Sequence[memoryview], methods: Sequence[Method | None]
    ) -> list[FramePiece]:
        """Append buffers and return where each lies."""
        chunks: list[RawChunk] = []
        offset = self.nbytes
        for buffer, method in zip(buffers, methods, strict=True):
            chunks += _split(buffer, method, offset)
            offset += align(buffer.nbytes)
        stored = iter(self._store(chunks, offset - self.nbytes))
        return [
            self._append(buffer, method, islice(stored, count_chunks(buffer.nbytes)))
            for buffer, method in zip(buffers, methods, strict=True)
        ]

    def add_packed(self, chunks: Sequence[memoryview], raw: int, compressor: int) -> FramePiece:
        """Append the compressed chunks of `raw` bytes and return where they lie."""
        piece = FramePiece(
            offset=self.nbytes,
            stored=sum(chunk.nbytes for chunk in chunks),
            raw=raw,
            compressor=compressor,
            sums=struct.pack(f"<{len(chunks)}Q", *map(checksum, chunks)),
            lengths=struct.pack(f"<{len(chunks)}I", *(chunk.nbytes for chunk in chunks)),
        )
        self.segments.extend(chunks)
        if piece.stored % ALIGNMENT:
            self.segments.append(_padding(piece.stored))
        self.nbytes += align(piece.stored)
        return piece

    def _append(
        self, buffer: memoryview, method: Method | None, stored: Iterable[StoredChunk]
    ) -> FramePiece:
        lying, sums = zip(*stored, strict=True) if buffer.nbytes else ((), ())
        lengths = [chunk.nbytes for chunk in lying]
        offset, nbytes = self.nbytes, sum(lengths)
        if nbytes:
            self.segments.extend([buffer] if method is None else lying)
        if nbytes % ALIGNMENT:
            self.segments.append(_padding(nbytes))
        self.nbytes += align(nbytes)
        return FramePiece(
            offset=offset,
            stored=nbytes,
            raw=buffer.nbytes,
            compressor=RAW if method is None else method.code,
            sums=struct.pack(f"<{len(sums)}Q", *sums),
            lengths=b"" if method is None else struct.pack(f"<{len(lengths)}I", *lengths),
        )


def store_apart(chunk: RawChunk) -> StoredChunk:
    """Leave a chunk where it is, or compress it."""
    data = chunk.data
    if chunk.method is not None:
        data = memoryview(compress(data, chunk.method))
    return StoredChunk(data, checksum(data))


def store_nowhere(chunks: list[RawChunk], _: int) -> list[StoredChunk]:
    """Only take up room."""
    return [StoredChunk(chunk.data, 0) for chunk in chunks]


def store_in(room: memoryview) -> Callable[[RawChunk], StoredChunk]:
    """Return what copies chunks into a body that lies in `room`, their padding included.

    Each is copied and summed a stretch at a time, while that is in the processor's cache.
    """

    def store(chunk: RawChunk) -> StoredChunk:
        total = checksummer()
        end = chunk.offset + chunk.data.nbytes
        for start in range(chunk.offset, end, _CACHED):
            stop = min(start + _CACHED, end)
            room[start:stop] = chunk.data[start - chunk.offset : stop - chunk.offset]
            total.update(room[start:stop])
        room[end : align(end)] = _padding(end)
        return StoredChunk(chunk.data, total.intdigest())

    return store


def _split(buffer: memoryview, method: Method | None, offset: int) -> list[RawChunk]:
    size = chunk_size(buffer.nbytes)
    if 0 < buffer.nbytes <= size:
        return [RawChunk(buffer, method, offset)]
    return [
        RawChunk(buffer[start : start + size], method, offset + start)
        for start in range(0, buffer.nbytes, size)
    ]


def _padding(nbytes: int) -> memoryview:
    """Return the zeros that follow `nbytes` up to the next multiple of 64."""
    return memoryview(PADDING)[: align(nbytes) - nbytes]
