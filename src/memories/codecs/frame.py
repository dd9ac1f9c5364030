"""THE byte format: parts to a gather list of bytes, and bytes to parts.

Not a file and not a container; `docs/format.md` describes it to the byte. The one idea: a head that
says all, then the buffers as they lay in memory, each chunk with a checksum of its own.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from memories.codecs import compressors, layout, registry, trust
from memories.codecs.base import Parts, carries_code
from memories.codecs.compressors import BLOSC, RAW, Method
from memories.codecs.layout import Content, Fields, Head, Piece
from memories.codecs.memory import EMPTY, align, allocate, view_bytes
from memories.codecs.trust import Signature
from memories.errors import CorruptDataError, UnsupportedTypeError

_DOMAIN = b"memories frame 1\0"
_ZEROS = memoryview(bytes(64))


class Signer(Protocol):
    """What signs; `trust.Keyring` does."""

    def sign(self, message: bytes) -> Signature:
        """Sign `message`."""


class Verifier(Protocol):
    """What checks signatures; `trust.Keyring` does."""

    def verify(self, message: bytes, signature: Signature) -> None:
        """Return if the signature holds, else raise `UntrustedDataError`."""


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
        message = _message(key, version, parts.codec, meta, parts.buffers)
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


def open_frame(buffer: Any, *, key: str | None = None) -> OpenFrame:
    """Return the frame in `buffer`, its head read and checked, its body not yet touched.

    Args:
        buffer: The bytes of exactly one frame.
        key: The key under which it was looked up; another one in the frame is damage.

    Raises:
        CorruptDataError: these are not the whole bytes of a frame of that key.
        UnsupportedTypeError: the frame is of a format version from the future.
    """
    view = view_bytes(buffer).toreadonly()
    return OpenFrame(view, layout.read_head(view), key)


class OpenFrame:
    """A frame whose head was read. Safe to use from many threads.

    The buffer is kept for as long as the frame, or a raw buffer out of it, lives.
    """

    def __init__(self, buffer: memoryview, head: Head, key: str | None) -> None:
        if head.nbytes + head.body != buffer.nbytes:
            raise CorruptDataError(
                f"the frame of {head.fields.key!r} takes {head.nbytes + head.body} bytes, "
                f"{buffer.nbytes} are there"
            )
        if key is not None and head.fields.key != key:
            raise CorruptDataError(f"the frame found for {key!r} belongs to {head.fields.key!r}")
        self._fields = head.fields
        self._head = head
        self._buffer = buffer
        self._body = buffer[head.nbytes :]
        self._content = self._read_content()

    @property
    def key(self) -> str:
        """Return the key it was stored under."""
        return self._fields.key

    @property
    def version(self) -> int:
        """Return the number of the commit that stored it."""
        return self._fields.version

    @property
    def codec(self) -> str:
        """Return the name of the codec."""
        return self._fields.codec

    @property
    def nbytes(self) -> int:
        """Return the bytes of the frame."""
        return self._buffer.nbytes

    @property
    def raw_nbytes(self) -> int:
        """Return the bytes of all buffers once decompressed."""
        return self._fields.raw

    @property
    def signed_by(self) -> str:
        """Return the id of the key that claims to have signed it, empty when none does."""
        return self._fields.key_id

    def __repr__(self) -> str:
        return f"<OpenFrame {self.key!r} v{self.version} {self.codec} {self.nbytes} B>"

    def verify(self) -> None:
        """Check every byte of the body against its checksum.

        Raises:
            CorruptDataError: some do not match; the message names the key and where.
        """
        for piece in self._pieces():
            for chunk in range(len(piece.chunk_sums())):
                self._verify_chunk(piece, chunk)
        self._verify_gaps()

    def parts(self, *, verify: bool = True, verifier: Verifier | None = None) -> Parts:
        """Return the parts: views of the frame where it is raw, new memory where compressed.

        Args:
            verify: Check every checksum first. Say False only if it was done since the open.
            verifier: Checks the signature of what carries code; by default the user's own keyring.
                It is checked whatever `verify` says.

        Raises:
            CorruptDataError: something is damaged.
            UntrustedDataError: it carries code, and no trusted key has signed it.
        """
        if verify:
            self.verify()
        parts = Parts(self.codec, self._meta(), self._load_buffers())
        self._check_trust(parts, verifier)
        return parts

    def load_range(self, index: int, start: int, stop: int) -> memoryview:
        """Return bytes of one buffer, verifying and decompressing only the chunks they touch.

        Raises:
            CorruptDataError: one of these chunks is damaged.
            UntrustedDataError: the value carries code: it can only be verified as a whole.
        """
        if carries_code(self.codec):
            raise UnsupportedTypeError(f"a stored {self.codec} has no regions")
        piece = self._content.buffers[index]
        size = layout.chunk_size(piece.raw)
        first, last = start // size, -(-stop // size)
        if piece.compressor == RAW:
            for chunk in range(first, last):
                self._verify_chunk(piece, chunk)
            return self._stored(piece)[start:stop]
        base = first * size
        target = allocate(min(last * size, piece.raw) - base)
        for chunk in range(first, last):
            self._verify_chunk(piece, chunk)
            self._inflate(piece, chunk, target[(chunk - first) * size :])
        return view_bytes(target[start - base : stop - base]).toreadonly()

    def buffer_sizes(self) -> tuple[int, ...]:
        """Return the length of each buffer once decompressed."""
        return tuple(piece.raw for piece in self._content.buffers)

    def description(self) -> Any:
        """Return the codec's own description of the value, the `meta` of its parts."""
        return self._meta()

    def _read_content(self) -> Content:
        fields = self._fields
        lead = [fields.prelude] if fields.prelude is not None else []
        if fields.spill is None:
            content = layout.read_content(fields.content)
            layout.check_pieces([*lead, *content.buffers], self._head.body)
        else:
            layout.check_pieces([*lead, fields.spill], self._head.body)
            content = self._read_spill(fields.spill)
            layout.check_pieces([*lead, *content.buffers, fields.spill], self._head.body)
        if sum(piece.raw for piece in content.buffers) != fields.raw:
            raise CorruptDataError(f"the buffers of {self.key!r} do not add up to its size")
        return content

    def _read_spill(self, spill: Piece) -> Content:
        for chunk in range(len(spill.chunk_sums())):
            self._verify_chunk(spill, chunk)
        (loaded,) = self._load([spill])
        return layout.read_content(loaded)

    def _meta(self) -> Any:
        try:
            return msgspec.msgpack.decode(self._content.meta)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            raise CorruptDataError(f"the description of {self.key!r} is damaged") from error

    def _pieces(self) -> Iterator[Piece]:
        if self._fields.prelude is not None:
            yield self._fields.prelude
        yield from self._content.buffers
        if self._fields.spill is not None:
            yield self._fields.spill

    def _stored(self, piece: Piece) -> memoryview:
        return self._body[piece.offset : piece.offset + piece.stored]

    def _chunk(self, piece: Piece, index: int) -> memoryview:
        if piece.compressor == RAW:
            size = layout.chunk_size(piece.raw)
            return self._stored(piece)[index * size : (index + 1) * size]
        lengths = piece.chunk_lengths()
        start = sum(lengths[:index])
        return self._stored(piece)[start : start + lengths[index]]

    def _verify_chunk(self, piece: Piece, index: int) -> None:
        if layout.checksum(self._chunk(piece, index)) != piece.chunk_sums()[index]:
            raise CorruptDataError(
                f"the stored value of {self.key!r} is damaged: chunk {index} of the piece at byte "
                f"{self._head.nbytes + piece.offset} does not match its checksum"
            )

    def _verify_gaps(self) -> None:
        end = 0
        for piece in self._pieces():
            self._verify_zeros(end, piece.offset)
            end = piece.offset + piece.stored
        self._verify_zeros(end, self._body.nbytes)

    def _verify_zeros(self, start: int, stop: int) -> None:
        if self._body[start:stop] != _ZEROS[: stop - start]:
            raise CorruptDataError(f"the padding in the frame of {self.key!r} is damaged")

    def _load_buffers(self) -> tuple[memoryview, ...]:
        return self._load(self._content.buffers)

    def _load(self, pieces: Sequence[Piece]) -> tuple[memoryview, ...]:
        """Return the contents of `pieces`; all that are compressed go into one arena."""
        packed = [piece for piece in pieces if piece.compressor == BLOSC]
        for piece in packed:
            self._check_chunks(piece)
        arena = allocate(sum(align(piece.raw) for piece in packed))
        loaded, offset = [], 0
        for piece in pieces:
            if piece.compressor == RAW:
                loaded.append(self._stored(piece))
                continue
            target = arena[offset : offset + piece.raw]
            offset += align(piece.raw)
            for chunk, size in enumerate(layout.chunk_sizes(piece.raw)):
                start = chunk * layout.chunk_size(piece.raw)
                self._inflate(piece, chunk, target[start : start + size])
            loaded.append(view_bytes(target).toreadonly())
        return tuple(loaded)

    def _check_chunks(self, piece: Piece) -> None:
        for chunk, size in enumerate(layout.chunk_sizes(piece.raw)):
            compressors.check_chunk(self._chunk(piece, chunk), size)

    def _inflate(self, piece: Piece, chunk: int, target: Any) -> None:
        size = layout.chunk_sizes(piece.raw)[chunk]
        compressors.decompress(self._chunk(piece, chunk), target[:size])

    def _check_trust(self, parts: Parts, verifier: Verifier | None) -> None:
        if carries_code(self.codec):
            meta = memoryview(self._content.meta)
            message = _message(self.key, self.version, self.codec, meta, parts.buffers)
            signature = Signature(self._fields.key_id, self._fields.mac)
            (verifier or trust.default()).verify(message, signature)


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


def _message(
    key: str, version: int, codec: str, meta: bytes | memoryview, buffers: Sequence[memoryview]
) -> bytes:
    """Return what is signed: the identity of the value, and the digests of all it is made of."""
    digests = [hashlib.sha256(piece).digest() for piece in (meta, *buffers)]
    return _DOMAIN + msgspec.msgpack.encode([key, version, codec, digests])
