"""Small values whose kind was not worth compressing lately are stored raw without a trial."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from memories import MemoryManager, codecs
from memories.frames import writer
from memories.frames.compression_history import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    SAME_WAY,
    CompressionHistory,
    SmallFrames,
)
from memories.frames.reader import open_frame
from memories.frames.writer import pack

TEXT = b'{"name": "value", "x": 12345, "list": [1, 2, 3]}, ' * 20


def packed(value: object, history: CompressionHistory, compression: str = "auto") -> bytes:
    parts = codecs.encode(value)
    return pack(parts, key="k", version=1, compression=compression, history=history).join()


def raw_size(value: object) -> int:
    return pack(codecs.encode(value), key="k", version=1).nbytes


def test_noise_is_tried_less_and_less() -> None:
    """The pauses double; each value reads back as it was, and takes what a raw one takes."""
    history, chance = CompressionHistory(), random.Random(1)
    for _ in range(5000):
        value = chance.randbytes(1000)
        frame = packed(value, history)
        assert len(frame) == raw_size(value)
        assert value == codecs.decode(open_frame(memoryview(frame), key="k").parts())
    counts = history.counts()
    assert (counts.tried, counts.compressed) == (10, 0)
    assert counts.untried == 4990
    assert sum(min(FIRST_PAUSE << n, LONGEST_PAUSE) for n in range(9)) < 4990


@pytest.mark.parametrize("compression", ["auto", "zstd", "high"])
@pytest.mark.parametrize("value", [TEXT, np.arange(400), "word " * 300], ids=["b", "array", "text"])
def test_the_way_that_was_found_is_used_again(value: object, compression: str) -> None:
    """The frames are those of the long way, byte for byte, with few trials."""
    history = CompressionHistory()
    wanted = pack(codecs.encode(value), key="k", version=1, compression=compression).join()
    assert len(wanted) < raw_size(value)
    for _ in range(SAME_WAY + 2):
        assert wanted == packed(value, history, compression)
    counts = history.counts()
    assert counts.compressed == SAME_WAY + 2
    assert counts.tried == 2
    assert counts.untried == 0


def test_values_of_other_codecs_and_sizes_are_tried_all_the_same() -> None:
    """What is learnt of noise says nothing of texts, or of values of twice the size."""
    history = CompressionHistory()
    for _ in range(20):
        packed(random.randbytes(1000), history)
    assert len(packed("word " * 200, history)) < 700
    assert len(packed(TEXT + TEXT, history)) < 700
    assert len(packed(TEXT, history)) == raw_size(TEXT)  # Within the pause.


def test_a_pause_ends_and_values_that_changed_are_compressed() -> None:
    """A class of noise in which texts come in is found out, and the other way round."""
    history = CompressionHistory()
    packed(random.randbytes(1000), history)
    sizes = [len(packed(TEXT, history)) for _ in range(FIRST_PAUSE + 10)]
    assert sizes[:FIRST_PAUSE] == [raw_size(TEXT)] * FIRST_PAUSE
    assert all(size < raw_size(TEXT) // 2 for size in sizes[FIRST_PAUSE:])
    noise = random.randbytes(1000)
    assert len(packed(noise, history)) == raw_size(noise)
    assert history.counts().tried == 3


def test_large_values_are_always_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above 4 KB the trials are a small part of the work."""
    tried = []
    choose = writer.choose_method
    monkeypatch.setattr(writer, "choose_method", lambda *args: tried.append(1) or choose(*args))
    history = CompressionHistory()
    for _ in range(3):
        packed(random.randbytes(5000), history)
    assert len(tried) == 3
    assert history.counts() == SmallFrames(0, 0, 0)


def test_stats_say_what_was_tried(tmp_path: Path) -> None:
    """Of each durable tier."""
    with MemoryManager("10 MB", "10 MB", "100 MB", storage_path=tmp_path / "s") as manager:
        for number in range(10):
            manager.store(f"noise {number}", random.randbytes(1000), "cold")
            manager.store(f"text {number}", TEXT * 2, "cold")
        small = manager.stats().small_frames
        assert {"cold": SmallFrames(tried=2, compressed=10, untried=9)} == {
            str(name): counts for name, counts in small.items()
        }
