"""What a frame says of itself, and one region of its array, wherever the bytes lie.

Not the bytes: a subclass has them, all of them or only those that it was asked for. The one idea:
whatever is asked, the chunks that it touches are named first, so that they can be brought at once.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import msgspec

from memories.codecs.arrays import Array, ArrayCodec, read_meta
from memories.codecs.base import Parts
from memories.codecs.buffers import allocate, as_array
from memories.errors import CorruptDataError, UnsupportedTypeError
from memories.frames import array_region, compression
from memories.frames import head as frame_head
from memories.frames.compression import RAW
from memories.frames.head import Content, Head, Piece

Span = tuple[int, int]  # The first byte, counted from the body's, and the one after the last.


class DescribedFrame(ABC):
    """A frame whose head was read and checked."""

    def __init__(self, head: Head, nbytes: int, key: str | None) -> None:
        if head.nbytes + head.body != nbytes:
            raise CorruptDataError(
                f"the frame of {head.fields.key!r} takes {head.nbytes + head.body} bytes, "
                f"{nbytes} are there"
            )
        if key is not None and head.fields.key != key:
            raise CorruptDataError(f"the frame found for {key!r} belongs to {head.fields.key!r}")
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

    @property
    def is_raw(self) -> bool:
        """Return whether no buffer is compressed."""
        return all(piece.compressor == RAW for piece in self._content.buffers)

    def __repr__(self) -> str:
        name = type(self).__name__
        return f"<{name} {self.key!r} v{self.version} {self.codec} {self.nbytes} B>"

    def region(self, index: Any) -> Array:
        """Return `array[index]` of a stored array, touching only the chunks it lies in.

        Each of them is verified. Of a raw frame in memory the result is a read-only view, of any
        other a read-only array of its own.

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
        window = array_region.locate(shape, dtype, order, index)
        chunk = frame_head.chunk_size(piece.raw)
        spans, sums = piece.spans(), piece.chunk_sums()
        touched = array_region.chunks_of(window, chunk)
        self._bring([spans[i] for i in touched])
        for i in touched:
            self._verify_span(spans[i], sums[i])
        whole = self._whole(piece)
        if whole is not None:
            return array_region.view(whole, window, dtype)

        def load(i: int, target: Any) -> None:
            unfold(self.stored_chunk(spans[i]), target, piece.compressor)

        return array_region.gather(window, dtype, chunk, load, piece.raw)

    def description(self) -> Any:
        """Return the codec's own description of the value, the `meta` of its parts."""
        try:
            return msgspec.msgpack.decode(self._content.meta)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            raise CorruptDataError(f"the description of {self.key!r} is damaged") from error

    @abstractmethod
    def _bring(self, spans: Sequence[Span]) -> None:
        """Make sure that these stretches of the body are at hand."""

    @abstractmethod
    def stored_chunk(self, span: Span) -> memoryview:
        """Return a stretch of the body that is at hand."""

    def _whole(self, piece: Piece) -> memoryview | None:
        """Return the memory of a piece that lies here as it was, or None."""
        del piece
        return None

    def _only_piece(self, nbytes: int) -> Piece:
        pieces = self._content.buffers
        if len(pieces) != 1 or pieces[0].raw != nbytes:
            raise CorruptDataError(f"the array of {self.key!r} does not fit its description")
        return pieces[0]

    def _read_content(self) -> Content:
        fields = self._fields
        lead = [fields.prelude] if fields.prelude is not None else []
        if fields.spill is None:
            content = frame_head.read_content(fields.content)
            frame_head.check_pieces([*lead, *content.buffers], self._head.body)
        else:
            frame_head.check_last(fields.spill, self._head.body)
            content = self._read_spill(fields.spill)
            frame_head.check_pieces([*lead, *content.buffers, fields.spill], self._head.body)
        if sum(piece.raw for piece in content.buffers) != fields.raw:
            raise CorruptDataError(f"the buffers of {self.key!r} do not add up to its size")
        return content

    def _read_spill(self, spill: Piece) -> Content:
        spans = spill.spans()
        self._bring(spans)
        for span, total in zip(spans, spill.chunk_sums(), strict=True):
            self._verify_span(span, total)
        if spill.compressor != RAW:
            self._check_chunks(spill)
        target = allocate(spill.raw)
        for chunk in self._chunks(spill, target):
            unfold(*chunk)
        return frame_head.read_content(memoryview(target))  # type: ignore[arg-type]

    def _verify_span(self, span: Span, total: int) -> None:
        if frame_head.checksum(self.stored_chunk(span)) != total:
            first = self._head.nbytes + span[0]
            raise CorruptDataError(
                f"the stored value of {self.key!r} is damaged: the {span[1] - span[0]} bytes from "
                f"byte {first} of its frame on do not match their checksum"
            )

    def _check_chunks(self, piece: Piece) -> None:
        """Refuse a compressed piece whose chunks claim other sizes, before memory is taken."""
        for span, size in zip(piece.spans(), frame_head.chunk_sizes(piece.raw), strict=True):
            compression.check_chunk(self.stored_chunk(span), size, piece.compressor)

    def _chunks(self, piece: Piece, target: Any) -> list[tuple[memoryview, Any, int]]:
        """Return each stored chunk of a piece, where in `target` its contents go, and how."""
        size = frame_head.chunk_size(piece.raw)
        return [
            (self.stored_chunk(span), target[i * size : (i + 1) * size], piece.compressor)
            for i, span in enumerate(piece.spans())
        ]


def unfold(chunk: memoryview, target: Any, compressor: int) -> None:
    """Fill `target` with the contents of a stored chunk."""
    if compressor == RAW:
        target[:] = as_array(chunk)
    else:
        compression.decompress(chunk, target, compressor)
