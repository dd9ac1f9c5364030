"""The manifest of a snapshot: its keys, and where the frame of each one is.

Rows are turned into bytes and back, without access to files. They come in key order, in pages with
a checksum each, so that a million of them are written, read and compared in bounded memory.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Annotated, NamedTuple

import msgspec
import xxhash

from memories.errors import CorruptDataError, InvalidOptionError
from memories.frames.store_binding import Statement
from memories.model.record import DEFAULT_TERMS, Record, Terms
from memories.model.tiers import TierName

FORMAT = 1
PAGE_BYTES = 256 * 1024
MAX_PAGE_BYTES = 16 * 1024 * 1024

_MAGIC = b"memsnap\n"
_HEAD = struct.Struct("<8sIIQ16s16x")
_CHECK = struct.Struct("<Q")
HEAD_BYTES = _HEAD.size + _CHECK.size


Natural = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
Digest = Annotated[int, msgspec.Meta(ge=0)]


# Rows and places are not tracked by the garbage collector (`gc=False`): they cannot be part of a
# cycle, and looking at hundreds of thousands of them took a third of the time of a restore.
class Whole(msgspec.Struct, frozen=True, array_like=True, tag=0, gc=False):
    """The frame is a member of its own: head and body. `digest` is the xxh3 of its head."""

    offset: Natural
    length: Natural
    digest: Digest


class Packed(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """The frame lies in the data of a member that it shares with other small ones."""

    offset: Natural
    length: Natural


class Linked(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """The frame lies in an earlier snapshot: `base` counts in the root's list."""

    base: Natural
    offset: Natural
    length: Natural


