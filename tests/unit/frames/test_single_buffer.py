"""The frames of bytes and texts: the same as those of `pack`, and nothing else is accepted."""

from __future__ import annotations

import os
import struct

import msgspec
import pytest
from xxhash import xxh3_64_intdigest

from memories import codecs
from memories.errors import InvalidKeyError
from memories.frames import head
from memories.frames.compression_history import CompressionHistory
from memories.frames.reader import open_frame
from memories.frames.single_buffer import MOST_FORMS, open_single
from memories.frames.writer import PlainPacker, pack

TEXT = (b'{"name": "tile", "number": 12345}' * 40)[:1024]
NOISE = os.urandom(1024)
VALUES = [
    NOISE,
    TEXT,
    b"x",
    b"x" * 63,
    b"x" * 64,
    os.urandom(4096),
    "text" * 300,
    "\u00e4",
    "\ud800",
]
KEYS = ["k", "tile/1/000123", "k" * 1024, "k" * 1025, "\u00fc" * 300]
NUMBERS = [0, 127, 128, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**63]


def framed(value: object, key: str = "k", version: int = 3, compression: str = "none") -> bytes:
    return pack(codecs.encode(value), key=key, version=version, compression=compression).join()


@pytest.mark.parametrize("compression", ["none", "auto", "high", "zstd:5"])
def test_it_packs_what_the_long_way_packs(compression: str) -> None:
    """Byte for byte, with the same trials: both write the same format."""
    for value in VALUES:
        parts = codecs.encode(value)
        data = bytes(parts.buffers[0])
        long, short = CompressionHistory(), CompressionHistory()
        packer = PlainPacker(compression, short)
        for version in NUMBERS:
            for key in KEYS:
                expected = pack(
                    parts, key=key, version=version, compression=compression, history=long
                ).join()
                options = {"key": key, "version": version, "compression": compression}
                made = packer.pack((parts.codec, data, len(data)), key, version)
                if made is None:  # The long way tries several compressors now and then.
                    made = pack(parts, **options, history=short).join()
                assert expected == made
        assert long.counts() == short.counts()
        assert short.counts().tried <= len(NUMBERS)


@pytest.mark.parametrize("compression", ["none", "auto", "zstd:9"])
def test_it_opens_what_was_stored(compression: str) -> None:
    """Whatever the key and the version are; the value has its own memory."""
    for value in VALUES:
        for key in KEYS:
            for version in NUMBERS:
                found = open_single(framed(value, key, version, compression), key)
                assert type(value) is type(found)
                assert value == found


@pytest.mark.parametrize("value", [b"some bytes", TEXT, "text " * 200], ids=["raw", "small", "str"])
def test_no_damage_gets_through(value: object) -> None:
    """A flipped bit, cut or longer frames and those of another key are left to `open_frame`."""
    whole = framed(value, compression="auto")
    assert value == open_single(whole, "k")
    for key in ("", "K", "kk", "\ud800"):
        assert open_single(whole, key) is None
    for at in range(len(whole)):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[at] ^= 1 << bit
            assert open_single(bytes(damaged), "k") is None, (at, bit)
        assert open_single(whole[:at], "k") is None, at
    assert open_single(whole + bytes(64), "k") is None


def sealed(fields: dict[str, object], body: bytes) -> bytes:
    """Return a frame with a valid checksum around any fields."""
    return head.seal(msgspec.msgpack.encode(fields), len(body)) + body


def described(*piece: object, codec: str = "bytes", raw: object = 64, **more: object) -> bytes:
    content = msgspec.msgpack.encode((None, [piece]))
    fields = {"key": "k", "version": 3, "codec": codec, "raw": raw, "content": content, **more}
    return sealed(fields, BODY)


BODY = bytes(range(64))
SUM = struct.pack("<Q", xxh3_64_intdigest(BODY))


def test_only_this_one_form_is_accepted() -> None:
    """A checksum proves no sense: each frame here has a valid one, and says something else."""
    assert BODY == open_single(described(0, 64, 64, 0, SUM, b""), "k")
    wrong = [
        described(0, 64, 64, 0, SUM, b"", codec="pickle"),
        described(0, 64, 64, 0, SUM, b"", codec="bytearray"),
        described(0, 64, 64, 0, SUM, b"", raw=65),
        described(0, 64, 65, 0, SUM, b""),
        described(0, 63, 63, 0, SUM, b"", raw=63),
        described(64, 64, 64, 0, SUM, b""),
        described(0, -64, -64, 0, SUM, b"", raw=-64),
        described(0, 2**62, 2**62, 0, SUM, b"", raw=2**62),
        described(0, 64, 64, 0, SUM[:4], b""),
        described(0, 64, 64, 0, SUM, bytes(4)),
        described(0, 64, 64, 1, SUM, struct.pack("<I", 64)),
        described(0, 64, 64, 1, SUM, struct.pack("<I", 63)),
        described(0, 64, 64, 2, SUM, struct.pack("<I", 64)),
        described(0, 64, 64, 0, SUM, b"", key_id="a", mac=b"b"),
        described(0, 64, 64, 0, SUM, b"", prelude=(0, 0, 0, 0, b"", b"")),
        sealed({"key": "k", "version": 3, "codec": "bytes", "raw": 64}, BODY),
        sealed({"version": 3, "key": "k", "codec": "bytes", "raw": 64, "content": b"\x92"}, BODY),
        sealed({"key": "k", "version": -3, "codec": "bytes", "raw": 64, "content": b""}, BODY),
        framed(b""),
        framed(7),
        framed([b"a", b"b"]),
        framed(bytes(300_000)),
        described(0, 64, 64, 0, SUM, b"", codec="str").replace(BODY, b"\xff" * 64),
    ]
    for whole in wrong:
        assert open_single(whole, "k") is None
    for size in range(100):
        assert open_single(os.urandom(size), "k") is None


def test_what_is_not_text_is_no_text() -> None:
    """The long way says that it is damaged."""
    data = b"\xff" * 64
    total = struct.pack("<Q", xxh3_64_intdigest(data))
    whole = described(0, 64, 64, 0, total, b"", codec="str").replace(BODY, data)
    assert data == bytes(open_frame(memoryview(whole), key="k").parts().buffers[0])
    assert open_single(whole, "k") is None


def test_many_sizes_do_not_fill_the_memory() -> None:
    """The forms that were seen are forgotten when there are too many; all frames still work."""
    packer = PlainPacker("none", CompressionHistory())
    for size in range(1, MOST_FORMS + 100, 3):
        for codec, value in (("bytes", bytes(size)), ("str", "a" * size)):
            data = value if isinstance(value, bytes) else value.encode()
            made = packer.pack((codec, data, len(data)), "k", 1)
            if size <= 4096:
                assert made is not None
                assert value == open_single(made, "k")


def test_a_key_that_is_none_is_refused() -> None:
    """As `pack` refuses it."""
    packer = PlainPacker("none", CompressionHistory())
    for key in ("", "k" * 4097, "\ud800"):
        with pytest.raises(InvalidKeyError):
            packer.pack(("bytes", b"x", 1), key, 1)
