"""The frames of small arrays: the same as those of `pack`, and nothing else is accepted."""

from __future__ import annotations

import os
import struct
from typing import Any

import msgspec
import numpy as np
import pytest
from xxhash import xxh3_64_intdigest

from memories import codecs
from memories.codecs.arrays import ORDINARY_DTYPES, npy_header
from memories.errors import InvalidKeyError
from memories.frames import head
from memories.frames.compression_history import CompressionHistory
from memories.frames.reader import open_frame
from memories.frames.single_array import COPIED, MOST_FORMS, open_array
from memories.frames.single_buffer import open_single
from memories.frames.writer import PlainPacker, pack

VECTOR = np.random.default_rng(1).standard_normal(384, dtype=np.float32)
ARRAYS = [
    VECTOR,
    np.arange(512.0),
    np.zeros((4, 8, 2), np.int16),
    np.array(2.5),
    np.array([[True]]),
    np.arange(7, dtype=np.uint8),
    *(np.ones(5, dtype) for dtype in ORDINARY_DTYPES),
]
KEYS = ["k", "vector/000123", "k" * 1024, "k" * 1025, "\u00fc" * 300]
NUMBERS = [0, 127, 128, 65535, 65536, 2**32, 2**63]


def framed(value: Any, key: str = "k", version: int = 3, compression: str = "none") -> bytes:
    return pack(codecs.encode(value), key=key, version=version, compression=compression).join()


@pytest.mark.parametrize("compression", ["none", "auto", "high", "zstd:5"])
def test_it_packs_what_the_long_way_packs(compression: str) -> None:
    """Byte for byte, with the same trials: both write the same format."""
    short_ones = 0
    for value in ARRAYS:
        parts = codecs.encode(value)
        long, short = CompressionHistory(), CompressionHistory()
        packer = PlainPacker(compression, short)
        options: dict[str, Any] = {"compression": compression}
        for version in NUMBERS:
            for key in KEYS:
                expected = pack(parts, key=key, version=version, history=long, **options).join()
                made = packer.pack((parts.codec, value, value.nbytes), key, version)
                if made is None:  # The long way tries several compressors now and then.
                    made = pack(parts, key=key, version=version, history=short, **options).join()
                else:
                    short_ones += 1
                assert expected == made
        assert long.counts() == short.counts()
    assert short_ones > 30 * len(ARRAYS) / 2


def test_it_opens_what_was_stored() -> None:
    """Type, shape and bytes; read-only, also for a view of the value that is made writable."""
    for value in ARRAYS:
        for key in KEYS:
            for version in NUMBERS:
                found = open_array(framed(value, key, version), key)
                assert found is not None
                assert type(found) is np.ndarray
                assert (value.dtype.str, value.shape) == (found.dtype.str, found.shape)
                assert value.tobytes() == found.tobytes()
                with pytest.raises(ValueError, match="WRITEABLE"):
                    found.setflags(write=True)


def test_a_view_of_it_cannot_change_it() -> None:
    """Nor its shape: readers of a value in RAM get views of one array."""
    for value in (np.arange(6), np.zeros((2, 3))):
        found = open_array(framed(value), "k")
        assert found is not None
        inner: Any = found.view()
        while isinstance(inner, np.ndarray):
            assert inner is not found
            inner = inner.base
        assert type(inner) is bytes


@pytest.mark.parametrize("size", [3, 384, COPIED, 60_000])
def test_no_damage_gets_through(size: int) -> None:
    """A flipped bit, cut or longer frames and those of another key are left to `open_frame`."""
    whole = framed(np.arange(size, dtype=np.float32))
    assert open_array(whole, "k") is not None
    for key in ("", "K", "kk", "\ud800"):
        assert open_array(whole, key) is None
    every = range(len(whole)) if size < 1000 else range(0, len(whole), 997)
    for at in every:
        damaged = bytearray(whole)
        for bit in range(8):
            damaged[at] ^= 1 << bit
            assert open_array(bytes(damaged), "k") is None, (at, bit)
            damaged[at] ^= 1 << bit
        assert open_array(whole[:at], "k") is None, at
    assert open_array(whole + bytes(64), "k") is None


HEADER = npy_header(np.dtype("<i8"), (8,), "C")
BODY = bytes(range(64))


def total(data: bytes) -> bytes:
    return struct.pack("<Q", xxh3_64_intdigest(data))


