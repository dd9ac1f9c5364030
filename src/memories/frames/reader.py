"""A frame being read: everything it says is checked before it is believed.

Not the writer, which is `frame`. The one idea: the head is checked at once, a chunk when it is
first needed, the signature before anything that could run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import msgspec

from memories.codecs.base import Parts, carries_code
from memories.codecs.buffers import ByteArray, align, allocate, view_bytes
from memories.errors import CorruptDataError
from memories.foundation import parallel
from memories.frames import compression, signing
from memories.frames import head as frame_head
from memories.frames.compression import RAW
from memories.frames.described import DescribedFrame, Span, unfold
from memories.frames.head import Fields, Head, Piece
from memories.frames.signing import Signature

_ZEROS = memoryview(bytes(64))


class Verifier(Protocol):
    """What checks signatures; `trust.Keyring` does."""

    def verify(self, message: bytes, signature: Signature, what: str = ...) -> None:
        """Return if the signature holds, else raise `UntrustedDataError` naming `what`."""


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
    return OpenFrame(view, frame_head.read_head(view), key)


class OpenFrame(DescribedFrame):
    """A frame whose head was read, and whose bytes are all here. Safe to use from many threads.

    The buffer is kept for as long as the frame, or a raw buffer out of it, lives.
    """

    def __init__(self, buffer: memoryview, head: Head, key: str | None) -> None:
        self._buffer = buffer
        self._body = buffer[head.nbytes :]
        super().__init__(head, buffer.nbytes, key)

    @property
    def segments(self) -> list[memoryview]:
        """Return the head and the body, which together are the frame, as they lie there."""
        return [self._buffer[: self._head.nbytes], self._body]

    @property
    def fields(self) -> Fields:
        """Return what the head says."""
        return self._fields

    @property
    def meta(self) -> msgspec.Raw:
        """Return the packed description of the value."""
        return self._content.meta

    @property
    def pieces(self) -> list[Piece]:
        """Return where the buffers of the value lie."""
        return self._content.buffers

    def chunk(self, piece: Piece, index: int) -> ByteArray:
        """Return one chunk of a piece, verified and decompressed, in memory of its own.

        Raises:
            CorruptDataError: it is damaged.
        """
        span, size = piece.spans()[index], frame_head.chunk_sizes(piece.raw)[index]
        self._verify_span(span, piece.chunk_sums()[index])
        if piece.compressor != RAW:
            compression.check_chunk(self.stored_chunk(span), size, piece.compressor)
        target = allocate(size)
        unfold(self.stored_chunk(span), target, piece.compressor)
        return target

    def verify_piece(self, piece: Piece) -> None:
        """Check every byte of a piece against its checksum."""
        for span, total in zip(piece.spans(), piece.chunk_sums(), strict=True):
            self._verify_span(span, total)

    def verify(self) -> None:
        """Check every byte of the body against its checksum.

        Raises:
            CorruptDataError: some do not match; the message names the key and where.
        """
        end = 0
        sums: list[tuple[Span, int]] = []
        for piece in self._pieces():
            sums += zip(piece.spans(), piece.chunk_sums(), strict=True)
            self._verify_zeros(end, piece.offset)
            end = piece.offset + piece.stored
        self._verify_zeros(end, self._body.nbytes)
        parallel.each(lambda summed: self._verify_span(*summed), sums, end)

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
        pieces = self._content.buffers
        owned = frozenset(i for i, piece in enumerate(pieces) if piece.compressor != RAW)
        parts = Parts(self.codec, self.description(), self._load(pieces), owned, given=owned)
        self._check_trust(parts, verifier)
        return parts

    def _bring(self, spans: Sequence[Span]) -> None:
        del spans  # They are here.

    def stored_chunk(self, span: Span) -> memoryview:
        """Return a stretch of the body."""
        return self._body[slice(*span)]

    def _whole(self, piece: Piece) -> memoryview | None:
        return self.stored(piece) if piece.compressor == RAW else None

    def _pieces(self) -> Iterator[Piece]:
        if self._fields.prelude is not None:
            yield self._fields.prelude
        yield from self._content.buffers
        if self._fields.spill is not None:
            yield self._fields.spill

    def stored(self, piece: Piece) -> memoryview:
        """Return the bytes of a piece as they are stored."""
        return self._body[piece.offset : piece.offset + piece.stored]

    def _verify_zeros(self, start: int, stop: int) -> None:
        if self._body[start:stop] != _ZEROS[: stop - start]:
            raise CorruptDataError(f"the padding in the frame of {self.key!r} is damaged")

    def _load(self, pieces: Sequence[Piece]) -> tuple[memoryview, ...]:
        """Return the contents of `pieces`; all that are compressed go into one arena."""
        packed = [piece for piece in pieces if piece.compressor != RAW]
        for piece in packed:
            self._check_chunks(piece)
        arena = allocate(sum(align(piece.raw) for piece in packed))
        loaded, chunks, offset = [], [], 0
        for piece in pieces:
            if piece.compressor == RAW:
                loaded.append(self.stored(piece))
                continue
            target = arena[offset : offset + piece.raw]
            offset += align(piece.raw)
            chunks += self._chunks(piece, target)
            loaded.append(view_bytes(target).toreadonly())
        parallel.each(lambda chunk: compression.decompress(*chunk), chunks, offset)
        return tuple(loaded)

    def _check_trust(self, parts: Parts, verifier: Verifier | None) -> None:
        if carries_code(self.codec):
            meta = memoryview(self._content.meta)
            message = signing.message(self.key, self.version, self.codec, meta, parts.buffers)
            signature = Signature(self._fields.key_id, self._fields.mac)
            what = f"the value of {self.key[:200]!r}"
            (verifier or signing.default()).verify(message, signature, what)
