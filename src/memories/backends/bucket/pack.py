"""The bytes of one object: frames, then an index that describes them, then a trailer.

A frame is opaque here and has its own checksums. A large value is an object of one frame, small
ones share one, and a manifest is an object without a frame.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import xxhash

from memories.backends.bucket.objectstore import Buffer
from memories.backends.bucket.seal import ArchiveSeal
from memories.errors import CorruptDataError
from memories.model.record import Record

ALIGNMENT = 64
TRAILER_BYTES = 64
MAX_INDEX_BYTES = 1 << 30  # What an index may declare to unfold to.
# And to how many times its stored bytes: its entries take up to 30 times their own in RAM.
_MOST_GAIN = 64
_FREE_BYTES = 1 << 20

_MAGIC = b"MEMGLAC"
_PLAIN, _ENCRYPTED = 1, 2  # What follows the magic: how the index is written.
_TRAILER = struct.Struct("<7sBQQQ16s8xQ")


class PackEntry(msgspec.Struct, frozen=True, array_like=True):
    """A frame of an object: its extent there, and the record.

    The `place` of the record is the head of an encrypted frame, and else left empty.
    """

    offset: int
    length: int
    record: Record


class PackContents(msgspec.Struct, frozen=True, array_like=True):
    """What an object says: the versions in it, and the keys that are gone as of a version.

    The empty key, which no value can have, stands for all keys. A link is a record whose `place`
    says in which other object its frame lies: it is as if it had been stored there.
    """

    stored: list[PackEntry] = []
    removed: list[tuple[str, int]] = []
    linked: list[Record] = []


class PackIndex(msgspec.Struct, frozen=True, array_like=True):
    """The self-description of an object, or of the many that a manifest sums up."""

    store: str  # The id of the store that wrote it.
    epoch: int  # Counts the writers of the prefix, one after the other.
    sequence: int  # Counts the objects of all writers, in order.
    created_at: float
    contents: PackContents = PackContents()
    covers: dict[bytes, tuple[int, int, int, PackContents]] = {}
    # Of a manifest: token of the object, its epoch, sequence, size, and contents.
    exact: bool = (
        False  # Whether all of them exist: a manifest is rewritten before one is unlinked.
    )


class Trailer(NamedTuple):
    """The end of an object, which leads to its index."""

    offset: int
    stored: int
    raw: int
    digest: bytes
    encrypted: bool = False


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(PackIndex)


def finish(
    index: PackIndex, body_bytes: int, name: str = "", seal: ArchiveSeal | None = None
) -> bytes:
    """Return what follows a body of `body_bytes` bytes (a multiple of 64): index and trailer.

    With `seal` the index is encrypted for the object `name`.
    """
    raw = _encoder.encode(index)
    stored = zlib.compress(raw, 3)
    if len(raw) > _most_raw(len(stored)):
        stored = zlib.compress(raw, 0)
    if seal is not None:
        stored = seal.index(name, stored)
    head = _TRAILER.pack(
        _MAGIC, _PLAIN if seal is None else _ENCRYPTED, body_bytes, len(stored), len(raw),
        xxhash.xxh3_128_digest(stored), 0,
    )  # fmt: skip
    return stored + head[:-8] + xxhash.xxh3_64_intdigest(head[:-8]).to_bytes(8, "little")


def _most_raw(stored: int) -> int:
    """Return to how many bytes an index of so many stored bytes may unfold."""
    return _FREE_BYTES + _MOST_GAIN * stored


def padding(length: int) -> int:
    """Return how many bytes follow a frame of `length` bytes so that the next one is aligned."""
    return -length % ALIGNMENT


def read_trailer(tail: Buffer, size: int, name: str) -> Trailer:
    """Read the trailer at the end of `tail`, the end of an object of `size` bytes.

    Raises:
        CorruptDataError: the object was not written by us, was damaged or cut short.
    """
    raw = bytes(memoryview(tail)[-TRAILER_BYTES:])
    if len(raw) < TRAILER_BYTES:
        raise CorruptDataError(f"the archive object {name} is cut short: it has {size} bytes")
    magic, version, offset, stored, length, digest, check = _TRAILER.unpack(raw)
    if magic == _MAGIC and version not in (_PLAIN, _ENCRYPTED):
        raise CorruptDataError(
            f"the archive object {name} has format {version}, and this release reads 1 and 2: "
            "upgrade"
        )
    if magic != _MAGIC or check != xxhash.xxh3_64_intdigest(raw[:-8]):
        raise CorruptDataError(f"the archive object {name} does not end as an archive object does")
    if offset + stored + TRAILER_BYTES != size or length > min(MAX_INDEX_BYTES, _most_raw(stored)):
        raise CorruptDataError(f"the archive object {name} declares sizes that it does not have")
    return Trailer(offset, stored, length, digest, version == _ENCRYPTED)


def read_index(
    stored: Buffer, trailer: Trailer, name: str, seal: ArchiveSeal | None = None
) -> PackIndex:
    """Check and decode the index of an object; with `seal` one that is encrypted, and no other.

    Raises:
        CorruptDataError: it is not what was written.
    """
    if xxhash.xxh3_128_digest(stored) != trailer.digest:
        raise CorruptDataError(f"the index of the archive object {name} is damaged")
    if trailer.encrypted != (seal is not None):
        is_not = "" if trailer.encrypted else "not "
        raise CorruptDataError(
            f"the archive object {name} is {is_not}encrypted, unlike the archive: it was planted, "
            "or comes from another archive"
        )
    if seal is not None:
        stored = seal.open_index(name, stored)
    try:
        unfolder = zlib.decompressobj()
        raw = unfolder.decompress(stored, trailer.raw)
        if len(raw) != trailer.raw or not unfolder.eof:
            raise CorruptDataError(f"the index of the archive object {name} has a wrong length")
        return _decoder.decode(raw)
    except (zlib.error, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptDataError(f"the index of the archive object {name} is malformed") from error


def body_bytes(frame: Sequence[Buffer]) -> int:
    """Return the bytes of a gather list."""
    return sum(memoryview(part).nbytes for part in frame)