def described(
    *,
    meta: Any = None,
    piece: Any = None,
    header: bytes = HEADER,
    prelude: Any = None,
    **more: object,
) -> bytes:
    """Return a frame with valid checksums around whatever it says."""
    table = [piece or (128, 64, 64, 0, total(BODY), b"")]
    given = meta or {"dtype": "<i8", "shape": [8], "order": "C"}
    fields = {
        "key": "k",
        "version": 3,
        "codec": "ndarray",
        "raw": 64,
        "content": msgspec.msgpack.encode((given, table)),
        "prelude": prelude or (0, 128, 128, 0, total(header), b""),
        **more,
    }
    body = header + BODY
    return head.seal(msgspec.msgpack.encode(fields), len(body)) + body


def test_only_this_one_form_is_accepted() -> None:
    """A checksum proves no sense: each frame here has a valid one, and says something else."""
    found = open_array(described(), "k")
    assert found is not None
    assert BODY == found.tobytes()
    other = npy_header(np.dtype("<f8"), (8,), "C")
    wrong = [
        described(codec="bytes"),
        described(codec="numpy.masked"),
        described(raw=65),
        described(raw=-1),
        described(raw=2**62),
        described(header=other),
        described(meta={"dtype": "<f8", "shape": [8], "order": "C"}),
        described(meta={"dtype": "<i8", "shape": [9], "order": "C"}),
        described(meta={"dtype": "<i8", "shape": [8], "order": "F"}),
        described(meta={"dtype": "<i8", "shape": [-8], "order": "C"}),
        described(meta={"dtype": "<i8", "shape": [8.0], "order": "C"}),
        described(meta={"dtype": "<i8", "shape": [8, *[1] * 70], "order": "C"}),
        described(meta={"dtype": "|O", "shape": [8], "order": "C"}),
        described(meta={"dtype": ">i8", "shape": [8], "order": "C"}),
        described(meta={"dtype": "<i8", "shape": [8]}),
        described(meta={"shape": [8], "dtype": "<i8", "order": "C"}),
        described(meta=[1, 2]),
        described(piece=(128, 63, 63, 0, total(BODY), b"")),
        described(piece=(128, 64, 64, 1, total(BODY), struct.pack("<I", 64))),
        described(piece=(192, 64, 64, 0, total(BODY), b"")),
        described(piece=(128, 2**62, 2**62, 0, total(BODY), b"")),
        described(piece=(128, 64, 64, 0, total(BODY)[:4], b"")),
        described(prelude=(0, 64, 64, 0, total(HEADER[:64]), b"")),
        described(prelude=(0, 128, 128, 0, total(HEADER)[:7] + b"\0", b"")),
        described(prelude=(64, 128, 128, 0, total(HEADER), b"")),
        described(key_id="a", mac=b"b"),
        framed(b"some bytes"),
        framed(np.arange(0)),
        framed(np.array([1, "a"], object)),
        framed(np.array(["2020-01-01"], "datetime64[D]")),
        framed(np.asfortranarray(np.zeros((3, 4)))),
        framed(np.zeros(200_000)),
    ]
    for whole in wrong:
        assert open_array(whole, "k") is None
        assert not isinstance(open_single(whole, "k"), np.ndarray)
    for size in range(100):
        assert open_array(os.urandom(size), "k") is None


def test_a_damaged_header_is_reported() -> None:
    """By the general way, to which the frame is left."""
    whole = framed(VECTOR)
    damaged = whole.replace(b"'fortran_order': False", b"'fortran_order': True ")
    assert damaged != whole
    assert open_array(damaged, "k") is None
    assert open_frame(memoryview(whole), key="k").parts().codec == "ndarray"


def test_many_shapes_do_not_fill_the_memory() -> None:
    """The forms that were seen are forgotten when there are too many; all frames still work."""
    packer = PlainPacker("none", CompressionHistory())
    for size in range(1, MOST_FORMS + 100):
        value = np.arange(size, dtype=np.uint8)
        made = packer.pack(("ndarray", value, size), "k", 1)
        assert made is not None
        assert np.array_equal(value, open_single(made, "k"))


def test_a_key_that_is_none_is_refused() -> None:
    """As `pack` refuses it."""
    packer = PlainPacker("none", CompressionHistory())
    for key in ("", "k" * 4097, "\ud800"):
        with pytest.raises(InvalidKeyError):
            packer.pack(("ndarray", VECTOR, VECTOR.nbytes), key, 1)
