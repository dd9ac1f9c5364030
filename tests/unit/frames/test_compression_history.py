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
    LARGE_NBYTES,
    LARGER_PAUSE,
    LARGER_SAME_WAY,
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


def test_the_trials_of_larger_values_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """By codec, dtype and size, with shorter pauses; above 16 MB each value gets one."""
    tried = []
    choose = writer.choose_method
    monkeypatch.setattr(writer, "choose_method", lambda *args: tried.append(1) or choose(*args))
    history, noise = CompressionHistory(), np.random.default_rng(1)
    history.record_write(1 << 18, 1.0)
    for _ in range(1 + FIRST_PAUSE + 1 + 2 * FIRST_PAUSE + 1 + LARGER_PAUSE + 1 + LARGER_PAUSE):
        packed(noise.random(1000), history)
    assert 4 == len(tried)
    steps = np.arange(1000)
    for _ in range(LARGER_SAME_WAY):
        assert len(packed(steps, history)) < steps.nbytes / 2
    assert 5 == len(tried)
    changed = packed(noise.integers(0, 2**60, 1000), history)
    assert len(changed) <= raw_size(steps) + 64
    packed(steps, history)
    assert 6 == len(tried), "it did not become smaller in the way that was found"
    for _ in range(2):
        packed(bytes(LARGE_NBYTES + 1), history)
    assert 8 == len(tried)
    assert history.counts() == SmallFrames(0, 0, 0)


def test_time_is_weighed_against_what_is_saved() -> None:
    """A fast medium has written the bytes sooner than they are saved, a slow one has not."""
    array = np.random.default_rng(1).integers(0, 1 << 24, 65_536, dtype="i4")  # A quarter smaller.
    flat = np.zeros(200_000, "i4")
    for compression, seconds, scarce, smaller in (
        ("auto", 1e-9, False, False),
        ("fast", 1e-9, False, True),
        ("auto", 1e-9, True, True),
        ("auto", 10.0, False, True),
        ("auto", 0.0, False, True),  # Nothing was measured.
    ):
        history = CompressionHistory()
        history.record_write(1 << 18, seconds)
        history.record_write(100, 1.0 if seconds < 1 else 1e-9)  # Too short to say anything.
        history.scarce = scarce
        assert smaller == (len(packed(array, history, compression)) < 0.95 * array.nbytes)
        assert len(packed(flat, history, compression)) < flat.nbytes / 10


def test_a_write_that_waited_for_others_says_little() -> None:
    """A busy machine delays some writes; compressing would have been delayed as well."""
    history = CompressionHistory(1e9)
    for number in range(40):
        history.record_write(1 << 20, 0.02 if number % 4 == 0 else 0.0005)
    assert not history.is_worth(1 << 20, 0.003)
    for _ in range(100):
        history.record_write(1 << 20, 0.02)
    assert history.is_worth(1 << 20, 0.003), "the medium has become slow"


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
