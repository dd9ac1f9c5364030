"""A frame being read: everything it says is checked before it is believed.

Not the writer, which is `frame`. The one idea: the head is checked at once, a chunk when it is
first needed, the signature before anything that could run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import msgspec

from memories.codecs import compressors, layout, regions, trust
from memories.codecs.arrays import Array, ArrayCodec, read_meta
from memories.codecs.base import Parts, carries_code
from memories.codecs.compressors import BLOSC, RAW
from memories.codecs.layout import Content, Head, Piece
from memories.codecs.memory import align, allocate, view_bytes
from memories.codecs.trust import Signature
from memories.errors import CorruptDataError, UnsupportedTypeError

_ZEROS = memoryview(bytes(64))


class Verifier(Protocol):
    """What checks signatures; `trust.Keyring` does."""

    def verify(self, message: bytes, signature: Signature) -> None:
        """Return if the signature holds, else raise `UntrustedDataError`."""


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

    @property
    def segments(self) -> list[memoryview]:
        """Return the head and the body, which together are the frame, as they lie there."""
        return [self._buffer[: self._head.nbytes], self._body]

    @property
    def is_raw(self) -> bool:
        """Return whether no buffer is compressed."""
        return all(piece.compressor == RAW for piece in self._content.buffers)

    def __repr__(self) -> str:
        return f"<OpenFrame {self.key!r} v{self.version} {self.codec} {self.nbytes} B>"

    def verify(self) -> None:
        """Check every byte of the body against its checksum.

        Raises:
            CorruptDataError: some do not match; the message names the key and where.
        """
        end = 0
        for piece in self._pieces():
            for span, total in zip(piece.spans(), piece.chunk_sums(), strict=True):
                self._verify_span(span, total)
            self._verify_zeros(end, piece.offset)
            end = piece.offset + piece.stored
        self._verify_zeros(end, self._body.nbytes)

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
        owned = frozenset(i for i, piece in enumerate(pieces) if piece.compressor == BLOSC)
        parts = Parts(self.codec, self.description(), self._load(pieces), owned)
        self._check_trust(parts, verifier)
        return parts

    def region(self, index: Any) -> Array:
        """Return `array[index]` of a stored array, touching only the chunks it lies in.

        Each of them is verified. Of a raw frame the result is a read-only view, of a compressed
        one a read-only array of its own.

        Raises:
            CorruptDataError: one of these chunks is damaged.
            InvalidOptionError: the index is not made of ints, slices, `...` and `None`.
            UnsupportedTypeError: the value is no plain array.
        """
        if self.codec != ArrayCodec.name:
            raise UnsupportedTypeError(
                f"only a region of a plain NumPy array can be read; {self.key!r} is a {self.codec}"
            )
        dtype, shape, order = read_meta(Parts(self.codec, self.description()))
        piece = self._only_piece(dtype.itemsize * math.prod(shape))
        window = regions.locate(shape, dtype, order, index)
        chunk = layout.chunk_size(piece.raw)
        spans, sums = piece.spans(), piece.chunk_sums()
        if piece.compressor == RAW:
            for i in regions.chunks_of(window, chunk):
                self._verify_span(spans[i], sums[i])
            return regions.view(self._stored(piece), window, dtype)

        def load(i: int, target: Any) -> None:
            self._verify_span(spans[i], sums[i])
            compressors.decompress(self._body[slice(*spans[i])], target)

        return regions.gather(window, dtype, chunk, load, piece.raw)

    def description(self) -> Any:
        """Return the codec's own description of the value, the `meta` of its parts."""
        try:
            return msgspec.msgpack.decode(self._content.meta)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            raise CorruptDataError(f"the description of {self.key!r} is damaged") from error

    def _only_piece(self, nbytes: int) -> Piece:
        pieces = self._content.buffers
        if len(pieces) != 1 or pieces[0].raw != nbytes:
            raise CorruptDataError(f"the array of {self.key!r} does not fit its description")
        return pieces[0]

    def _read_content(self) -> Content:
        fields = self._fields
        lead = [fields.prelude] if fields.prelude is not None else []
        if fields.spill is None:
            content = layout.read_content(fields.content)
            layout.check_pieces([*lead, *content.buffers], self._head.body)
        else:
            layout.check_last(fields.spill, self._head.body)
            content = self._read_spill(fields.spill)
            layout.check_pieces([*lead, *content.buffers, fields.spill], self._head.body)
        if sum(piece.raw for piece in content.buffers) != fields.raw:
            raise CorruptDataError(f"the buffers of {self.key!r} do not add up to its size")
        return content

    def _read_spill(self, spill: Piece) -> Content:
        for span, total in zip(spill.spans(), spill.chunk_sums(), strict=True):
            self._verify_span(span, total)
        (loaded,) = self._load([spill])
        return layout.read_content(loaded)

    def _pieces(self) -> Iterator[Piece]:
        if self._fields.prelude is not None:
            yield self._fields.prelude
        yield from self._content.buffers
        if self._fields.spill is not None:
            yield self._fields.spill

    def _stored(self, piece: Piece) -> memoryview:
        return self._body[piece.offset : piece.offset + piece.stored]

    def _verify_span(self, span: tuple[int, int], total: int) -> None:
        if layout.checksum(self._body[slice(*span)]) != total:
            first = self._head.nbytes + span[0]
            raise CorruptDataError(
                f"the stored value of {self.key!r} is damaged: the {span[1] - span[0]} bytes from "
                f"byte {first} of its frame on do not match their checksum"
            )

    def _verify_zeros(self, start: int, stop: int) -> None:
        if self._body[start:stop] != _ZEROS[: stop - start]:
            raise CorruptDataError(f"the padding in the frame of {self.key!r} is damaged")

    def _load(self, pieces: Sequence[Piece]) -> tuple[memoryview, ...]:
        """Return the contents of `pieces`; all that are compressed go into one arena."""
        packed = [piece for piece in pieces if piece.compressor == BLOSC]
        for piece in packed:
            for span, size in zip(piece.spans(), layout.chunk_sizes(piece.raw), strict=True):
                compressors.check_chunk(self._body[slice(*span)], size)
        arena = allocate(sum(align(piece.raw) for piece in packed))
        loaded, offset = [], 0
        for piece in pieces:
            if piece.compressor == RAW:
                loaded.append(self._stored(piece))
                continue
            target = arena[offset : offset + piece.raw]
            offset += align(piece.raw)
            self._inflate(piece, target)
            loaded.append(view_bytes(target).toreadonly())
        return tuple(loaded)

    def _inflate(self, piece: Piece, target: Any) -> None:
        size = layout.chunk_size(piece.raw)
        for i, span in enumerate(piece.spans()):
            place = target[i * size : (i + 1) * size]
            compressors.decompress(self._body[slice(*span)], place)

    def _check_trust(self, parts: Parts, verifier: Verifier | None) -> None:
        if carries_code(self.codec):
            meta = memoryview(self._content.meta)
            message = trust.message(self.key, self.version, self.codec, meta, parts.buffers)
            signature = Signature(self._fields.key_id, self._fields.mac)
            (verifier or trust.default()).verify(message, signature)
