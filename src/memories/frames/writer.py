"""THE byte format: parts to a gather list of bytes, and bytes to parts.

Not a file and not a container; `docs/format.md` describes it to the byte. The one idea: a head that
says all, then the buffers as they lay in memory, each chunk with a checksum of its own.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple, Protocol

import msgspec

from memories.codecs import registry
from memories.codecs.base import Parts, carries_code, pack_meta
from memories.codecs.buffers import EMPTY
from memories.errors import InvalidOptionError
from memories.foundation import parallel
from memories.frames import compression as frame_compression
from memories.frames import head as frame_head
from memories.frames import signing
from memories.frames.body import Body, store_apart, store_in, store_nowhere
from memories.frames.compression import Method, Spec
from memories.frames.distances import distances_of
from memories.frames.fast_path import MAX_PACKED_BYTES, pack_small
from memories.frames.head import Content, Fields, Piece
from memories.frames.reader import OpenFrame, open_frame
from memories.frames.signing import Signature

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
    spec = frame_compression.parse(compression)
    most = MAX_PACKED_BYTES if spec is None else frame_compression.MIN_NBYTES - 1
    if parts.nbytes <= most and not carries_code(parts.codec):
        small = pack_small(parts, key, version, pack_meta(parts.meta), _prelude(parts))
        if small is not None:
            segments = [memoryview(part) for part in small if part]
            nbytes = sum([segment.nbytes for segment in segments])
            return Frame(segments[0], segments, nbytes, parts.nbytes)
    draft = _draft(parts, key, version, signer, spec)
    body = Body(partial(parallel.each, store_apart))
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
    sizing = Body(store_nowhere)
    head_nbytes = len(draft.assemble(sizing))
    nbytes = head_nbytes + sizing.nbytes
    if room.nbytes < nbytes:
        raise InvalidOptionError(
            f"the frame of {key!r} takes {nbytes} bytes, the buffer has {room.nbytes}"
        )
    body = Body(partial(parallel.each, store_in(room[head_nbytes:nbytes])))
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

    def assemble(self, body: Body) -> bytes:
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
    fields: Fields, meta: msgspec.Raw, table: list[Piece], body: Body, spec: Spec | None
) -> bytes:
    """Return the head of a frame whose pieces are in `body`, to which a long description goes."""
    packed = msgspec.msgpack.encode(Content(meta, table))
    content: bytes = packed
    spill: Piece | None = None
    if len(packed) > frame_head.MAX_INLINE:
        whole = memoryview(packed)
        content, (spill,) = b"", body.add([whole], [frame_compression.choose(whole, spec)])
    fields = msgspec.structs.replace(fields, content=content, spill=spill)
    return frame_head.pack_head(fields, body.nbytes)


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
        methods = parallel.each(
            lambda one: frame_compression.choose(one[1], spec, known.get(one[0], ())),
            list(enumerate(parts.buffers)),
            parts.nbytes,
        )
    prelude = memoryview(_prelude(parts)) if methods == [None] else EMPTY
    return _Draft(parts, meta, key, version, signature, spec, methods, prelude)


def _prelude(parts: Parts) -> bytes:
    """Return what makes a body that is one raw buffer a file of another kind."""
    return registry.get(parts.codec).prelude(parts) if len(parts.buffers) == 1 else b""
