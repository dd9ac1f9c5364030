"""The frame: what it says of itself, what it gives back, and what it refuses."""

from __future__ import annotations

import io
import random
import struct
from typing import Any

import msgspec
import numpy as np
import pytest

from memories import codecs
from memories.codecs.buffers import address
from memories.errors import (
    CorruptDataError,
    InvalidKeyError,
    InvalidOptionError,
    MemoriesError,
    UnsupportedTypeError,
)
from memories.frames import compression as frame_compression
from memories.frames import head as frame_head
from memories.frames import writer
from memories.frames.head import Content, Fields, FramePiece
from memories.frames.reader import open_frame
from memories.testing.codecs import identical


def packed(value: Any, compression: str = "none", key: str = "key") -> bytes:
    """Return the bytes of a frame."""
    return writer.pack(codecs.encode(value), key=key, version=7, compression=compression).join()


def reseal(data: bytearray) -> bytes:
    """Return a frame whose head has a valid checksum again, as an adversary would make it."""
    nbytes = struct.unpack_from("<I", data, 12)[0]
    struct.pack_into("<Q", data, 32, frame_head._head_sum(memoryview(data)[:nbytes]))
    return bytes(data)


def forged(fields: Fields, body: bytes = b"") -> bytes:
    """Return a frame with these fields, its own checksum valid."""
    return frame_head.pack_head(fields, len(body)) + body


def content(*pieces: FramePiece, meta: Any = None) -> bytes:
    """Return a packed content."""
    raw = msgspec.Raw(msgspec.msgpack.encode(meta))
    return msgspec.msgpack.encode(Content(raw, list(pieces)))


def test_a_frame_says_what_it_is() -> None:
    """The head of a frame on a disk is enough to know what the frame contains."""
    opened = open_frame(packed(np.zeros(1000), key="a/ä"))
    assert ("a/ä", 7, "ndarray", 8000) == (
        opened.key, opened.version, opened.codec, opened.raw_nbytes,
    )  # fmt: skip


def test_a_gather_list_copies_nothing() -> None:
    """A large array goes from its own memory to the disk."""
    array = np.arange(500_000)
    packed = writer.pack(codecs.encode(array), key="k", version=1)
    assert array.ctypes.data in [address(segment) for segment in packed.segments]
    assert packed.nbytes == sum(segment.nbytes for segment in packed.segments)
    assert packed.segments[0] == packed.head


def test_a_frame_written_in_place_is_the_same_frame() -> None:
    """A writer with a mapped file of its own saves a copy, and changes nothing else."""
    values = [
        np.arange(400_000),
        {"a": b"x" * 70, "b": np.zeros(3)},
        5,
        {str(i): i for i in range(9000)},
    ]
    for value in values:
        parts = codecs.encode(value)
        expected = writer.pack(parts, key="key", version=7).join()
        room = bytearray(b"\xff" * (len(expected) + 10))
        assert len(expected) == writer.pack_into(parts, room, key="key", version=7)
        assert expected + b"\xff" * 10 == room
        with pytest.raises(InvalidOptionError, match="takes"):
            writer.pack_into(parts, bytearray(len(expected) - 1), key="key", version=7)


def test_a_raw_array_is_read_without_a_copy() -> None:
    """A value of gigabytes is there as soon as its file is mapped."""
    data = packed(np.arange(500_000))
    got = codecs.decode(open_frame(data).parts())
    start = np.frombuffer(data, np.uint8).ctypes.data
    assert start < got.ctypes.data < start + len(data)
    with pytest.raises(ValueError, match="WRITEABLE"):
        got.setflags(write=True)


def test_every_buffer_of_a_frame_is_aligned() -> None:
    """64 bytes are a cache line and the widest vector there is."""
    value = {str(n): np.zeros(n, "u1") for n in (1, 63, 64, 65, 1000)}
    data = packed(value)
    opened = open_frame(data)
    place = np.frombuffer(data, np.uint8).ctypes.data
    assert 5 == len(opened.parts().buffers)
    assert {0} == {(address(buffer) - place) % 64 for buffer in opened.parts().buffers}
    compressed = open_frame(packed({"a": np.zeros(999), "b": np.ones(999)}, "high")).parts()
    assert {0} == {address(buffer) % 64 for buffer in compressed.buffers}


