"""Whether a frame is sound, asked of many: never yes for what `open_frame` would refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from memories import codecs
from memories.frames.soundness import is_sound
from memories.frames.writer import pack

VALUES = ["a text", np.arange(50.0), np.zeros(3000, "u1"), b"", {"a": [1, np.arange(3)]}, None]


def frame_of(value: Any, compression: str = "none") -> bytearray:
    parts = codecs.encode(value)
    return bytearray(pack(parts, key="k", version=3, compression=compression).join())


@pytest.mark.parametrize("value", VALUES, ids=str)
@pytest.mark.parametrize("compression", ["none", "auto"])
def test_a_sound_frame_is_known_as_one(value: Any, compression: str) -> None:
    """Otherwise each would be opened one by one, which is what this is there to spare."""
    assert is_sound(memoryview(frame_of(value, compression)), "k")


@pytest.mark.parametrize("value", VALUES[:3], ids=str)
def test_no_flipped_bit_passes(value: Any) -> None:
    """A damaged value must not be saved as a sound one."""
    frame = frame_of(value)
    for at in range(len(frame)):
        frame[at] ^= 1 << at % 8
        assert not is_sound(memoryview(frame), "k"), at
        frame[at] ^= 1 << at % 8


def test_another_key_and_another_length_do_not_pass() -> None:
    """Bytes of another value, or only a part of them, are not this value."""
    frame = memoryview(frame_of("a text"))
    assert not is_sound(frame, "other")
    assert not any(is_sound(frame[:end], "k") for end in range(len(frame)))
    assert not is_sound(memoryview(bytes(frame) + bytes(64)), "k")
