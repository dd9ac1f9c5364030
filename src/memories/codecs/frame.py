"""THE byte format: parts to a gather list of bytes, and bytes to parts.

Not a file and not a container; `docs/format.md` describes it to the byte. The one idea: a head that
says all, then the buffers as they lay in memory, each chunk with a checksum of its own.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, Protocol

import msgspec

from memories.codecs import compressors, crew, layout, registry, trust
from memories.codecs.base import Parts, carries_code
from memories.codecs.compressors import BLOSC, RAW, Method, Spec
from memories.codecs.layout import Content, Fields, Piece
from memories.codecs.memory import ALIGNMENT, EMPTY, align
from memories.codecs.opened import OpenFrame, open_frame
from memories.codecs.trust import Signature
from memories.errors import InvalidOptionError, UnsupportedTypeError

_ZEROS = memoryview(bytes(64))
_CACHED = 1 << 18  # Fits into the second-level cache of any processor with room to spare.

__all__ = ["Frame", "OpenFrame", "Signer", "open_frame", "pack", "pack_into"]


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
    draft = _draft(parts, key, version, signer, compressors.parse(compression))
    body = _Body(partial(crew.each, _store_apart))
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
    sizing = _Body(_store_nowhere)
    head_nbytes = len(draft.assemble(sizing))
    nbytes = head_nbytes + sizing.nbytes
    if room.nbytes < nbytes:
        raise InvalidOptionError(
            f"the frame of {key!r} takes {nbytes} bytes, the buffer has {room.nbytes}"
        )
    body = _Body(partial(crew.each, _store_in(room[head_nbytes:nbytes])))
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

    def assemble(self, body: _Body) -> bytes:
        """Put the pieces into `body` and return the head that describes them."""
        lead = [self.prelude] if self.prelude.nbytes else []
        table = body.add([*lead, *self.parts.buffers], [*(None for _ in lead), *self.methods])
        first = table.pop(0) if lead else None
        packed = msgspec.msgpack.encode(Content(msgspec.Raw(self.meta), table))
        content: bytes = packed
        spill: Piece | None = None
        if len(packed) > layout.MAX_INLINE:
            whole = memoryview(packed)
            content, (spill,) = b"", body.add([whole], [compressors.choose(whole, self.spec)])
        fields = Fields(
            key=self.key,
            version=self.version,
            codec=self.parts.codec,
            raw=self.parts.nbytes,
            content=content,
            spill=spill,
            prelude=first,
            key_id=self.signature.key_id,
            mac=self.signature.mac,
        )
        return layout.pack_head(fields, body.nbytes)


def _draft(
    parts: Parts, key: str, version: int, signer: Signer | None, spec: Spec | None = None
) -> _Draft:
    meta = _pack_meta(parts.meta)
    signature = Signature("", b"")
    if carries_code(parts.codec):
        message = trust.message(key, version, parts.codec, meta, parts.buffers)
        signature = (signer or trust.default()).sign(message)
    methods: list[Method | None] = [None] * len(parts.buffers)
    if spec is not None:
        methods = crew.each(lambda b: compressors.choose(b, spec), parts.buffers, parts.nbytes)
    prelude = EMPTY
    if len(methods) == 1 and methods[0] is None:
        prelude = memoryview(registry.get(parts.codec).prelude(parts))
    return _Draft(parts, meta, key, version, signature, spec, methods, prelude)


class _Chunk(NamedTuple):
    """A stretch of a buffer, and where in the body it begins if nothing is compressed."""

    data: memoryview
    method: Method | None
    offset: int


class _Stored(NamedTuple):
    """The bytes that a chunk is stored as, and their checksum."""

    data: memoryview
    total: int


class _Body:
    """The body as it grows: its segments, padding included.

    `store` gets chunks and their length in all, and returns what each is stored as.
    """

    def __init__(self, store: Callable[[list[_Chunk], int], list[_Stored]]) -> None:
        self.segments: list[memoryview] = []
        self.nbytes = 0
        self._store = store

    def add(self, buffers: Sequence[memoryview], methods: Sequence[Method | None]) -> list[Piece]:
        """Append buffers and return where each lies."""
        chunks: list[_Chunk] = []
        offset = self.nbytes
        for buffer, method in zip(buffers, methods, strict=True):
            chunks += _split(buffer, method, offset)
            offset += align(buffer.nbytes)
        stored = iter(self._store(chunks, offset - self.nbytes))
        return [
            self._append(buffer, method, islice(stored, layout.count_chunks(buffer.nbytes)))
            for buffer, method in zip(buffers, methods, strict=True)
        ]

    def _append(
        self, buffer: memoryview, method: Method | None, stored: Iterable[_Stored]
    ) -> Piece:
        lying, sums = zip(*stored, strict=True) if buffer.nbytes else ((), ())
        lengths = [chunk.nbytes for chunk in lying]
        offset, nbytes = self.nbytes, sum(lengths)
        if nbytes:
            self.segments.extend([buffer] if method is None else lying)
        if nbytes % ALIGNMENT:
            self.segments.append(_ZEROS[: align(nbytes) - nbytes])
        self.nbytes += align(nbytes)
        return Piece(
            offset=offset,
            stored=nbytes,
            raw=buffer.nbytes,
            compressor=RAW if method is None else BLOSC,
            sums=struct.pack(f"<{len(sums)}Q", *sums),
            lengths=b"" if method is None else struct.pack(f"<{len(lengths)}I", *lengths),
        )


def _store_apart(chunk: _Chunk) -> _Stored:
    """Leave a chunk where it is, or compress it."""
    data = chunk.data
    if chunk.method is not None:
        data = memoryview(compressors.compress(data, chunk.method))
    return _Stored(data, layout.checksum(data))


def _store_nowhere(chunks: list[_Chunk], _: int) -> list[_Stored]:
    """Only take up room."""
    return [_Stored(chunk.data, 0) for chunk in chunks]


def _store_in(room: memoryview) -> Callable[[_Chunk], _Stored]:
    """Return what copies chunks into a body that lies in `room`, their padding included.

    Each is copied and summed a stretch at a time, while that is in the processor's cache.
    """

    def store(chunk: _Chunk) -> _Stored:
        total = layout.checksummer()
        end = chunk.offset + chunk.data.nbytes
        for start in range(chunk.offset, end, _CACHED):
            stop = min(start + _CACHED, end)
            room[start:stop] = chunk.data[start - chunk.offset : stop - chunk.offset]
            total.update(room[start:stop])
        room[end : align(end)] = _ZEROS[: align(end) - end]
        return _Stored(chunk.data, total.intdigest())

    return store


def _split(buffer: memoryview, method: Method | None, offset: int) -> list[_Chunk]:
    size = layout.chunk_size(buffer.nbytes)
    if 0 < buffer.nbytes <= size:
        return [_Chunk(buffer, method, offset)]
    return [
        _Chunk(buffer[start : start + size], method, offset + start)
        for start in range(0, buffer.nbytes, size)
    ]


def _pack_meta(meta: Any) -> bytes:
    try:
        return msgspec.msgpack.encode(meta)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise UnsupportedTypeError(f"a codec described a value by what is no data: {error}") from (
            error
        )
