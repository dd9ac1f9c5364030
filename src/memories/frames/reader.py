"""Read a frame: the head is checked first, each chunk when it is first used.

`DescribedFrame` is what every frame can do once its head is read, wherever the bytes of its body
are; `OpenFrame` is a frame whose bytes are all in memory (`range_reader` has the other kind).
A signature is checked before anything is decoded that could run code.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import msgspec
import numpy as np

from memories.codecs.arrays import Array, ArrayCodec, read_meta
from memories.codecs.base import Parts, carries_code
from memories.codecs.buffers import ByteArray, align, allocate, as_array, view_bytes
from memories.errors import CorruptDataError, TierFullError
from memories.foundation import parallel
from memories.foundation.host_limits import host_room
from memories.foundation.units import format_size
from memories.frames import array_region, signing
from memories.frames.compression import RAW, check_chunk, decompress
from memories.frames.head import (
    PADDING,
    Content,
    Fields,
    FrameHead,
    FramePiece,
    check_pieces,
    check_spill,
    checksum,
    chunk_size,
    chunk_sizes,
    read_content,
    read_head,
)
from memories.frames.store_binding import Signature

_SURE_NBYTES = 256 << 20  # Up to this, the machine is not asked what it can spare.
Span = tuple[int, int]  # The first byte, counted from the body's, and the one after the last.


class VerifiedChunks:
    """The chunks of one array that were verified; one that a race has lost is verified again."""

    __slots__ = ("_mask",)

    def __init__(self, *, every: bool = False) -> None:
        self._mask = -1 if every else 0  # A bit for each chunk.

    def has(self, chunk: int) -> bool:
        """Return whether a chunk was verified."""
        return bool(self._mask >> chunk & 1)

    def add(self, chunks: Sequence[int]) -> None:
        """Remember that these were verified."""
        for chunk in chunks:
            self._mask |= 1 << chunk


class Verifier(Protocol):
    """Checks signatures; `signing.Keyring` implements it."""

    def verify(self, message: bytes, signature: Signature, what: str = ...) -> None:
        """Return if the signature holds, else raise `UntrustedDataError` naming `what`."""


def open_frame(
    buffer: Any, *, key: str | None = None, verified: bool = False, private: bool = False
) -> OpenFrame:
    """Return the frame in `buffer`, with its head read and checked, and its body unread.

    Args:
        buffer: The bytes of exactly one frame.
        key: The key under which it was looked up; a frame of another key is an error.
        verified: All its bytes match the checksums of what enclosed it: no others are compared.
        private: Whether the buffer is given up, so that the value may lie in it and be changed.

    Raises:
        CorruptDataError: these are not the complete bytes of a frame of that key, or nothing was
            verified, and it has no checksums of its own.
        UnsupportedTypeError: a later release wrote it, in a newer version of the format.
    """
    view = view_bytes(buffer)
    head = read_head(view)
    return OpenFrame(view if private else view.toreadonly(), head, key, verified=verified)


class DescribedFrame(ABC):
    """A frame whose head was read and checked.

    Attributes:
        verified: The chunks that need not be verified again when a region is read; or None.
    """

    def __init__(
        self, head: FrameHead, nbytes: int, key: str | None, *, verified: bool = False
    ) -> None:
        if head.nbytes + head.body != nbytes:
            raise CorruptDataError(
                f"the frame of {head.fields.key!r} takes {head.nbytes + head.body} bytes, "
                f"{nbytes} are there"
            )
        if key is not None and head.fields.key != key:
            raise CorruptDataError(f"the frame found for {key!r} belongs to {head.fields.key!r}")
        if not (verified or head.summed):
            raise CorruptDataError(
                f"the frame of {head.fields.key!r} has no checksums: only the chunks of a value on "
                "nodes may contain it"
            )
        self.verified = VerifiedChunks(every=True) if verified else None
        self._is_verified = verified
        self._head = head
        self._fields = head.fields
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
        return self._head.nbytes + self._head.body

    @property
    def raw_nbytes(self) -> int:
        """Return the bytes of all buffers once decompressed."""
        return self._fields.raw

    @property
    def signed_by(self) -> str:
        """Return the id of the key that claims to have signed it, empty when none does."""
        return self._fields.key_id

    def __repr__(self) -> str:
        name = type(self).__name__
        return f"<{name} {self.key!r} v{self.version} {self.codec} {self.nbytes} B>"

    def region(self, index: Any) -> Any:
        """Return `value[index]` of a stored array, bytes or bytearray, reading only some chunks.

        Each of the chunks that it touches is verified, unless that was done before. A part of an
        array is read-only: a view of a raw frame in memory, or a new array.

        Raises:
            CorruptDataError: one of these chunks is damaged.
            InvalidOptionError: the value has no regions, or the index does not fit: made of ints,
                slices, `...` and `None` for an array, an int or a slice for bytes.
            IndexError: it is out of bounds.
        """
        kind = array_region.CUT.get(self.codec)
        if kind is not None:
            step = array_region.check_cut(index)
            part = self._array_region(step, np.dtype(np.uint8), (self.raw_nbytes,), "C")
            return kind(part) if part.ndim else int(part)
        if self.codec != ArrayCodec.name:
            raise array_region.no_region(self.key, self.codec)
        dtype, shape, order = read_meta(Parts(self.codec, self.description()))
        return self._array_region(index, dtype, shape, order)

    def _array_region(
        self, index: Any, dtype: np.dtype[Any], shape: tuple[int, ...], order: str
    ) -> Array:
        """Return a region of the only buffer, which is an array of this dtype, shape and order."""
        piece = self._only_piece(dtype.itemsize * math.prod(shape))
        window = array_region.locate(shape, dtype, order, index)
        chunk = chunk_size(piece.raw)
        verified = self.verified
        touched = array_region.chunks_of(window, chunk)
        spans = dict(zip(touched, piece.spans_of(touched), strict=True))
        self._ensure_loaded(list(spans.values()))
        unknown = touched if verified is None else [i for i in touched if not verified.has(i)]
        parallel.map_items(
            lambda i: self._verify_span(spans[i], piece.sum_of(i)), unknown, len(unknown) * chunk
        )
        if verified is not None:
            verified.add(unknown)
        whole = self._raw_view(piece)
        if whole is not None:
            return array_region.view(whole, window, dtype)

        def load(i: int, target: Any) -> None:
            load_chunk(self.stored_chunk(spans[i]), target, piece.compressor)

        return array_region.gather(window, dtype, chunk, load, piece.raw)

    def description(self) -> Any:
        """Return the codec's own description of the value, the `meta` of its parts."""
        return self._described(self._content.meta)

    def _described(self, meta: bytes | msgspec.Raw) -> Any:
        try:
            return msgspec.msgpack.decode(meta)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            raise CorruptDataError(f"the description of {self.key!r} is damaged") from error

    @abstractmethod
    def _ensure_loaded(self, spans: Sequence[Span]) -> None:
        """Load these ranges of the body into memory, if they are not there."""

    @abstractmethod
    def stored_chunk(self, span: Span) -> memoryview:
        """Return a range of the body that is in memory."""

    def _raw_view(self, piece: FramePiece) -> memoryview | None:
        """Return the bytes of a raw piece that are in memory, or None."""
        del piece
        return None

    def _only_piece(self, nbytes: int) -> FramePiece:
        pieces = self._content.buffers
        if len(pieces) != 1 or pieces[0].raw != nbytes:
            raise CorruptDataError(f"the array of {self.key!r} does not fit its description")
        return pieces[0]

    def _read_content(self) -> Content:
        fields, body, summed = self._fields, self._head.body, self._head.summed
        lead = [fields.prelude] if fields.prelude is not None else []
        if fields.spill is None:
            content = read_content(fields.content)
            check_pieces([*lead, *content.buffers], body, summed=summed)
        else:
            check_spill(fields.spill, body, summed=summed)
            content = self._read_spill(fields.spill)
            check_pieces([*lead, *content.buffers, fields.spill], body, summed=summed)
        if sum(piece.raw for piece in content.buffers) != fields.raw:
            raise CorruptDataError(f"the buffers of {self.key!r} do not add up to its size")
        return content

    def _read_spill(self, spill: FramePiece) -> Content:
        spans = spill.spans()
        self._ensure_loaded(spans)
        if not self._is_verified:
            for span, total in zip(spans, spill.chunk_sums(), strict=True):
                self._verify_span(span, total)
        if spill.compressor != RAW:
            self._check_chunks(spill)
        target = allocate(spill.raw)
        for chunk in self._chunks(spill, target):
            load_chunk(*chunk)
        return read_content(memoryview(target))  # type: ignore[arg-type]

    def _verify_span(self, span: Span, total: int) -> None:
        if checksum(self.stored_chunk(span)) != total:
            first = self._head.nbytes + span[0]
            raise CorruptDataError(
                f"the stored value of {self.key!r} is damaged: the {span[1] - span[0]} bytes from "
                f"byte {first} of its frame on do not match their checksum"
            )

    def _check_chunks(self, piece: FramePiece) -> None:
        """Check the sizes that the chunks of a compressed piece declare, before allocating."""
        for span, size in zip(piece.spans(), chunk_sizes(piece.raw), strict=True):
            check_chunk(self.stored_chunk(span), size, piece.compressor)

    def _chunks(self, piece: FramePiece, target: Any) -> list[tuple[memoryview, Any, int]]:
        """Return each stored chunk of a piece, its range of `target`, and its compressor."""
        size = chunk_size(piece.raw)
        return [
            (self.stored_chunk(span), target[i * size : (i + 1) * size], piece.compressor)
            for i, span in enumerate(piece.spans())
        ]


