"""Entries of many frames at once are those that single frames give."""

from __future__ import annotations

from itertools import count
from typing import Any

import numpy as np
import pytest
from tests.support.values import identical

from memories.engine.hit_counter import HitCounter
from memories.engine.payload import Payload
from memories.engine.small_entries import entries_of
from memories.engine.small_frames import load_small
from memories.foundation.host_limits import ENTRY_BYTES
from memories.frames.compression_history import CompressionHistory
from memories.frames.signing import Keyring
from memories.model.entry import Entry, common_of
from memories.model.record import Record, Terms
from memories.model.tiers import TierName

VALUES: list[Any] = [
    b"some bytes", b"compressible " * 100, "a text", "\ud800 alone", "ż" * 900,
    np.arange(20), np.array(2.5), np.array([1, 2], ">i4"),
    [1, {"a": None}], {1, 2}, 5, None, 2.5 + 1j,
]  # fmt: skip


def framed(key: str, value: Any) -> bytes:
    packed = Payload.of(value).to_frame(
        key=key, version=7, compression="fast", trust=Keyring(), history=CompressionHistory(0.0)
    )
    return b"".join(packed.segments)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:30])
def test_an_entry_is_what_a_single_frame_gives(value: Any) -> None:
    """Its kind, size, marks and what it has in common; a damaged frame is left to the general."""
    counter, asked = HitCounter(), list[str]()
    common = common_of(TierName.HOT, counter.tick, backed=TierName.COLD)
    frame = framed("k", value)
    damaged = frame[:33] + bytes([frame[33] ^ 1]) + frame[34:]
    record = Record(key="k", version=7, tier=TierName.COLD, size=1, stored_at=3.5)
    with_terms = Record(
        key="k", version=7, tier=TierName.COLD, size=1, stored_at=3.5, terms=Terms(pinned=True)
    )

    def general(record: Record, frame: bytes) -> Entry | None:
        asked.append(record.key)
        return None

    owned = load_small(frame, "k")
    assert owned is not None
    found = entries_of(
        [(record, frame), (record, damaged), (with_terms, frame)], common, counter, general
    )
    assert (len(found), len(asked)) in {(1, 2), (0, 3)}
    assert found or not isinstance(value, bytes | str)
    for entry in found:
        assert (owned.kind, owned.size) == (type(entry), entry.size)
        assert ("k", 7, 3.5) == (entry.key, entry.version, entry.stored_at)
        assert entry.common is common
        assert entry.link is None
        assert entry.size > ENTRY_BYTES
        assert identical(value, entry.read())
        assert not isinstance(value, np.ndarray) or not entry.read().flags.writeable


def test_the_order_is_kept() -> None:
    """Entries of the general way are among the others, and each stamp is later than the last."""
    counter, numbers = HitCounter(), count()
    common = common_of(TierName.WARM, counter.tick, backed=TierName.COLD)
    values = [
        (
            Record(key=f"k{next(numbers)}", version=7, tier=TierName.COLD, size=1, stored_at=1.0),
            framed(f"k{n}", [n] if n % 3 else b"value"),
        )
        for n in range(30)
    ]

    def general(record: Record, frame: bytes) -> Entry | None:
        owned = load_small(frame, record.key)
        assert owned is not None
        return owned.kind(record.key, 7, owned.content, owned.size, 1.0, common, counter.stamp())

    found = entries_of(values, common, counter, general)
    assert [record.key for record, _ in values] == [entry.key for entry in found]
    stamps = [entry.stamp for entry in found]
    assert sorted(set(stamps)) == stamps
