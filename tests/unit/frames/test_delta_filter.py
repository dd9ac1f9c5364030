"""Differences: undone exactly, refused where they mean nothing, and chosen where they pay."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memories import codecs
from memories.errors import CorruptDataError
from memories.frames import compression as frame_compression
from memories.frames import pco_chunks, writer
from memories.frames.delta_filter import MAX_DISTANCE, Delta, candidates, unpack
from memories.frames.reader import open_frame


@given(
    data=st.binary(max_size=300),
    itemsize=st.sampled_from([1, 2, 4, 8]),
    step=st.integers(1, 400),
    xor=st.booleans(),
)
def test_differences_are_undone_exactly(data: bytes, itemsize: int, step: int, xor: bool) -> None:
    """Whatever the chunk's length: items left over and steps longer than it included."""
    delta = Delta(itemsize, step, xor)
    chunk = delta.apply(memoryview(data))
    delta.undo(chunk)
    assert data == chunk.tobytes()


def test_a_chunk_of_differences_says_how_to_undo_them() -> None:
    """It is read alone, when a region is."""
    data = np.arange(1000, dtype="<u4")
    method = frame_compression.Method("zstd", 3, 1, 4, Delta(4, 1, False))
    chunk = memoryview(frame_compression.compress(memoryview(data).cast("B"), method))
    target = np.empty(4000, np.uint8)
    frame_compression.decompress(chunk, target, method.code)
    assert data.tobytes() == target.tobytes()


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\3\0\0\0\1\0\0\0",
        b"\4\2\0\0\1\0\0\0",
        b"\4\0\1\0\1\0\0\0",
        b"\4\0\0\0\0\0\0\0",
        b"\4\0\0\0\xff\xff\xff\xff",
    ],
)
def test_a_head_that_means_nothing_is_refused(head: bytes) -> None:
    """Before anything is allocated or looped over."""
    with pytest.raises(CorruptDataError):
        unpack(memoryview(head + b"rest" * (head != b"")))


def test_only_distances_within_a_chunk_are_tried() -> None:
    """With a larger item, each chunk would consist of nearly only first items."""
    steps = {delta.step for delta in candidates((4, 400, 4 * MAX_DISTANCE))}
    assert {1, 100} == steps


def pack(value: object, compression: str) -> writer.Frame:
    return writer.pack(codecs.encode(value), key="k", version=1, compression=compression)


def test_a_smooth_raster_is_stored_as_differences_alone_and_in_a_tree() -> None:
    """Both say the shape of their arrays, which is all that the search needs."""
    rows, columns = np.mgrid[:500, :700]
    raster = (2000 + 900 * np.sin(rows / 90) * np.cos(columns / 70)).astype("<i2")
    for value in (raster, {"band": raster, "name": "x"}):
        data = pack(value, "high").join()
        plain = pack(value, "zstd:6").nbytes
        assert len(data) < 0.9 * plain
        got = codecs.decode(open_frame(data).parts())
        assert np.array_equal(raster, got if value is raster else got["band"])


def test_a_region_of_differences_is_the_region(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks start anew, so that none needs the one before."""
    monkeypatch.setattr(pco_chunks, "is_installed", lambda: False)
    field = np.cumsum(np.random.default_rng(0).integers(-3, 4, (900, 1500)), axis=1).astype("<i4")
    opened = open_frame(pack(field, "high").join())
    assert any(piece.compressor == frame_compression.DELTA for piece in opened.pieces)
    for region in (np.s_[3:5], np.s_[::200, 7], np.s_[-1, ...], np.s_[100:300, 400:410]):
        assert np.array_equal(field[region], opened.region(region))


def test_the_search_costs_little_for_small_values() -> None:
    """A hundred thousand values of 1 KB must not take minutes."""
    value = np.arange(128, dtype="<i8")
    pack(value, "high")
    taken = []  # The least counts: other threads and processes only add to it.
    for _ in range(20):
        begun = time.thread_time()
        pack(value, "high")
        taken.append(time.thread_time() - begun)
    assert min(taken) < 0.02