class OpenFrame(DescribedFrame):
    """A frame whose bytes are all in memory, with its head read. Safe to use from many threads.

    A writable buffer is private: it becomes the memory of the one value that is made of it.

    The memory stays alive as long as the frame, or a view of one of its raw buffers.
    """

    def __init__(
        self, buffer: memoryview, head: FrameHead, key: str | None, *, verified: bool = False
    ) -> None:
        self._buffer = buffer
        self._body = buffer[head.nbytes :]
        super().__init__(head, buffer.nbytes, key, verified=verified)

    @property
    def segments(self) -> list[memoryview]:
        """Return views of the head and the body, which together are the frame."""
        return [self._buffer[: self._head.nbytes], self._body]

    @property
    def fields(self) -> Fields:
        """Return the fields of the head."""
        return self._fields

    @property
    def meta(self) -> msgspec.Raw:
        """Return the packed description of the value."""
        return self._content.meta

    @property
    def pieces(self) -> list[FramePiece]:
        """Return the pieces of the body with the buffers of the value."""
        return self._content.buffers

    def chunk(self, piece: FramePiece, index: int) -> ByteArray:
        """Return one chunk of a piece, verified and decompressed, in memory of its own.

        Raises:
            CorruptDataError: it is damaged.
        """
        span, size = piece.spans()[index], chunk_sizes(piece.raw)[index]
        self._verify_span(span, piece.chunk_sums()[index])
        if piece.compressor != RAW:
            check_chunk(self.stored_chunk(span), size, piece.compressor)
        target = allocate(size)
        load_chunk(self.stored_chunk(span), target, piece.compressor)
        return target

    def verify_piece(self, piece: FramePiece) -> None:
        """Check every byte of a piece against its checksum."""
        for span, total in zip(piece.spans(), piece.chunk_sums(), strict=True):
            self._verify_span(span, total)

    def verify(self) -> None:
        """Check every byte of the body against its checksum, unless what enclosed it was verified.

        Raises:
            CorruptDataError: some do not match; the message names the key and where.
        """
        if self._is_verified:
            return
        end = 0
        sums: list[tuple[Span, int]] = []
        for piece in self._pieces():
            sums += zip(piece.spans(), piece.chunk_sums(), strict=True)
            self._verify_zeros(end, piece.offset)
            end = piece.offset + piece.stored
        self._verify_zeros(end, self._body.nbytes)
        parallel.map_items(lambda summed: self._verify_span(*summed), sums, end)

    def parts(self, *, verify: bool = True, verifier: Verifier | None = None) -> Parts:
        """Return the parts: views of raw buffers, new memory for compressed ones.

        A value that carries code is copied first: what is verified must be what is loaded, and
        another process may write to the file that is mapped here.

        Args:
            verify: Check every checksum first. False is safe only if this was done since the store
                was opened.
            verifier: Checks the signature of a value that carries code, also with `verify=False`;
                the user's own keyring by default.

        Raises:
            CorruptDataError: something is damaged.
            UntrustedDataError: it carries code, and no trusted key has signed it.
        """
        if verify:
            self.verify()
        if carries_code(self.codec):
            return self._signed_parts(verifier or signing.default())
        pieces = self._content.buffers
        private = not self._buffer.readonly
        owned = frozenset(i for i, piece in enumerate(pieces) if private or piece.compressor != RAW)
        return Parts(self.codec, self.description(), self._load(pieces), owned, given=owned)

    def _signed_parts(self, verifier: Verifier) -> Parts:
        """Return the parts of a value that carries code, in memory of their own, once verified."""
        meta = bytes(self._content.meta)
        buffers = self._load(self._content.buffers, private=True)
        message = signing.message(self.key, self.version, self.codec, meta, buffers)
        fields = self._fields
        signature = Signature(fields.key_id, fields.mac, fields.store)
        verifier.verify(message, signature, f"the value of {self.key[:200]!r}")
        owned = frozenset(range(len(buffers)))
        return Parts(self.codec, self._described(meta), buffers, owned, given=owned)

    def _ensure_loaded(self, spans: Sequence[Span]) -> None:
        del spans  # The whole body is in memory.

    def stored_chunk(self, span: Span) -> memoryview:
        """Return a range of the body."""
        return self._body[slice(*span)]

    def _raw_view(self, piece: FramePiece) -> memoryview | None:
        return self.stored_bytes(piece) if piece.compressor == RAW else None

    def _pieces(self) -> Iterator[FramePiece]:
        if self._fields.prelude is not None:
            yield self._fields.prelude
        yield from self._content.buffers
        if self._fields.spill is not None:
            yield self._fields.spill

    def stored_bytes(self, piece: FramePiece) -> memoryview:
        """Return the bytes of a piece as they are stored."""
        return self._body[piece.offset : piece.offset + piece.stored]

    def _verify_zeros(self, start: int, stop: int) -> None:
        if self._body[start:stop] != PADDING[: stop - start]:
            raise CorruptDataError(f"the padding in the frame of {self.key!r} is damaged")

    def _load(
        self, pieces: Sequence[FramePiece], *, private: bool = False
    ) -> tuple[memoryview, ...]:
        """Return the contents of `pieces`; all compressed ones are loaded into one arena.

        `private` loads the others into it, too.
        """
        packed = [piece for piece in pieces if private or piece.compressor != RAW]
        for piece in packed:
            if piece.compressor != RAW:
                self._check_chunks(piece)
        total = sum(align(piece.raw) for piece in packed)
        if total > _SURE_NBYTES and total > host_room():
            # An array of zeros of any size is stored as a few kilobytes.
            raise TierFullError(
                f"the value of {self.key[:200]!r} takes {format_size(total)} in RAM, and the "
                f"machine has {format_size(host_room())} to spare: free some, or read a region"
            )
        arena = allocate(total)
        loaded, chunks, offset = [], [], 0
        for piece in pieces:
            if piece.compressor == RAW and not private:
                loaded.append(self.stored_bytes(piece))
                continue
            target = arena[offset : offset + piece.raw]
            offset += align(piece.raw)
            chunks += self._chunks(piece, target)
            loaded.append(view_bytes(target).toreadonly())
        parallel.map_items(lambda chunk: load_chunk(*chunk), chunks, offset)
        return tuple(loaded)


def load_chunk(chunk: memoryview, target: Any, compressor: int) -> None:
    """Fill `target` with the contents of a stored chunk."""
    if compressor == RAW:
        target[:] = as_array(chunk)
    else:
        decompress(chunk, target, compressor)
