"""A value means the same in every form that a tier holds it in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memories.engine.payload import (
    ArrayPayload,
    FramePayload,
    HeldPayload,
    ObjectPayload,
    PackedFrame,
    Payload,
)
from memories.errors import InvalidOptionError
from memories.frames.compression_history import CompressionHistory
from memories.frames.signing import Keyring

KINDS: list[tuple[Any, type[Payload]]] = [
    ("text", ObjectPayload),
    (np.arange(6).reshape(2, 3), ArrayPayload),
    ({"a": [1, 2], "b": np.arange(3)}, HeldPayload),
]


@pytest.fixture
def trust(tmp_path: Path) -> Keyring:
    """Give keys of a user who has none yet."""
    return Keyring(tmp_path / "keys")


def packed(payload: Payload, trust: Keyring, *, recompress: bool = False) -> PackedFrame:
    """Return a payload as a frame of the key "k"."""
    return payload.to_frame(
        key="k",
        version=1,
        compression="none",
        trust=trust,
        history=CompressionHistory(),
        recompress=recompress,
    )


def read_back(payload: Payload, trust: Keyring) -> FramePayload:
    """Return what is read of the frame of a payload."""
    frame = b"".join(packed(payload, trust).segments)
    return Payload.of_frame(memoryview(frame), key="k")


@pytest.mark.parametrize(("value", "kind"), KINDS)
def test_each_value_is_held_in_its_own_way(value: Any, kind: type[Payload]) -> None:
    """How a value is held says what its readers share."""
    assert type(Payload.of(value)) is kind


@pytest.mark.parametrize(("value", "kind"), KINDS)
def test_every_verb_gives_the_value(value: Any, kind: type[Payload], trust: Keyring) -> None:
    """In RAM, in a frame, and back in RAM."""
    payload = Payload.of(value)
    framed = read_back(payload, trust)
    again = framed.to_host(trust)
    assert type(again) is kind
    for one in (payload, framed, again):
        verbs: list[Callable[[Keyring], Any]] = [one.open, one.open_shared, one.open_copy]
        for verb in verbs:
            np.testing.assert_equal(verb(trust), value)


def test_only_a_copy_may_be_written_to(trust: Keyring) -> None:
    """What readers share is read-only."""
    payload = Payload.of(np.zeros(3))
    assert not payload.open(trust).flags.writeable
    copy = payload.open_copy(trust)
    copy[:] = 1
    assert 0 == payload.open(trust).sum()


CUTS = [slice(2, 5), slice(None), slice(-3, None), slice(None, None, -2), slice(9, 4), 0, -1]


def test_a_region_is_the_same_in_ram_and_in_a_frame(trust: Keyring) -> None:
    """Arrays, bytes and bytearrays are cut where they lie, with the result that Python gives."""
    for whole in (bytes(range(10)), bytearray(range(10)), bytes(2**21 + 3)):
        payload = Payload.of(whole)
        for one in (payload, read_back(payload, trust)):
            for cut in CUTS:
                part = one.region(cut, trust, key="k")
                assert (whole[cut], type(whole[cut])) == (part, type(part))
    payload = Payload.of(np.arange(10))
    for one in (payload, read_back(payload, trust)):
        assert [2, 3] == one.region(np.s_[2:4], trust, key="k").tolist()
        assert (4, ()) == (one.region(4, trust, key="k"), one.region(4, trust, key="k").shape)


@pytest.mark.parametrize(
    ("value", "index"),
    [
        ({"a": 1}, 0), ("text", slice(0, 2)), (np.float32(1), 0), (7, 0),
        (memoryview(b"abc"), slice(0, 1)), (b"abc", (slice(0, 1),)), (b"abc", [0]),
        (bytearray(b"abc"), None), (np.zeros(3), [0]), (np.zeros(3), np.array([True] * 3)),
    ],
)  # fmt: skip
def test_what_cannot_be_cut_is_refused_alike(trust: Keyring, value: Any, index: Any) -> None:
    """One error whatever the tier: a host catches it without knowing where a value lies."""
    payload = Payload.of(value)
    messages = set()
    for one in (payload, read_back(payload, trust)):
        with pytest.raises(InvalidOptionError, match="region=") as caught:
            one.region(index, trust, key="k")
        messages.add(str(caught.value))
    assert 1 == len(messages)


def test_the_length_of_a_value_is_known_without_its_bytes(trust: Keyring) -> None:
    """A host asks for the size of an object before it reads a part of it."""
    sized = {"aé\ud800": 6, "ascii": 5}
    for value, length in [(b"abc", 3), (bytearray(7), 7), (np.zeros((3, 2), "i2"), 12)]:
        assert length == Payload.of(value).content_bytes
    for text, length in sized.items():
        assert length == Payload.of(text).content_bytes
    assert 4 == Payload.of(memoryview(b"abcd")).content_bytes
    assert Payload.of({"a": b"x"}).content_bytes is Payload.of(3).content_bytes is None


def test_a_frame_moves_as_it_is(trust: Keyring) -> None:
    """Between tiers of frames a move is a copy of bytes, and keeps the size that it has in RAM."""
    first = packed(Payload.of(np.arange(100)), trust)
    framed = read_back(Payload.of(np.arange(100)), trust)
    second = packed(framed, trust)
    assert b"".join(first.segments) == b"".join(second.segments)
    assert first.size == second.size == framed.size
    assert first.host_size == second.host_size == framed.host_size
