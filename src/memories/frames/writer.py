"""Write a frame: a head that describes everything, then the buffers as they are in memory.

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
from memories.codecs.arrays import ArrayCodec
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
    Weigh,
    choose_method,
    compress,
    compress_small,
    parse_spec,
)
from memories.frames.compression_history import LARGE_NBYTES, CompressionHistory, SizeClass
from memories.frames.delta_filter import distances_of
from memories.frames.fast_path import MAX_PACKED_BYTES, pack_small
from memories.frames.head import (
    FORMAT,
    MAX_INLINE,
    PADDING,
    UNSUMMED_FORMAT,
    Content,
    Fields,
    FramePiece,
    checksum,
    checksummer,
    chunk_size,
    count_chunks,
    pack_head,
)
from memories.frames.pco_chunks import numbers_of
from memories.frames.single_array import pack_array
from memories.frames.single_buffer import pack_single
from memories.frames.store_binding import Signature

# The codec of a value with one buffer, the buffer (bytes, or an array in C order of an ordinary
# dtype), and its bytes.
PlainValue = tuple[str, Any, int]
_new = tuple.__new__  # What a named tuple does, without its argument parsing.
_CACHED = 1 << 18  # Fits into the second-level cache of any processor with room to spare.


class Signer(Protocol):
    """Signs messages; `signing.Keyring` implements it."""

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
    parts: Parts,
    *,
    key: str,
    version: int,
    compression: str = "none",
    signer: Signer | None = None,
    history: CompressionHistory | None = None,
) -> Frame:
    """Return the frame of `parts`, as a gather list that refers to uncompressed buffers in place.

    Args:
        parts: What `encode` or `freeze` returned. They must not change before the frame is written.
        key: The key it is stored under, which is signed too.
        version: The store-wide number of the commit, which is signed too.
        compression: See `compression.parse_spec`.
        signer: Signs a value that carries code; the user's own keyring by default.
        history: Says which values need no trial, and which compression takes too long, and learns
            from this one. Without it each value gets a trial, and time does not count.

    Raises:
        InvalidKeyError: the key is not valid.
        InvalidOptionError: the compression is unknown.
    """
    spec, nbytes = parse_spec(compression), parts.nbytes
    known = None
    if nbytes <= MAX_PACKED_BYTES and not carries_code(parts.codec):
        if spec is None or nbytes < MIN_NBYTES:
            small = pack_small(parts, key, version, pack_meta(parts.meta), _prelude(parts))
        else:
            small = None
            if history is not None:
                known = history.size_class(parts.codec, nbytes)
                small = _pack_known(parts, key, version, spec, known)
        if small is not None:
            head, body = memoryview(small[0]), small[1]
            segments = [head, memoryview(body)] if body else [head]
            return _new(Frame, (head, segments, head.nbytes + len(body), nbytes))
    larger = None
    if (
        history is not None
        and MAX_PACKED_BYTES < nbytes <= LARGE_NBYTES
        and len(parts.buffers) == 1
    ):
        larger = history.larger_class(_kind_of(parts), nbytes)
    weigh = history.is_worth if history is not None and known is None else None
    plan = _plan_frame(parts, key, version, signer, spec, larger, weigh)
    if known is not None:
        known.record_trial(next((one for one in plan.methods if one is not None), None))
    pieces = FrameBody(partial(parallel.map_items, store_separately))
    head = memoryview(plan.assemble(pieces))
    least = 0.0 if spec is None else spec.min_gain
    if larger is not None and plan.methods[0] is not None and pieces.nbytes * least > nbytes:
        larger.left = 0  # This value differs from the latest ones: the next one gets a trial.
    return Frame(head, [head, *pieces.segments], head.nbytes + pieces.nbytes, nbytes)


def pack_unsummed(parts: Parts, *, key: str, version: int, signer: Signer | None = None) -> Frame:
    """Return the raw frame of `parts` without checksums of its body.

    It is for what sums the whole frame again, in parts of its own, and so reads it once.

    Raises:
        InvalidKeyError: the key is not valid.
    """
    pieces = FrameBody(leave_unsummed, summed=False)
    head = memoryview(_plan_frame(parts, key, version, signer).assemble(pieces))
    return Frame(head, [head, *pieces.segments], head.nbytes + pieces.nbytes, parts.nbytes)


def pack_whole(parts: Parts, *, key: str, version: int) -> bytes | None:
    """Return the raw frame of a small value as one object; None where `pack` must make it."""
    if parts.nbytes > MAX_PACKED_BYTES or carries_code(parts.codec):
        return None
    small = pack_small(parts, key, version, pack_meta(parts.meta), _prelude(parts))
    return None if small is None else small[0] + small[1]


class PlainPacker:
    """Packs small bytes, texts and arrays for one medium: as `pack` does, in fewer steps."""

    def __init__(self, compression: str, history: CompressionHistory) -> None:
        """Raise InvalidOptionError if the compression is unknown."""
        self._spec = parse_spec(compression)
        self._history = history
        self._latest = ("", 0, history.size_class("", 0))

    def pack(self, plain: PlainValue, key: str, version: int) -> bytes | None:
        """Return the frame as one object; None where `pack` must make it.

        It is the frame that `pack` would make, and the history learns the same.

        Raises:
            InvalidKeyError: the key is not valid.
        """
        codec, data, nbytes = plain
        spec = self._spec
        if nbytes > MAX_PACKED_BYTES:
            return None
        if spec is None or nbytes < MIN_NBYTES:
            return _pack_plain(codec, data, key, version)
        latest, length, known = self._latest
        if latest != codec or length != nbytes:
            known = self._history.size_class(codec, nbytes)
            self._latest = (codec, nbytes, known)
        method = known.method
        if known.left <= 0:
            return None
        if method is None:
            whole = _pack_plain(codec, data, key, version)
            if whole is not None:
                known.left -= 1
                known.untried += 1
            return whole
        if method.delta is not None or codec == ArrayCodec.name:
            return None
        packed = compress_small(data, method)
        if len(packed) * spec.min_gain > nbytes:
            known.left = 0  # It is tried again at once.
            return None
        known.left -= 1
        known.compressed += 1
        return pack_single(codec, key, version, data, packed)


def _pack_plain(codec: str, data: Any, key: str, version: int) -> bytes | None:
    if codec == ArrayCodec.name:
        return pack_array(key, version, data)
    return pack_single(codec, key, version, data)


def _pack_known(
    parts: Parts, key: str, version: int, spec: Spec, known: SizeClass
) -> tuple[bytes, bytes] | None:
    """Return head and body of the frame where no trial is needed, else None."""
    if known.left <= 0:
        return None
    known.left -= 1
    if known.method is None:
        known.untried += 1
        return pack_small(parts, key, version, pack_meta(parts.meta), _prelude(parts))
    if len(parts.buffers) != 1:
        return None
    packed = compress(parts.buffers[0], known.method)
    if len(packed) * spec.min_gain > parts.buffers[0].nbytes:
        return None
    known.compressed += 1
    return pack_small(parts, key, version, pack_meta(parts.meta), b"", packed, known.method.code)


def pack_into(
    parts: Parts, target: Any, *, key: str, version: int, signer: Signer | None = None
) -> int:
    """Write the raw frame of `parts` into a writable buffer and return its length.

    It costs one copy: the checksum is computed while the copied bytes are in the processor's cache.

    Raises:
        InvalidKeyError: the key is not valid.
        InvalidOptionError: the buffer is too small.
    """
    room = memoryview(target).cast("B")
    plan = _plan_frame(parts, key, version, signer)
    # Checksums have a fixed length, so a head without them has the length of the final head.
    sizing = FrameBody(leave_unsummed)
    head_nbytes = len(plan.assemble(sizing))
    nbytes = head_nbytes + sizing.nbytes
    if room.nbytes < nbytes:
        raise InvalidOptionError(
            f"the frame of {key!r} takes {nbytes} bytes, the buffer has {room.nbytes}"
        )
    body = FrameBody(partial(parallel.map_items, store_into(room[head_nbytes:nbytes])))
    room[:head_nbytes] = plan.assemble(body)
    return nbytes


class _FramePlan(NamedTuple):
    """Everything about a frame that is known before its body is written."""

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
            store=self.signature.store,
        )
        return assemble_head(fields, msgspec.Raw(self.meta), table, body, self.spec)


def assemble_head(
    fields: Fields, meta: msgspec.Raw, table: list[FramePiece], body: FrameBody, spec: Spec | None
) -> bytes:
    """Return the head of a frame with these pieces; a long description is added to `body`."""
    packed = msgspec.msgpack.encode(Content(meta, table))
    content: bytes = packed
    spill: FramePiece | None = None
    if len(packed) > MAX_INLINE:
        whole = memoryview(packed)
        content, (spill,) = b"", body.add([whole], [choose_method(whole, spec)])
    fields = msgspec.structs.replace(fields, content=content, spill=spill)
    return pack_head(fields, body.nbytes, FORMAT if body.summed else UNSUMMED_FORMAT)


def _plan_frame(
    parts: Parts,
    key: str,
    version: int,
    signer: Signer | None,
    spec: Spec | None = None,
    larger: SizeClass | None = None,
    weigh: Weigh | None = None,
) -> _FramePlan:
    meta = pack_meta(parts.meta)
    signature = Signature("", b"")
    if carries_code(parts.codec):
        message = signing.message(key, version, parts.codec, meta, parts.buffers)
        signature = (signer or signing.default()).sign(message)
    methods: list[Method | None] = [None] * len(parts.buffers)
    if spec is not None and larger is not None and larger.left > 0:
        larger.left -= 1
        methods = [larger.method]
    elif spec is not None:
        known = distances_of(parts) if spec.differences else {}
        numbers = numbers_of(parts) if spec.differences else {}
        methods = parallel.map_items(
            lambda one: choose_method(
                one[1], spec, known.get(one[0], ()), weigh, numbers.get(one[0], "")
            ),
            list(enumerate(parts.buffers)),
            parts.nbytes,
        )
        if larger is not None:
            larger.record_trial(methods[0])
    prelude = memoryview(_prelude(parts)) if methods == [None] else EMPTY
    return _FramePlan(parts, meta, key, version, signature, spec, methods, prelude)


def _kind_of(parts: Parts) -> str:
    """Return the codec and, of an array, the dtype: others are compressed in another way."""
    dtype = parts.meta.get("dtype") if isinstance(parts.meta, dict) else None
    return f"{parts.codec} {dtype}" if isinstance(dtype, str) else parts.codec


def _prelude(parts: Parts) -> bytes:
    """Return the bytes that make a body of one raw buffer a file of another format."""
    if len(parts.buffers) != 1:
        return b""
    codec = registry.loaded(parts.codec) or registry.codec_named(parts.codec)
    return codec.prelude(parts)


class RawChunk(NamedTuple):
    """A part of a buffer, and its offset in the body if nothing is compressed."""

    data: memoryview
    method: Method | None
    offset: int


class StoredChunk(NamedTuple):
    """The bytes of a chunk as they are stored, and their checksum."""

    data: memoryview
    total: int


class FrameBody:
    """The body of a frame while it is written: its segments, padding included.

    `store` gets chunks and their total length, and returns each as it is stored.
    """

    def __init__(
        self,
        store: Callable[[list[RawChunk], int], list[StoredChunk]],
        *,
        summed: bool = True,
    ) -> None:
        self.summed = summed
        self.segments: list[memoryview] = []
        self.nbytes = 0
        self._store = store

    def add(
        self, buffers: Sequence[memoryview], methods: Sequence[Method | None]
    ) -> list[FramePiece]:
        """Append buffers and return their pieces."""
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
        """Append the compressed chunks of `raw` bytes and return their piece."""
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
        data, sums = zip(*stored, strict=True) if buffer.nbytes else ((), ())
        lengths = [chunk.nbytes for chunk in data]
        offset, nbytes = self.nbytes, sum(lengths)
        if nbytes:
            self.segments.extend([buffer] if method is None else data)
        if nbytes % ALIGNMENT:
            self.segments.append(_padding(nbytes))
        self.nbytes += align(nbytes)
        return FramePiece(
            offset=offset,
            stored=nbytes,
            raw=buffer.nbytes,
            compressor=RAW if method is None else method.code,
            sums=struct.pack(f"<{len(sums)}Q", *sums) if self.summed else b"",
            lengths=b"" if method is None else struct.pack(f"<{len(lengths)}I", *lengths),
        )


def store_separately(chunk: RawChunk) -> StoredChunk:
    """Leave a chunk where it is, or compress it."""
    data = chunk.data
    if chunk.method is not None:
        data = memoryview(compress(data, chunk.method))
    return StoredChunk(data, checksum(data))


def leave_unsummed(chunks: list[RawChunk], _: int) -> list[StoredChunk]:
    """Return the chunks as they are, without checksums."""
    return [StoredChunk(chunk.data, 0) for chunk in chunks]


def store_into(room: memoryview) -> Callable[[RawChunk], StoredChunk]:
    """Return a function that copies chunks into the body in `room`, their padding included.

    A chunk is copied and summed in parts that fit into the processor's cache.
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