class Reference(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """The frame stays where glacier holds it; `place` means something to that backend only."""

    place: bytes
    length: Natural


Where = Whole | Packed | Linked | Reference


class SnapshotRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One key of a snapshot."""

    key: str
    version: Natural
    tier: TierName
    size: Natural
    stored_at: float
    kind: str
    terms: Terms | None
    where: Where

    def record(self) -> Record:
        """Return what a durable tier would know of the key."""
        return Record(
            key=self.key,
            version=self.version,
            tier=self.tier,
            size=self.size,
            stored=self.where.length,
            stored_at=self.stored_at,
            kind=self.kind,
            terms=self.terms or DEFAULT_TERMS,
            place=self.where.place if isinstance(self.where, Reference) else b"",
        )


# The fields of a `SnapshotRow` as they are written; a `Packed` is its tag, offset and length. They
# are plain tuples, because a snapshot of small values makes hundreds of thousands of them.
Place = Where | tuple[int, int, int]
Row = tuple[str, int, TierName, int, float, str, Terms | None, Place]
PACKED = 1  # The tag of a `Packed`.


def row_of(record: Record, place: Place) -> Row:
    """Return the row that says `record` is at `place`."""
    terms = record.terms
    plain = terms is DEFAULT_TERMS or terms == DEFAULT_TERMS
    return (
        record.key, record.version, record.tier, record.size, record.stored_at, record.kind,
        None if plain else terms, place,
    )  # fmt: skip


class Base(msgspec.Struct, frozen=True, array_like=True):
    """An earlier snapshot that holds frames of this one."""

    id: bytes
    name: str  # Its file name when this snapshot was written; where to look first.


class Root(msgspec.Struct, frozen=True, kw_only=True):
    """What is said once for the whole snapshot."""

    id: bytes
    sequence: Natural  # The store's number at that instant; no version after it is here.
    created_at: float
    writer: str
    archive: str = ""  # The bucket that the references are about, without credentials.
    bases: list[Base] = []
    keys: Natural = 0
    # The stores whose signed values may be here, each with a statement for this very snapshot.
    stores: list[tuple[bytes, Statement]] | msgspec.UnsetType = msgspec.UNSET
    pages: list[tuple[Natural, Digest]] = []  # The bytes and the xxh3 of each page.


class ManifestHead(NamedTuple):
    """What the head of the manifest member says of its root."""

    root_bytes: int
    root_digest: bytes


_DECODING_ERRORS = (msgspec.MsgspecError, RecursionError, ValueError)
_encode = msgspec.msgpack.Encoder().encode
_rows = msgspec.msgpack.Decoder(list[SnapshotRow])
_root = msgspec.msgpack.Decoder(Root)


class PageBuilder:
    """Gathers rows into pages and remembers the checksum of each."""

    def __init__(self) -> None:
        self.pages: list[tuple[int, int]] = []
        self.keys = 0
        self._rows: list[bytes] = []
        self._bytes = 0

    def add(self, rows: Sequence[Row]) -> bytes:
        """Add rows and return the pages that they complete, which may be none."""
        encoded = list(map(_encode, rows))
        sizes = list(map(len, encoded))
        if max(sizes, default=0) > MAX_PAGE_BYTES // 2:
            self._refuse(rows, sizes)
        total = self._bytes + sum(sizes)
        if total < PAGE_BYTES:
            self._rows += encoded
            self._bytes = total
            return b""
        pages = []
        for row, size in zip(encoded, sizes, strict=True):
            self._rows.append(row)
            self._bytes += size
            if self._bytes >= PAGE_BYTES:
                pages.append(self.flush())
        return b"".join(pages)

    def _refuse(self, rows: Sequence[Row], sizes: Sequence[int]) -> None:
        key, size = next(
            (row[0], size)
            for row, size in zip(rows, sizes, strict=True)
            if size > MAX_PAGE_BYTES // 2
        )
        raise InvalidOptionError(
            f"the metadata of {key!r} take {size} bytes; a snapshot holds at most "
            f"{MAX_PAGE_BYTES // 2} per key"
        )

    def flush(self) -> bytes:
        """Return the page of the rows gathered so far."""
        page = b"\xdd" + struct.pack(">I", len(self._rows)) + b"".join(self._rows)
        self.pages.append((len(page), xxhash.xxh3_64_intdigest(page)))
        self.keys += len(self._rows)
        self._rows.clear()
        self._bytes = 0
        return page


def encode_root(root: Root) -> tuple[bytes, bytes]:
    """Return the head of the manifest member and the root, which ends its data."""
    encoded = _encode(root)
    digest = xxhash.xxh3_128_digest(encoded)
    head = _HEAD.pack(_MAGIC, FORMAT, 0, len(encoded), digest)
    return head + _CHECK.pack(xxhash.xxh3_64_intdigest(head)), encoded


def decode_head(head: bytes) -> ManifestHead:
    """Return what `head` says of the root.

    Raises:
        CorruptDataError: it is damaged, or of a format that this version does not know.
    """
    magic, version, _, root_bytes, digest = _HEAD.unpack_from(head)
    if magic != _MAGIC or _CHECK.unpack_from(head, _HEAD.size)[0] != _checksum(head):
        raise CorruptDataError("the head of the manifest is damaged")
    if version != FORMAT:
        raise CorruptDataError(
            f"it has snapshot format {version}, and this version of memories reads format "
            f"{FORMAT}: upgrade memories"
        )
    return ManifestHead(root_bytes, digest)


def _checksum(head: bytes) -> int:
    return xxhash.xxh3_64_intdigest(head[: _HEAD.size])


def decode_root(encoded: bytes, head: ManifestHead, manifest_bytes: int) -> Root:
    """Return the root, which ends a manifest of `manifest_bytes`; its pages fill the rest.

    Raises:
        CorruptDataError: it is not what was written, or cannot be.
    """
    if xxhash.xxh3_128_digest(encoded) != head.root_digest:
        raise CorruptDataError("the root of the manifest is damaged")
    try:
        root = _root.decode(encoded)
    except _DECODING_ERRORS as error:
        raise CorruptDataError(f"the root of the manifest cannot be decoded: {error}") from error
    sizes = [length for length, _ in root.pages]
    if any(not 0 < size <= MAX_PAGE_BYTES for size in sizes):
        raise CorruptDataError("the manifest declares a page of an impossible size")
    if sum(sizes) + head.root_bytes != manifest_bytes:
        raise CorruptDataError("the pages of the manifest do not fill it")
    return root


def decode_pages(
    read: Callable[[int, int], bytes], at: int, pages: Iterable[tuple[int, int]]
) -> Iterator[list[SnapshotRow]]:
    """Yield the rows of each page; `read` gives bytes by offset and length, the first at `at`.

    Raises:
        CorruptDataError: a page is not what was written.
    """
    for length, digest in pages:
        page = read(at, length)
        at += length
        if xxhash.xxh3_64_intdigest(page) != digest:
            raise CorruptDataError("a page of the manifest is damaged")
        try:
            yield _rows.decode(page)
        except _DECODING_ERRORS as error:
            raise CorruptDataError(f"a page of the manifest cannot be decoded: {error}") from error
