"""THE byte format: parts to a gather list of bytes, and bytes to parts.

Not a file and not a container; `docs/format.md` describes it to the byte. The one idea: a head that
says all, then the buffers as they lay in memory, each chunk with a checksum of its own.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple, Protocol

import msgspec

from memories.codecs import compressors, layout, registry, trust
from memories.codecs.base import Parts, carries_code
from memories.codecs.compressors import BLOSC, RAW, Method
from memories.codecs.layout import Content, Fields, Piece
from memories.codecs.memory import EMPTY, align
from memories.codecs.opened import OpenFrame, open_frame
from memories.codecs.trust import Signature
from memories.errors import UnsupportedTypeError

_ZEROS = memoryview(bytes(64))

__all__ = ["Frame", "OpenFrame", "Signer", "open_frame", "pack"]


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
    spec = compressors.parse(compression)
    meta = _pack_meta(parts.meta)
    body = _Body()
    methods = [compressors.choose(buffer, spec) for buffer in parts.buffers]
    prelude = EMPTY
    if len(methods) == 1 and methods[0] is None:
        prelude = memoryview(registry.get(parts.codec).prelude(parts))
    first = body.add(prelude) if prelude.nbytes else None
    table = [body.add(b, m) for b, m in zip(parts.buffers, methods, strict=True)]
    content = msgspec.msgpack.encode(Content(msgspec.Raw(meta), table))
    inline = len(content) <= layout.MAX_INLINE
    spill = None
    if not inline:
        spill = body.add(memoryview(content), compressors.choose(memoryview(content), spec))
    signature = Signature("", b"")
    if carries_code(parts.codec):
        message = trust.message(key, version, parts.codec, meta, parts.buffers)
        signature = (signer or trust.default()).sign(message)
    fields = Fields(
        key=key,
        version=version,
        codec=parts.codec,
        raw=parts.nbytes,
        content=content if inline else b"",
        spill=spill,
        prelude=first,
        key_id=signature.key_id,
        mac=signature.mac,
    )
    head = memoryview(layout.pack_head(fields, body.nbytes))
    return Frame(head, [head, *body.segments], head.nbytes + body.nbytes, parts.nbytes)


class _Body:
    """The body as it grows: its segments, padding included."""

    def __init__(self) -> None:
        self.segments: list[memoryview] = []
        self.nbytes = 0

    def add(self, buffer: memoryview, method: Method | None = None) -> Piece:
        """Append a buffer and return where it lies."""
        offset = self.nbytes
        if method is None:
            chunks = _split(buffer)
            self._append([buffer])
        else:
            chunks = [memoryview(compressors.compress(c, method)) for c in _split(buffer)]
            self._append(chunks)
        lengths = [chunk.nbytes for chunk in chunks]
        return Piece(
            offset=offset,
            stored=sum(lengths),
            raw=buffer.nbytes,
            compressor=RAW if method is None else BLOSC,
            sums=struct.pack(f"<{len(chunks)}Q", *map(layout.checksum, chunks)),
            lengths=b"" if method is None else struct.pack(f"<{len(chunks)}I", *lengths),
        )

    def _append(self, segments: list[memoryview]) -> None:
        self.segments.extend(segment for segment in segments if segment.nbytes)
        length = sum(segment.nbytes for segment in segments)
        padding = align(length) - length
        if padding:
            self.segments.append(_ZEROS[:padding])
        self.nbytes += length + padding


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
