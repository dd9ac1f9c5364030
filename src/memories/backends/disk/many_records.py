"""Packs many records of the log for one write, and makes their rows once they have a place.

`log_format` describes the bytes, and packs one record.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

import msgspec
from xxhash import xxh3_64_intdigest

from memories.backends.disk.log_format import (
    FILE_BYTES,
    HEADER_BYTES,
    INLINE,
    MAGIC,
    PADDING,
    VERSION,
    IndexRow,
    Position,
    body_packer,
    pack_front,
    pack_place,
    span_of,
)
from memories.backends.disk.seal import StoreSeal
from memories.backends.disk.tombstones import earlier_of
from memories.model.record import Record

Found = tuple[Record, IndexRow | None, Sequence[Any]]  # A record, what it replaces, and its frame.
FoundHead = tuple[Record, IndexRow | None]
# Names of this module, which compiled code finds without a look-up.
_digest: Final[Callable[[Any], int]] = xxh3_64_intdigest
_pack_front: Final[Callable[..., bytes]] = pack_front
_pack_place: Final[Callable[..., bytes]] = pack_place
_earlier_of: Final[Callable[[IndexRow | None, Collection[int]], Any]] = earlier_of
_NONE_EARLIER: Final[Any] = earlier_of(None, ())  # One object, for all keys without a record.
_span_of: Final[Callable[[int, int], int]] = span_of
_replace: Final[Callable[..., Record]] = msgspec.structs.replace
_Row: Final[Callable[..., IndexRow]] = IndexRow
_MAGIC: Final[bytes] = MAGIC
_VERSION: Final[int] = VERSION
_INLINE: Final[int] = INLINE
_HEADER: Final[int] = HEADER_BYTES
_PADDING: Final[tuple[bytes, ...]] = PADDING
_FILE: Final[int] = FILE_BYTES


def stored_by_file(records: Sequence[Record]) -> dict[int, int]:
    """Return the files in which the frames of `records` lie, and their bytes in each."""
    stored: dict[bytes, int] = {}
    for record in records:
        file: bytes = record.place[:_FILE]
        stored[file] = stored.get(file, 0) + record.stored
    return {int.from_bytes(file[1:], "little"): count for file, count in stored.items()}


class InlineRecords:
    """Records of different keys with their frames, to be appended in one write.

    Attributes:
        data: The bytes.
        head_bytes: How many of them are not of frames.
    """

    __slots__ = ("_befores", "_earlier", "_extents", "_found", "_lengths", "data", "head_bytes")

    def __init__(
        self,
        found: Sequence[Found],
        segments: Collection[int],
        synced: Position,
        seal: StoreSeal | None,
    ) -> None:
        mark: int = synced.segment << 32 | synced.offset
        parts: list[Any] = []
        self._found = found
        self._befores: list[int] = []  # From the first byte of a record to its frame.
        self._lengths: list[int] = []
        self._extents: list[int] = []
        self._earlier: list[Any] = []
        total = frames = 0
        pack_body = body_packer(_INLINE, seal)
        for record, old, frame in found:
            data: Any = frame[0] if len(frame) == 1 else b"".join(frame)
            length = len(data)
            earlier, span = _NONE_EARLIER, 0
            if old is not None:
                earlier = _earlier_of(old, segments)
                span = _span_of(earlier[0], earlier[1])
            oldest = earlier[0]
            body = pack_body(record)
            size = len(body)
            front = _pack_front(
                _MAGIC, _VERSION, _INLINE, span, size, oldest, length, mark, _digest(data)
            )
            head_sum = _digest(front + body).to_bytes(8, "little")
            size += _HEADER
            before = size + (-size & 63)
            parts += (front, head_sum, body, _PADDING[-size & 63], data, _PADDING[-length & 63])
            extent = before + length + (-length & 63)
            self._befores.append(before)
            self._lengths.append(length)
            self._extents.append(extent)
            self._earlier.append(earlier)
            total += extent
            frames += length
        self.data = b"".join(parts)
        self.head_bytes = total - frames

    def rows(self, segment: int, offset: int) -> list[tuple[IndexRow | None, IndexRow]]:
        """Return what is replaced and the new row of each record, now that they begin there."""
        entered: list[tuple[IndexRow | None, IndexRow]] = []
        for at, (record, old, _) in enumerate(self._found):
            length, extent = self._lengths[at], self._extents[at]
            place = _pack_place(_INLINE, segment, offset + self._befores[at], length)
            placed = _replace(record, stored=length, place=place)
            earlier = self._earlier[at]
            row = _Row(placed, _INLINE, segment, offset, extent, earlier[0], earlier[1])
            entered.append((old, row))
            offset += extent
        return entered


class HeadRecords:
    """Records of different keys without frames, all of one kind, to be appended in one write.

    Attributes:
        data: The bytes.
    """

    __slots__ = ("_earlier", "_extents", "_found", "_kind", "data")

    def __init__(
        self,
        kind: int,
        found: Sequence[FoundHead],
        segments: Collection[int],
        synced: Position,
        seal: StoreSeal | None,
    ) -> None:
        mark: int = synced.segment << 32 | synced.offset
        parts: list[bytes] = []
        self._kind = kind
        self._found = found
        self._extents: list[int] = []
        self._earlier: list[Any] = []
        fronts: dict[int, bytes] = {}  # Of records without an earlier one, by their size.
        pack_body = body_packer(kind, seal)
        for record, old in found:
            body = pack_body(record)
            size = len(body)
            earlier = _NONE_EARLIER
            front = fronts.get(size) if old is None else None
            if front is None:
                earlier = _earlier_of(old, segments)
                oldest, span = earlier[0], _span_of(earlier[0], earlier[1])
                front = _pack_front(_MAGIC, _VERSION, kind, span, size, oldest, 0, mark, 0)
                if old is None:
                    fronts[size] = front
            head_sum = _digest(front + body).to_bytes(8, "little")
            size += _HEADER
            parts += (front, head_sum, body, _PADDING[-size & 63])
            self._extents.append(size + (-size & 63))
            self._earlier.append(earlier)
        self.data = b"".join(parts)

    def rows(self, segment: int, offset: int) -> list[tuple[IndexRow | None, IndexRow]]:
        """Return what is replaced and the new row of each record, now that they begin there."""
        entered: list[tuple[IndexRow | None, IndexRow]] = []
        for at, (record, old) in enumerate(self._found):
            extent = self._extents[at]
            earlier = self._earlier[at]
            row = _Row(record, self._kind, segment, offset, extent, earlier[0], earlier[1])
            entered.append((old, row))
            offset += extent
        return entered
