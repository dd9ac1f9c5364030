"""THE byte format: parts to a gather list of bytes, and bytes to parts.

Not a file and not a container; `docs/format.md` describes it to the byte. The one idea: a head that
says all, then the buffers as they lay in memory, each chunk with a checksum of its own.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import msgspec
import numpy as np

from memories.codecs import compressors, layout, registry, trust
from memories.codecs.base import Parts, carries_code
from memories.codecs.compressors import BLOSC, RAW, Method, Spec
from memories.codecs.layout import Content, Fields, Piece
from memories.codecs.memory import EMPTY, ByteArray, align, as_array
from memories.codecs.opened import OpenFrame, open_frame
from memories.codecs.trust import Signature
from memories.errors import InvalidOptionError, UnsupportedTypeError

_ZEROS = memoryview(bytes(64))

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
    body = _Body()
    signature = _sign(parts, key, version, signer)
    head = memoryview(
        _assemble(parts, body, compressors.parse(compression), key, version, signature)
    )
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
    room = np.frombuffer(target, np.uint8)
    signature = _sign(parts, key, version, signer)
    # Checksums have a fixed length, so a head without them tells how long the head will be.
    sizing = _Body(lambda _: 0)
    head_nbytes = len(_assemble(parts, sizing, None, key, version, signature))
    if room.nbytes < head_nbytes + sizing.nbytes:
        raise InvalidOptionError(
            f"the frame of {key!r} takes {head_nbytes + sizing.nbytes} bytes, "
            f"the buffer has {room.nbytes}"
        )
    body = _Copy(room[head_nbytes : head_nbytes + sizing.nbytes])
    head = _assemble(parts, body, None, key, version, signature)
    room[:head_nbytes] = np.frombuffer(head, np.uint8)
    return head_nbytes + body.nbytes


def _assemble(
    parts: Parts, body: _Body, spec: Spec | None, key: str, version: int, signature: Signature
) -> bytes:
    """Put the pieces of `parts` into `body` and return the head that describes them."""
    methods = [compressors.choose(buffer, spec) for buffer in parts.buffers]
    prelude = EMPTY
    if len(methods) == 1 and methods[0] is None:
        prelude = memoryview(registry.get(parts.codec).prelude(parts))
    first = body.add(prelude) if prelude.nbytes else None
    table = [body.add(b, m) for b, m in zip(parts.buffers, methods, strict=True)]
    packed = msgspec.msgpack.encode(Content(msgspec.Raw(_pack_meta(parts.meta)), table))
    content, spill = packed, None
    if len(packed) > layout.MAX_INLINE:
        whole = memoryview(packed)
        content, spill = b"", body.add(whole, compressors.choose(whole, spec))
    fields = Fields(
        key=key,
        version=version,
        codec=parts.codec,
        raw=parts.nbytes,
        content=content,
        spill=spill,
        prelude=first,
        key_id=signature.key_id,
        mac=signature.mac,
    )
    return layout.pack_head(fields, body.nbytes)


def _sign(parts: Parts, key: str, version: int, signer: Signer | None) -> Signature:
    if not carries_code(parts.codec):
        return Signature("", b"")
    message = trust.message(key, version, parts.codec, _pack_meta(parts.meta), parts.buffers)
    return (signer or trust.default()).sign(message)


class _Body:
    """The body as it grows: its segments, padding included."""

    def __init__(self, total: Callable[[memoryview], int] = layout.checksum) -> None:
        self.segments: list[memoryview] = []
        self.nbytes = 0
        self._total = total

    def add(self, buffer: memoryview, method: Method | None = None) -> Piece:
        """Append a buffer and return where it lies."""
        offset = self.nbytes
        chunks = _split(buffer)
        if method is not None:
            chunks = [memoryview(compressors.compress(chunk, method)) for chunk in chunks]
        sums = struct.pack(f"<{len(chunks)}Q", *map(self._total, chunks))
        lengths = [chunk.nbytes for chunk in chunks]
        self._append(chunks if method is not None else [buffer])
        return Piece(
            offset=offset,
            stored=sum(lengths),
            raw=buffer.nbytes,
            compressor=RAW if method is None else BLOSC,
            sums=sums,
            lengths=b"" if method is None else struct.pack(f"<{len(chunks)}I", *lengths),
        )

    def _append(self, segments: list[memoryview]) -> None:
        self.segments.extend(segment for segment in segments if segment.nbytes)
        length = sum(segment.nbytes for segment in segments)
        padding = align(length) - length
        if padding:
            self.segments.append(_ZEROS[:padding])
        self.nbytes += length + padding


class _Copy(_Body):
    """A body that is written where it will lie, as it grows."""

    def __init__(self, room: ByteArray) -> None:
        super().__init__(self._copy)
        self._room = room
        self._written = 0

    def _copy(self, chunk: memoryview) -> int:
        """Copy a chunk and return its checksum."""
        place = self._room[self._written : self._written + chunk.nbytes]
        np.copyto(place, as_array(chunk))
        self._written += chunk.nbytes
        return layout.checksum(place)

    def _append(self, segments: list[memoryview]) -> None:
        super()._append(segments)
        self._room[self._written : self.nbytes] = 0
        self._written = self.nbytes


def _split(buffer: memoryview) -> list[memoryview]:
    size = layout.chunk_size(buffer.nbytes)
    return [buffer[start : start + size] for start in range(0, buffer.nbytes, size)]


def _pack_meta(meta: Any) -> bytes:
    try:
        return msgspec.msgpack.encode(meta)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise UnsupportedTypeError(f"a codec described a value by what is no data: {error}") from (
            error
        )