@pytest.mark.parametrize("order", ["C", "F"])
def test_the_body_of_a_raw_array_is_an_npy_file(order: str) -> None:
    """numpy.load opens a snapshot's members, and whatever else holds a body."""
    for dtype in ("f8", ">i2", "M8[ns]", "S3", "U2", [("a", "u1"), ("b", "f4", (2,))]):
        array = np.asarray(np.zeros((3, 4), dtype), order=order)
        built = writer.pack(codecs.encode(array), key="k", version=1)
        body = b"".join(built.segments[1:])
        assert 0 == len(body) % 64
        assert identical(array, np.load(io.BytesIO(body)))


def test_the_head_stays_within_its_bound() -> None:
    """60 KB fit into the extra field of a ZIP member; more would not."""
    many = {f"{i}" * 20: np.full(10, i) for i in range(5000)}
    for value in (many, ["ä" * 1000] * 100, {"x" * 1000: 1}):
        for compression in ("none", "high"):
            built = writer.pack(
                codecs.encode(value), key="k" * 4096, version=1, compression=compression
            )
            assert built.head.nbytes <= frame_head.MAX_HEAD
            assert identical(value, codecs.decode(open_frame(built.join()).parts()))


def test_chunks_grow_with_the_value_so_that_the_table_does_not() -> None:
    """A terabyte still has a head of some kilobytes."""
    for nbytes in (0, 1, 1 << 20, (1 << 30) - 1, 1 << 30, (1 << 30) + 1, 1 << 43):
        size = frame_head.chunk_size(nbytes)
        assert -(-nbytes // size) <= 1024
        assert nbytes <= 1 << 30 or nbytes > size // 2 * 1024


def test_a_key_must_be_a_key() -> None:
    """A key must not be empty, too long, or impossible to encode as UTF-8."""
    for key in ("", "k" * 4097, "\ud800"):
        with pytest.raises(InvalidKeyError):
            packed(1, key=key)


def test_a_frame_of_another_key_is_refused() -> None:
    """Two files that were swapped must not swap the values."""
    with pytest.raises(CorruptDataError, match=r"'other'.*'key'"):
        open_frame(packed(1), key="other")


@pytest.mark.parametrize("compression", ["none", "high"])
def test_every_flipped_bit_is_noticed(compression: str) -> None:
    """Never wrong data: each bit of a frame is under some checksum."""
    value = {"a": np.arange(300, dtype="u2"), "b": ["x", 1, None], "c": b"12345" * 200}
    data = bytearray(packed(value, compression))
    for bit in range(len(data) * 8):
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(MemoriesError):
            open_frame(bytes(data), key="key").parts()
        data[bit // 8] ^= 1 << bit % 8
    assert identical(value, codecs.decode(open_frame(data, key="key").parts()))


@pytest.mark.parametrize("compression", ["none", "high"])
def test_every_truncation_is_noticed(compression: str) -> None:
    """A torn write, a full disk, a lost connection: none gives half of a value."""
    data = packed(np.arange(400), compression)
    for length in [*range(0, len(data), 7), len(data) - 1]:
        with pytest.raises(CorruptDataError):
            open_frame(data[:length])
    with pytest.raises(CorruptDataError):
        open_frame(data + b"\0")


def test_a_lie_with_a_valid_checksum_is_found_too() -> None:
    """An attacker with write access to a bucket can also compute checksums."""
    rng = random.Random(5)
    good = packed({"a": np.arange(50), "b": [1, "x"]}, "high")
    head = struct.unpack_from("<I", good, 12)[0]
    for _ in range(3000):
        data = bytearray(good)
        for _ in range(rng.randint(1, 3)):
            data[rng.randrange(40, head)] = rng.randrange(256)
        try:
            codecs.decode(open_frame(reseal(data)).parts())
        except MemoriesError:
            continue


def test_sizes_are_checked_before_anything_is_allocated() -> None:
    """1 KB that claims to be 10 GB costs no memory."""
    huge = 10 << 30
    count = huge // frame_head.chunk_size(huge)
    stored = b"\x02\x01\x01\x01" + struct.pack("<III", frame_head.chunk_size(huge), 4096, 16)
    sums = struct.pack("<Q", frame_head.checksum(stored)) * count
    lengths = struct.pack("<I", 16) * count
    # Every chunk has the length that the table says, and the body is far too short for them.
    piece = FramePiece(0, 16 * count, huge, frame_compression.BLOSC, sums, lengths)
    fields = Fields(key="k", version=1, codec="bytes", raw=huge, content=content(piece))
    with pytest.raises(CorruptDataError):
        open_frame(forged(fields, stored + bytes(48))).parts()
    wrong = FramePiece(0, 16, huge, frame_compression.BLOSC, sums[:8], lengths[:4])
    fields = Fields(key="k", version=1, codec="bytes", raw=huge, content=content(wrong))
    with pytest.raises(CorruptDataError, match="number of chunks"):
        open_frame(forged(fields, stored + bytes(48))).parts()


def test_a_chunk_that_claims_more_than_its_frame_is_refused() -> None:
    """Blosc would write as much as the chunk says."""
    chunk = bytearray(
        frame_compression.compress(memoryview(bytes(1000)), frame_compression.Method("lz4", 5))
    )
    struct.pack_into("<I", chunk, 4, 1 << 30)
    with pytest.raises(CorruptDataError, match="claims 1073741824 bytes"):
        frame_compression.decompress(memoryview(bytes(chunk)), np.empty(1000, np.uint8))


def test_overlapping_pieces_are_refused() -> None:
    """A thousand buffers over the same 50 compressed bytes would be a bomb."""
    data = frame_compression.compress(
        memoryview(bytes(1 << 20)), frame_compression.Method("zstd", 5)
    )
    body = data + bytes(-len(data) % 64)
    sums = struct.pack("<Q", frame_head.checksum(data))
    piece = FramePiece(
        0, len(data), 1 << 20, frame_compression.BLOSC, sums, struct.pack("<I", len(data))
    )
    packed = content(*[piece] * 100, meta={"nodes": [], "root": None})
    fields = Fields(key="k", version=1, codec="tree", raw=100 << 20, content=packed)
    with pytest.raises(CorruptDataError, match="overlap"):
        open_frame(forged(fields, body))


def test_a_format_of_the_future_is_named() -> None:
    """An old release must say that it is too old, and not that the data are damaged."""
    data = bytearray(packed(1))
    struct.pack_into("<H", data, 8, 9)
    with pytest.raises(UnsupportedTypeError, match="version 9"):
        open_frame(bytes(data))


def test_other_files_are_no_frames() -> None:
    """The message says so instead of guessing."""
    for data in (b"", b"PK\3\4" + bytes(100), np.random.default_rng(0).bytes(500)):
        with pytest.raises(CorruptDataError):
            open_frame(data)


def test_compression_is_used_where_it_gains() -> None:
    """Noise stays raw and can be mapped; what shrinks is shrunk."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 2**63, 100_000)
    smooth = np.sin(np.linspace(0, 9, 100_000)).astype("f4")
    assert len(packed(noise, "fast")) > noise.nbytes
    assert len(packed(smooth, "high")) < smooth.nbytes / 1.5
    assert len(packed(np.arange(100_000), "fast")) < 800_000 / 20


@pytest.mark.parametrize("spec", ["gzip", "zstd:0", "zstd:10", "zstd:", "lz4:x", ""])
def test_an_unknown_compression_is_refused(spec: str) -> None:
    """A typo in a setting must not store a terabyte raw."""
    if spec == "zstd:":
        assert frame_compression.parse_spec(spec) == frame_compression.parse_spec("zstd")
        return
    with pytest.raises(InvalidOptionError, match=repr(spec)):
        packed(1, spec)


def test_verification_can_be_left_out_once_it_was_done() -> None:
    """A value that is read a thousand times is verified at its first read."""
    data = bytearray(packed(np.zeros(1000)))
    data[-100] ^= 1
    opened = open_frame(bytes(data))
    with pytest.raises(CorruptDataError, match="'key' is damaged"):
        opened.verify()
    assert 1000 == codecs.decode(opened.parts(verify=False)).size


def unsummed(value: Any) -> bytes:
    """Return the bytes of a frame without checksums of its body."""
    return writer.pack_unsummed(codecs.encode(value), key="key", version=7).join()


def test_a_frame_without_checksums_is_read_where_its_bytes_were_verified() -> None:
    """The chunks of a value on nodes are summed anyway, and every byte is summed once."""
    array = np.arange(3_000_000).reshape(3000, 1000)
    for value in (array, {f"name {i}": bytes(50) for i in range(1000)}):
        data, summed = unsummed(value), packed(value)
        assert len(data) <= len(summed)
        opened = open_frame(data, key="key", verified=True)
        assert identical(value, codecs.decode(opened.parts()))
        assert identical(value, codecs.decode(open_frame(summed, verified=True).parts()))
        with pytest.raises(CorruptDataError, match="'key' has no checksums"):
            open_frame(data)
        damaged = bytearray(data)
        damaged[40] ^= 1
        with pytest.raises(CorruptDataError, match="head of a frame is damaged"):
            open_frame(damaged, verified=True)
    assert np.array_equal(array[5:9], open_frame(unsummed(array), verified=True).region(np.s_[5:9]))


def test_a_frame_says_whether_it_has_checksums() -> None:
    """A frame that has lost some of them, or hides bytes in them, is refused either way."""
    for version, sums in ((frame_head.FORMAT, b""), (frame_head.UNSUMMED_FORMAT, bytes(8))):
        piece = FramePiece(offset=0, stored=64, raw=64, compressor=0, sums=sums)
        fields = Fields(key="key", version=1, codec="bytes", raw=64, content=content(piece))
        data = frame_head.pack_head(fields, 64, version) + bytes(64)
        with pytest.raises(CorruptDataError, match="wrong number of chunks"):
            open_frame(data, verified=True)


INDICES = [
    np.s_[3], np.s_[3:5], np.s_[..., 2], np.s_[1:100:7, ::-1], np.s_[5, 6, 7], np.s_[:, 5:7, 1],
    np.s_[::-1], np.s_[None, 4], np.s_[5:5], (), np.s_[10:12, ..., 3:4], np.s_[-1, -1],
]  # fmt: skip


@pytest.mark.parametrize("compression", ["none", "fast"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_region_is_what_numpy_would_give(order: str, compression: str) -> None:
    """`retrieve(key, region=...)` must not have an indexing of its own."""
    array = np.asarray(np.arange(200 * 300 * 20).reshape(200, 300, 20) // 9, order=order)
    opened = open_frame(packed(array, compression))
    for index in INDICES:
        got = opened.region(index)
        assert np.array_equal(array[index], got)
        assert np.shape(array[index]) == got.shape
        assert not got.flags.writeable


@pytest.mark.parametrize("compression", ["none", "fast"])
def test_a_region_touches_only_its_chunks(compression: str) -> None:
    """Ten rows of a raster of gigabytes must not read all of it: damage elsewhere goes unseen."""
    array = np.arange(3_000_000) // 7
    data = bytearray(packed(array, compression))
    data[-1000] ^= 1
    opened = open_frame(bytes(data))
    assert np.array_equal(array[100:200], opened.region(np.s_[100:200]))
    with pytest.raises(CorruptDataError):
        opened.region(np.s_[-5000:])
    with pytest.raises(CorruptDataError):
        opened.verify()


def test_a_region_of_columns_leaves_out_what_lies_between() -> None:
    """A slice of the second axis of long rows reads a part of each row, not the rows."""
    from memories.frames import array_region

    window = array_region.locate((10, 1 << 20), np.dtype("f8"), "C", np.s_[2:8:2, 5:9])
    rows = 1 << 23
    assert [(r * rows + 40, r * rows + 72) for r in (2, 4, 6)] == array_region.touched(
        window, 1 << 20
    )


@pytest.mark.parametrize("index", [np.s_[[1, 2]], np.array([True]), "a", True, 1.5])
def test_a_fancy_index_is_refused(index: Any) -> None:
    """It would read the whole array behind the caller's back."""
    with pytest.raises(InvalidOptionError, match="ints, slices"):
        open_frame(packed(np.zeros(3))).region(index)


def test_other_values_have_no_regions() -> None:
    """The message names what the key holds instead."""
    with pytest.raises(InvalidOptionError, match="'key' holds a dict, a list or another str"):
        open_frame(packed([1])).region(0)
    with pytest.raises(InvalidOptionError, match="holds a value of numpy \\(scalar\\)"):
        open_frame(packed(np.float32(1))).region(0)
    with pytest.raises(IndexError):
        open_frame(packed(np.zeros(3))).region(3)
