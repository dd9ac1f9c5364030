"""The fast path accepts only frames that `open_frame` would accept, and packs the same bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from memories import codecs
from memories.frames import writer
from memories.frames.fast_path import is_intact, read_small
from memories.frames.reader import open_frame
from memories.frames.signing import Keyring
from memories.frames.writer import pack

PLAIN = [b"x", bytes(range(256)) * 4, "text \u20ac", 7, 2.5, None, np.arange(50.0), (1, "a", b"b")]


def framed(value: Any, *, compression: str = "none") -> bytes:
    parts = codecs.encode(value)
    made = pack(parts, key="k", version=3, compression=compression, signer=Keyring())
    return b"".join(made.segments)


def test_it_packs_what_the_long_way_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Byte for byte: both write the same format."""
    odd = [
        b"",
        "",
        np.zeros((0, 3)),
        {"a": [1, np.arange(3)], "b": np.float32(2)},
        2**80,
        b"x" * 64,
    ]
    for value in [*PLAIN, *odd, "x" * 4096]:
        parts = codecs.encode(value)
        short = pack(parts, key="k\u00e9y", version=2**40)
        with monkeypatch.context() as patch:
            patch.setattr(writer, "MAX_PACKED_BYTES", -1)
            long = pack(parts, key="k\u00e9y", version=2**40)
        assert long.join() == short.join()
        assert (long.nbytes, long.raw_nbytes) == (short.nbytes, short.raw_nbytes)
        assert bytes(long.head) == bytes(short.head) == bytes(short.segments[0])


@pytest.mark.parametrize("value", PLAIN, ids=lambda value: type(value).__name__)
def test_it_reads_what_the_long_way_reads(value: Any) -> None:
    """The same parts, and so the same value."""
    whole = memoryview(framed(value))
    parts = read_small(whole, "k")
    long = open_frame(whole, key="k").parts()
    assert parts is not None
    assert (long.codec, long.meta) == (parts.codec, parts.meta)
    assert [bytes(buffer) for buffer in long.buffers] == [bytes(buffer) for buffer in parts.buffers]
    assert all(buffer.readonly for buffer in parts.buffers)


@pytest.mark.parametrize("compression", ["auto", "zstd:9"])
@pytest.mark.parametrize("value", [b"text " * 200, np.arange(500), "wort" * 999, (b"x" * 600, "a")])
def test_it_reads_small_compressed_frames(value: Any, compression: str) -> None:
    """With one chunk for each buffer; larger ones are left alone."""
    whole = memoryview(framed(value, compression=compression))
    assert whole.nbytes < len(framed(value))
    parts = read_small(whole, "k")
    long = open_frame(whole, key="k").parts()
    assert parts is not None
    assert (long.codec, long.meta) == (parts.codec, parts.meta)
    assert [bytes(buffer) for buffer in long.buffers] == [bytes(buffer) for buffer in parts.buffers]
    assert all(buffer.readonly for buffer in parts.buffers)
    assert read_small(memoryview(framed(b"text " * 4000, compression=compression)), "k") is None


@pytest.mark.parametrize(
    "value",
    [b"some bytes", np.arange(50.0), 7, b"text " * 200],
    ids=["bytes", "array", "int", "compressed"],
)
def test_no_damage_gets_through(value: Any) -> None:
    """Frames with a flipped bit, cut frames and longer frames are left to `open_frame`."""
    writer = framed(value, compression="auto")
    assert read_small(memoryview(writer), "k") is not None
    assert read_small(memoryview(writer), "other") is None
    for at in range(len(writer)):
        for bit in range(8):
            damaged = bytearray(writer)
            damaged[at] ^= 1 << bit
            assert read_small(memoryview(bytes(damaged)), "k") is None, (at, bit)
        assert read_small(memoryview(writer[:at]), "k") is None, at
    assert read_small(memoryview(writer + bytes(64)), "k") is None


def test_what_is_not_plain_is_left_alone() -> None:
    """Compressed values, and above all what could run code: its signature is checked elsewhere."""
    squeezed = memoryview(framed(np.zeros(20_000), compression="lz4"))
    signed = memoryview(framed({1, 2, complex(1, 2)} | {object}))
    assert open_frame(signed).signed_by
    assert read_small(squeezed, "k") is None
    assert read_small(signed, "k") is None


VALUES = ["a text", np.arange(50.0), np.zeros(3000, "u1"), b"", {"a": [1, np.arange(3)]}, None]


@pytest.mark.parametrize("value", VALUES, ids=str)
@pytest.mark.parametrize("compression", ["none", "auto"])
def test_a_sound_frame_is_known_as_one(value: Any, compression: str) -> None:
    """Otherwise each would be opened one by one, which is what this is there to spare."""
    assert is_intact(memoryview(bytearray(framed(value, compression=compression))), "k")


@pytest.mark.parametrize("value", VALUES[:3], ids=str)
def test_no_flipped_bit_passes(value: Any) -> None:
    """A damaged value must not be saved as a sound one."""
    frame = bytearray(framed(value))
    for at in range(len(frame)):
        frame[at] ^= 1 << at % 8
        assert not is_intact(memoryview(frame), "k"), at
        frame[at] ^= 1 << at % 8


def test_another_key_and_another_length_do_not_pass() -> None:
    """Bytes of another value, or only a part of them, are not this value."""
    frame = memoryview(framed("a text"))
    assert not is_intact(frame, "other")
    assert not any(is_intact(frame[:end], "k") for end in range(len(frame)))
    assert not is_intact(memoryview(bytes(frame) + bytes(64)), "k")
