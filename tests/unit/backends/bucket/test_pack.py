"""The bytes of an archive object: what was written is read, and damage is noticed."""

from __future__ import annotations

import zlib

import pytest
from tests.support.buckets.kit import record

from memories.backends.bucket.location import ObjectLocation, new_token, object_name, token_of
from memories.backends.bucket.pack import (
    TRAILER_BYTES,
    PackContents,
    PackEntry,
    PackIndex,
    finish,
    padding,
    read_index,
    read_trailer,
)
from memories.errors import CorruptDataError

INDEX = PackIndex(
    "store", 3, 17, 5.0,
    PackContents(
        [PackEntry(0, 100, record("a", 1)), PackEntry(128, 7, record("ü", 2))], [("gone", 9)]
    ),
    {b"t" * 16: (1, 2, 3, PackContents([], [("x", 1)]))},
)  # fmt: skip


def read(data: bytes, size: int | None = None) -> PackIndex:
    size = len(data) if size is None else size
    trailer = read_trailer(data, size, "objects/x")
    return read_index(data[trailer.offset : -TRAILER_BYTES], trailer, "objects/x")


def test_an_index_comes_back_as_it_was_written() -> None:
    """The bucket's own account of itself is all that is left when the machine is lost."""
    assert INDEX == read(bytes(192) + finish(INDEX, 192))


def test_every_damaged_byte_of_an_index_is_noticed() -> None:
    """A wrong index would give one key the value of another."""
    whole = finish(INDEX, 0)
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 0x40
        with pytest.raises(CorruptDataError):
            read(bytes(damaged))


def test_every_truncation_of_an_object_is_noticed() -> None:
    """An upload that was cut short must not be taken for a shorter archive."""
    whole = bytes(64) + finish(INDEX, 64)
    for length in range(len(whole)):
        with pytest.raises(CorruptDataError):
            read(whole[:length])


def test_an_index_that_unfolds_to_more_than_it_declares_is_refused() -> None:
    """A kilobyte that becomes gigabytes would end the process."""
    whole = finish(INDEX, 0)
    trailer = read_trailer(whole, len(whole), "objects/x")
    bomb = zlib.compress(bytes(50_000_000), 9)
    with pytest.raises(CorruptDataError, match="damaged"):
        read_index(bomb, trailer, "objects/x")
    import xxhash

    forged = trailer._replace(digest=xxhash.xxh3_128_digest(bomb), stored=len(bomb), raw=1000)
    with pytest.raises(CorruptDataError, match="wrong length"):
        read_index(bomb, forged, "objects/x")


def test_an_object_of_a_later_format_is_refused_with_its_number() -> None:
    """An old release must say that it is old, not that the data is damaged."""
    whole = bytearray(finish(INDEX, 0))
    whole[-TRAILER_BYTES + 7] = 9
    with pytest.raises(CorruptDataError, match="format 9, and this release reads 1"):
        read(bytes(whole))


def test_frames_in_a_pack_are_aligned() -> None:
    """A frame's own buffers are aligned to 64 bytes relative to its start."""
    assert [0, 63, 1, 0] == [padding(n) for n in (0, 1, 63, 64)]


def test_a_place_comes_back_and_garbage_is_refused() -> None:
    """Records are read from a disk that may be damaged."""
    place = ObjectLocation(new_token(), 2**40, 2**35)
    assert place == ObjectLocation.decode(place.encode())
    with pytest.raises(CorruptDataError, match="place of 3 bytes"):
        ObjectLocation.decode(b"abc")


def test_object_names_hold_no_key_and_only_ours_are_recognised() -> None:
    """A poisoned bucket must not choose names for us."""
    token = new_token()
    assert token == token_of(object_name(token))
    for foreign in ("objects/readme", "objects/../" + token.hex(), "objects/" + "A" * 32):
        assert token_of(foreign) is None


def test_a_few_stored_bytes_do_not_unfold_to_many_entries() -> None:
    """88 KB in a bucket became 4.9 GB: an entry of three bytes takes ninety in RAM."""
    import struct

    import msgspec
    import xxhash

    removed = [["", 0]] * 20_000_000
    raw = msgspec.msgpack.encode(["store", 1, 1, 0.0, [[], removed, []]])
    stored = zlib.compress(raw, 9)
    front = struct.pack(
        "<8sQQQ16s8x", b"MEMGLAC\x01", 0, len(stored), len(raw), xxhash.xxh3_128_digest(stored)
    )
    whole = stored + front + xxhash.xxh3_64_intdigest(front).to_bytes(8, "little")
    assert len(whole) < 100_000
    with pytest.raises(CorruptDataError, match="sizes that it does not have"):
        read(whole)


def test_an_index_that_compresses_well_can_be_read() -> None:
    """Thousands of keys that differ in one digit are no bomb."""
    contents = PackContents([], [("k" * 3000, 7)] * 20_000)
    index = PackIndex("store", 1, 1, 0.0, contents)
    assert index == read(finish(index, 0))
