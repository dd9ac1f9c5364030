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


def test_a_region_is_read_of_arrays_only(trust: Keyring) -> None:
    """The same region in RAM and in a frame; an error for anything else."""
    payload = Payload.of(np.arange(10))
    for one in (payload, read_back(payload, trust)):
        assert [2, 3] == one.region(np.s_[2:4], trust).tolist()
    with pytest.raises(InvalidOptionError, match="NumPy array"):
        Payload.of({"a": 1}).region(np.s_[0], trust)


def test_a_frame_moves_as_it_is(trust: Keyring) -> None:
    """Between tiers of frames a move is a copy of bytes, and keeps the size that it has in RAM."""
    first = packed(Payload.of(np.arange(100)), trust)
    framed = read_back(Payload.of(np.arange(100)), trust)
    second = packed(framed, trust)
    assert b"".join(first.segments) == b"".join(second.segments)
    assert first.size == second.size == framed.size
    assert first.host_size == second.host_size == framed.host_size
